//! Mistakes about keys: their ids, names and parameters.

use super::*;

#[test]
fn names_are_those_of_parameters() {
    let item = "async fn list(&self, db: &Db, skip: u32, limit: u32) -> Vec<User> { vec![] }";
    cached(
        "skip(dbb)",
        item,
        &[(
            "dbb",
            "`skip(dbb)` matches no parameter; did you mean `db`? \
             this function has `db`, `skip`, `limit`",
        )],
    );
    cached(
        "skip(db, db)",
        item,
        &[("db", "`db` is skipped twice; remove one")],
    );
    cached(
        "skip(self)",
        item,
        &[(
            "self",
            "`self` is never in the key; remove it here, \
             and add what tells owners apart with e.g. `include(self.tenant)`",
        )],
    );
    cached(
        "key(tenant)",
        item,
        &[(
            "tenant",
            "`key(tenant)` matches no parameter; this function has `db`, `skip`, `limit`",
        )],
    );
    cached(
        "include(limit)",
        item,
        &[(
            "limit",
            "`limit` is in the key already; remove it from `include`",
        )],
    );
    cached(
        "include(self)",
        item,
        &[(
            "self",
            "all of `self` can't be in a key; \
             name what tells owners apart, e.g. `include(self.tenant)`",
        )],
    );
    cached(
        "id = idd",
        "async fn get(id: i64) -> User { load(id) }",
        &[(
            "idd",
            "`id = idd` matches no parameter; this function has `id`",
        )],
    );
    cached(
        "skip(db)",
        "async fn all() -> Vec<User> { vec![] }",
        &[(
            "db",
            "`skip(db)` matches no parameter; this function has none",
        )],
    );
    cached(
        "skip(db), include(limit, self.tenant, TENANT)",
        item,
        &[(
            "limit",
            "`limit` is in the key already; remove it from `include`",
        )],
    );
    cached("key(skip, limit.max(5), TENANT)", item, &[]);
}

#[test]
fn values_in_keys_differ_from_call_to_call() {
    let item = "async fn list(&self, id: i64, user: User) -> Vec<User> { vec![] }";
    for (given, value, fix) in [
        ("key(\"#id\")", "\"#id\"", "write `key(id)`"),
        ("key(\"id\")", "\"id\"", "write `key(id)`"),
        (
            "key(\"{user.id}\")",
            "\"{user.id}\"",
            "write `key(user.id)`",
        ),
        (
            "key(\"self.tenant\")",
            "\"self.tenant\"",
            "write `key(self.tenant)`",
        ),
        (
            "key(\"user-{id}\")",
            "\"user-{id}\"",
            "write `key(format!(\"user-{id}\"))`",
        ),
        (
            "key(\"all\")",
            "\"all\"",
            "name what tells calls apart, e.g. `key(id)`",
        ),
        ("key(1)", "1", "name what tells calls apart, e.g. `key(id)`"),
        (
            "include(\"tenant\")",
            "\"tenant\"",
            "name what tells calls apart, e.g. `include(self.tenant)`",
        ),
        ("id = \"{id}\", skip(user)", "\"{id}\"", "write `id = id`"),
        ("id = \"#id\"", "\"#id\"", "write `id = id`"),
        (
            "id = (self.tenant, \"#id\"), skip(user)",
            "\"#id\"",
            "write `id`",
        ),
    ] {
        let message = format!("`{value}` is the same for every call; {fix}");
        cached(given, item, &[(value, &message)]);
    }
    // Also behind what leaves it what it is.
    for value in ["-1", "(1)", "&1", "1 as u8", "1.clone()", "-&(1)"] {
        let message = "`1` is the same for every call; name what tells calls apart, e.g. `key(id)`";
        cached(&format!("key({value})"), item, &[(value, message)]);
    }
    for fine in [
        "key(id, KIND)",
        "key(id + 1)",
        "key(tenant(\"header\"))",
        "key((\"a\", id))",
        "key(format!(\"{id}\"))",
        "id = (1, id), skip(user)",
        "id = \"main\", skip(id, user)",
        "id = \"self\", skip(id, user)",
        "id = 1, skip(id, user)",
    ] {
        cached(fine, item, &[]);
    }
}

