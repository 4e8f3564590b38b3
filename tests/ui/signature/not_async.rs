use cache_runtime::{cached, invalidates};

#[cached(resource = "users", strict)]
pub fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[cached(resource = "users", op = "list", local = false)]
pub fn list() -> Vec<String> {
    Vec::new()
}

#[invalidates("users")]
pub fn wipe() {}

fn main() {}
