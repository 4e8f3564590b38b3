//! What the catalog says of a function, in the words that are compiled into its site.

use crate::testing::{cached as expand_cached, invalidates as expand_invalidates};

/// The words of a function under `#[cached(resource = "users" ..)]`.
#[track_caller]
fn read(options: &str, signature: &str) -> String {
    let item = format!("async fn {signature} -> User {{ x }}");
    description(&expand_cached(
        &format!("resource = \"users\"{options}"),
        &item,
    ))
}

/// The words of a function under `#[invalidates]`.
#[track_caller]
fn write(options: &str, signature: &str) -> String {
    description(&expand_invalidates(
        options,
        &format!("async fn {signature} -> User {{ x }}"),
    ))
}

/// The second argument of the site, as the compiler reads it.
#[track_caller]
fn description(expanded: &str) -> String {
    let block: syn::ItemFn = syn::parse_str(expanded).expect("the mistakes of a test's function");
    let site = block.block.stmts.iter().find_map(|stmt| match stmt {
        syn::Stmt::Item(syn::Item::Static(site)) => Some(&*site.expr),
        _ => None,
    });
    match site {
        Some(syn::Expr::Call(call)) => match call.args.get(1) {
            Some(syn::Expr::Lit(literal)) => match &literal.lit {
                syn::Lit::Str(description) => description.value(),
                _ => panic!("the words are a string: {expanded}"),
            },
            _ => panic!("the words are a literal: {expanded}"),
        },
        _ => panic!("a function has a site: {expanded}"),
    }
}

#[test]
fn the_name_of_an_entry_comes_first() {
    for (options, signature, expected) in [
        ("", "get(id: i64)", "users:{id: i64}"),
        ("", "get(&self, id: &'a str)", "users:{id: str}"),
        (
            ", op = \"avatar\"",
            "get(id: &Uuid)",
            "users:avatar:{id: Uuid}",
        ),
        ("", "list(skip: u32, limit: u32)", "users:list"),
        ("", "all()", "users:all"),
        ("", "r#type(of: u8)", "users:type"),
        (", op = \"count:by\"", "get(by: u8)", "users:count:by"),
        (", id = user", "get(user: u64)", "users:{user: u64}"),
        (
            ", id = (self.tenant, user)",
            "get(&self, user: u64)",
            "users:{(self.tenant, user)}",
        ),
        (
            ", batch = ids",
            "many(ids: &[i64])",
            "users:{ids: i64}, a batch",
        ),
        (
            ", batch = ids",
            "many(ids: Vec<Id<'a>>)",
            "users:{ids: Id<'a>}, a batch",
        ),
    ] {
        assert_eq!(read(options, signature), expected, "{options} {signature}");
    }
}

#[test]
fn unknown_names_are_in_braces() {
    for (options, expected) in [
        (", op = Self::OP", "users:{Self::OP}:{id: i64}"),
        (
            ", ttl = self.fresh_for",
            "users:{id: i64}, ttl {self.fresh_for}",
        ),
        (
            ", depends(T::RESOURCE)",
            "users:{id: i64}, depends {T::RESOURCE}",
        ),
        (
            ", tags(self.tag(id), \"team:{self.team}:{id}\")",
            "users:{id: i64}, tag {self.tag(id)}, tag team:{self.team}:{id}",
        ),
    ] {
        assert_eq!(read(options, "get(&self, id: i64)"), expected, "{options}");
    }
    let expanded = expand_cached(
        "resource = <T as Entity>::RESOURCE",
        "async fn get(id: i64) -> User { x }",
    );
    assert_eq!(
        description(&expanded),
        "{<T as Entity>::RESOURCE}:{id: i64}"
    );
}

#[test]
fn options_follow_behind_commas_in_one_order() {
    for (options, expected) in [
        ("ttl = 300", "ttl 300"),
        ("ttl = \"1m30s\"", "ttl 90"),
        ("ttl = \"1500ms\"", "ttl 1500ms"),
        ("shared", "keys shared"),
        (
            "tags(\"all\", \"{{x}}\"), depends(\"teams\", \"roles\"), ttl = 5, shared",
            "ttl 5, depends teams, depends roles, tag all, tag {{x}}, keys shared",
        ),
    ] {
        let description = read(&format!(", {options}"), "get(id: i64)");
        assert_eq!(description, format!("users:{{id: i64}}, {expected}"));
    }
    // These are not of what depends on what.
    for silent in [
        "none_ttl = 5",
        "cache_none = false",
        "version = 2",
        "codec = \"json\"",
        "when = id > 0",
        "unless = |u| u.gone",
        "cache = CACHE",
        "crate = my::own",
    ] {
        let description = read(&format!(", {silent}"), "get(id: i64)");
        assert_eq!(description, "users:{id: i64}", "{silent}");
    }
}

#[test]
fn a_write_names_each_of_its_targets() {
    for (options, expected) in [
        ("\"users\"", "users"),
        ("\"users\", id = id", "users:{id: i64}"),
        ("\"users\", id = result.id", "users:{result.id}"),
        (
            "\"users\", id = id, \"teams\", Self::AUDIT, id = (id, name)",
            "users:{id: i64}, teams, {Self::AUDIT}:{(id, name)}",
        ),
        ("tags(\"team:{id}\", name)", "tag team:{id}, tag {name}"),
        ("\"users\", on = ok, tags(\"all\")", "users, tag all"),
        ("\"users\", rejected = |e| e.is_conflict()", "users"),
    ] {
        assert_eq!(write(options, "w(&self, id: i64, name: String)"), expected);
    }
}

#[test]
fn expressions_are_written_as_a_person_writes_them() {
    for (id, expected) in [
        ("key.0", "users:{key.0}"),
        ("&key[1..]", "users:{&key[1..]}"),
        ("key as u64", "users:{key as u64}"),
        (
            "key.map(|k| k.0, \"a, b\")",
            "users:{key.map(|k|k.0, \"a, b\")}",
        ),
        ("Id::<u8>::new(key)", "users:{Id::<u8>::new(key)}"),
        ("format!(\"{key}\")", "users:{format!(\"{key}\")}"),
    ] {
        assert_eq!(read(&format!(", id = {id}"), "get(key: Key)"), expected);
    }
}