#[test]
fn an_id_says_all_that_is_in_the_key() {
    let item = "async fn get(&self, id: i64, deleted: bool) -> User { load(id, deleted) }";
    cached(
        "id = id",
        item,
        &[(
            "deleted",
            "`deleted` is not in the key; add it to `id`, leave it out with `skip(deleted)`, \
             or give the function an `op` in place of `id`",
        )],
    );
    cached(
        "op = \"x\", id = self.deleted(id)",
        item,
        &[(
            "deleted",
            "`deleted` is not in the key; add it to `id`, leave it out with `skip(deleted)`, \
             or remove `id`",
        )],
    );
    for id in [
        "(id, deleted)",
        "f(id)(deleted)",
        "format!(\"{id}-{deleted:?}\")",
        "[id; deleted]",
    ] {
        cached(&format!("id = {id}"), item, &[]);
    }
    for id in [
        "(id, self.deleted)",
        "(id, deleted::X)",
        "(id, x::deleted)",
        "(id, F { deleted: 1 })",
    ] {
        let found = cached_mistakes(&format!("{USERS}, id = {id}"), item);
        assert_eq!(found.len(), 1, "{id}: {found:?}");
    }
    cached("id = id, skip(deleted)", item, &[]);
    cached("op = \"x\", id = (0..deleted, id)", item, &[]);
}

#[test]
fn a_functions_name_has_to_fit_only_where_it_is_used() {
    let camel = "`getAll` can't stand in a key; name the operation, e.g. `op = \"get-all\"`";
    signature(
        "async fn getAll() -> Vec<User> { vec![] }",
        &[("getAll", camel)],
    );
    signature("async fn getOne(id: i64) -> User { load(id) }", &[]);
    signature("async fn r#type(a: i64) -> User { load(a) }", &[]);
    cached(
        "op = \"all\"",
        "async fn getAll() -> Vec<User> { vec![] }",
        &[],
    );
}

#[test]
fn patterns_bind_parameters() {
    let item = "async fn get(Path(id): Path<i64>, (a, _): (u8, u8)) -> User { load(id) }";
    cached("skip(a)", item, &[]);
    cached(
        "skip(b)",
        item,
        &[(
            "b",
            "`skip(b)` matches no parameter; this function has `id`, `a`",
        )],
    );
    signature(
        "async fn get(my!(id): i64) -> User { load(id) }",
        &[(
            "my!(id)",
            "`#[cached]` can't see which names this pattern binds; \
             bind one name and take it apart in the body",
        )],
    );
}

#[test]
fn a_parameter_in_the_key_is_there_in_each_build() {
    let message = "a parameter under `#[cfg]` can't be in the key, which must be the same in all builds; \
                   leave it out with `skip`, or write one function for each case";
    let item = "async fn get(id: i64, #[cfg(unix)] mode: u32) -> User { load(id) }";
    signature(item, &[("#[cfg(unix)]", message)]);
    cached("key(id, mode)", item, &[("#[cfg(unix)]", message)]);
    cached("skip(mode)", item, &[]);
    cached("id = id, op = \"row\", skip(mode)", item, &[]);
    cached("key(id)", item, &[]);
}

#[test]
fn rows_ops_and_dependencies_are_said_in_one_way() {
    let write = "async fn write(id: i64, ids: &[i64]) {}";
    assert_mistakes(
        &invalidates_mistakes("\"users\", id = id, ids = ids", write),
        &[(
            "ids",
            "`ids` can't be combined with `id`, which is one of them; remove one of the two",
        )],
    );
    assert_mistakes(
        &invalidates_mistakes("\"users\", ids = idz", write),
        &[(
            "idz",
            "`ids = idz` matches no parameter; did you mean `id`? this function has `id`, `ids`",
        )],
    );
    assert_mistakes(
        &invalidates_mistakes("ops(\"list\")", write),
        &[
            (
                "ops",
                "`ops` comes after its resource; write e.g. `\"users\", ops(\"list\")`",
            ),
            (
                "",
                "missing a resource; name what becomes stale, e.g. `#[invalidates(\"users\")]`",
            ),
        ],
    );
    assert_mistakes(
        &invalidates_mistakes("\"users\", ops(\"List\")", write),
        &[(
            "\"List\"",
            "`List` is not an op; use lower-case letters, digits, `-` and `_`, in parts joined by `:`, e.g. `list`",
        )],
    );
    assert_mistakes(
        &cached_mistakes(
            "resource = \"users\", depends(id = id)",
            "async fn get(id: i64) -> User { x }",
        ),
        &[(
            "id",
            "an `id` comes after its resource, once; write e.g. `depends(\"authors\", id = author_id)`",
        )],
    );
    assert_mistakes(
        &cached_mistakes(
            "resource = \"users\", depends(\"teams\", id = team)",
            "async fn get(id: i64) -> User { x }",
        ),
        &[(
            "team",
            "`id = team` matches no parameter; this function has `id`",
        )],
    );
}
