//! The OpenAPI document: the output of poem-openapi, completed with what its macros can't express.
//!
//! `schemathesis` compares the document with the answers (`scripts/test --all`), in both
//! directions: requests that it allows must be accepted, and requests that it forbids must be
//! refused.

use serde_json::{Value, json};

use crate::filter::{self, MAX_LIMIT};
use crate::input::READ_ONLY;
use crate::products::{Product, ProductInput};
use crate::purchases::Purchase;
use crate::resource::{Input, Resource};
use crate::resources::RESOURCES;
use crate::users::{User, UserInput};

/// `1,2,3`, as the parser accepts it.
const IDS: &str = r"^\s*[+-]?[0-9]{1,18}\s*(,\s*[+-]?[0-9]{1,18}\s*){0,99}$";

/// Completes what poem-openapi wrote, which is JSON.
pub(super) fn complete(written: &str) -> Value {
    let mut document = serde_json::from_str(written).unwrap_or_default();
    complete_input::<UserInput>(&mut document);
    complete_input::<ProductInput>(&mut document);
    complete_input::<Purchase>(&mut document);
    let description = &mut document["components"]["schemas"]["Product"]["properties"];
    description["description"]["nullable"] = true.into();
    complete_resource::<User>(&mut document, "UserFilter");
    complete_resource::<Product>(&mut document, "ProductFilter");
    let forget = &mut document["paths"]["/cache/{resource}"]["delete"];
    parameter(forget, "resource", |schema| {
        schema["enum"] = json!(RESOURCES)
    });
    document
}

/// The bodies of writes: no other fields, except those that an answer has and a write ignores;
/// `null` counts as missing.
fn complete_input<I: Input>(document: &mut Value) {
    let schema = &mut document["components"]["schemas"][&*I::name()];
    schema["additionalProperties"] = false.into();
    let required = schema["required"].clone();
    let is_required = |name: &str| {
        let names = required.as_array().into_iter().flatten();
        names.into_iter().any(|required| required == name)
    };
    let Some(properties) = schema["properties"].as_object_mut() else {
        return;
    };
    for (name, property) in properties.iter_mut() {
        if !is_required(name) {
            property["nullable"] = true.into();
        }
    }
    for (name, pattern) in I::PATTERNS {
        properties[*name]["pattern"] = (*pattern).into();
    }
    for name in READ_ONLY {
        let ignored = json!({"description": "Ignored, so that what was read may be sent back."});
        properties.insert(name.to_owned(), ignored);
    }
}

fn complete_resource<R: Resource>(document: &mut Value, filter: &str) {
    let schemas = filter::schemas::<R>(filter);
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = schema;
    }
    let path = format!("/{}", R::RESOURCE);
    for operation in ["filter", "filter-paginated"] {
        let post = &mut document["paths"][format!("{path}/{operation}")]["post"];
        let content = post["requestBody"]["content"].as_object_mut();
        for (_, media_type) in content.into_iter().flatten() {
            let reference = format!("#/components/schemas/{filter}");
            media_type["schema"] = json!({"$ref": reference});
        }
    }

    let list = &mut document["paths"][&path]["get"];
    parameter(list, "ids", |schema| schema["pattern"] = IDS.into());
    parameter(list, "skip", |schema| {
        schema["minimum"] = 0.into();
        schema["maximum"] = u32::MAX.into();
    });
    parameter(list, "limit", |schema| {
        schema["minimum"] = 1.into();
        schema["maximum"] = MAX_LIMIT.into();
    });
    list["responses"]["200"]["headers"]["ETag"] = json!({
        "description": "Names this body; send it in `If-None-Match` to be told whether it is still the same.",
        "required": true,
        "schema": {"type": "string"},
    });
    list["responses"]["304"] = json!({
        "description": "The client has this body: `If-None-Match` names it.",
    });
}

/// Changes the schema of a parameter of `operation`.
fn parameter(operation: &mut Value, name: &str, change: impl FnOnce(&mut Value)) {
    let parameters = operation["parameters"].as_array_mut().into_iter().flatten();
    let mut parameters = parameters.filter(|parameter| parameter["name"] == name);
    if let Some(parameter) = parameters.next() {
        change(&mut parameter["schema"]);
    }
}
