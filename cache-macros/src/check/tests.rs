//! Mistakes that take an option and another, or an option and the signature.

mod keys;
mod transactions;

use crate::testing::{assert_mistakes, cached_mistakes, invalidates_mistakes};

const USERS: &str = "resource = \"users\"";

#[track_caller]
fn cached(options: &str, item: &str, mistakes: &[(&str, &str)]) {
    assert_mistakes(
        &cached_mistakes(&format!("{USERS}, {options}"), item),
        mistakes,
    );
}

#[track_caller]
fn signature(item: &str, mistakes: &[(&str, &str)]) {
    cached("", item, mistakes);
}

#[test]
fn all_mistakes_of_a_function_are_found_together() {
    let item = "fn find(&self, db: &Db, id: i64) { load(db, id) }";
    let found = cached_mistakes("tll = 5, skip(dbb), cache_none = false, none_ttl = 5", item);
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    // Two of them come from the function, whose lines and columns start anew.
    let mut expected = [
        "unknown option `tll`; did you mean `ttl`?",
        "missing `resource`; name the data, e.g. `resource = \"users\"`",
        "`skip(dbb)` matches no parameter; did you mean `db`? this function has `db`, `id`",
        "`none_ttl` can't be combined with `cache_none = false`, which keeps no `None`; \
         remove one of them",
        "the function returns nothing, so there is nothing to cache; \
         give it a return type or remove `#[cached]`",
    ];
    let mut messages = messages;
    messages.sort_unstable();
    expected.sort_unstable();
    assert_eq!(messages, expected);
}

#[test]
fn the_function_is_async_and_returns_something() {
    signature("pub fn get(id: i64) -> User { load(id) }", &[]);
    signature(
        "async fn get(id: i64) { load(id); }",
        &[(
            "get",
            "the function returns nothing, so there is nothing to cache; \
             give it a return type or remove `#[cached]`",
        )],
    );
    signature(
        "async fn get(id: i64) -> Result<impl Serialize, E> { load(id) }",
        &[(
            "impl",
            "`#[cached]` needs a return type with a name; write the type in place of `impl ..`",
        )],
    );
    signature(
        "async fn get(id: i64) -> ! { loop {} }",
        &[(
            "!",
            "the function never returns, so `#[cached]` has nothing to do; remove it",
        )],
    );
    let optional = "a `Result` in an `Option` is the wrong way round; \
                    return `Result<Option<T>, E>`";
    signature(
        "async fn get(id: i64) -> Option<io::Result<User>> { x }",
        &[("io::Result<User>", optional)],
    );
    let borrowed = "a borrowed value can't be kept; \
                    return an owned one, e.g. `String` in place of `&str`";
    for (ty, underlined) in [
        ("&str", "&str"),
        ("Option<&'static User>", "&'static User"),
        ("io::Result<Option<&User>, E>", "&User"),
        ("Vec<(i64, &'a str)>", "&'a str"),
        ("HashMap<&str, User>", "&str"),
    ] {
        signature(
            &format!("async fn get(id: i64) -> {ty} {{ x }}"),
            &[(underlined, borrowed)],
        );
    }
    signature(
        "async fn get(id: i64) -> Result<User, &'static str> { x }",
        &[],
    );
    signature("async fn get(id: i64) -> () { load(id) }", &[]);
    signature(
        "pub async unsafe extern \"C\" fn get(id: i64) -> User { load(id) }",
        &[],
    );
    assert_mistakes(
        &invalidates_mistakes("\"users\"", "fn wipe() {}"),
        &[(
            "fn",
            "`#[invalidates]` needs an `async fn`; add `async` before `fn`",
        )],
    );
    assert_mistakes(
        &invalidates_mistakes("\"users\"", "async fn wipe() {}"),
        &[],
    );
}

#[test]
fn the_attribute_is_on_a_function_with_a_body() {
    for item in ["struct User { id: i64 }", "use a::b;"] {
        let found = cached_mistakes(USERS, item);
        assert_eq!(found.len(), 1, "{item}");
        assert_eq!(
            found[0].1, "this attribute goes on a function or a method",
            "{item}"
        );
    }
    let found = cached_mistakes(USERS, "impl User { fn get() {} }");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].1,
        "this attribute goes on the methods of an `impl` block; what they have in common can stand \
         in a `#[cache_defaults(..)]` on the block"
    );
    signature(
        "async fn get(id: i64) -> User;",
        &[(
            "get",
            "`get` has no body here; put the attribute on the method in the `impl` block",
        )],
    );
}

#[test]
fn an_id_to_invalidate_is_one_row() {
    let item = "async fn w(&self, id: i64, ids: Vec<i64>, some: &[i64], few: [Id; 2], set: Option<Arc<BTreeSet<Id>>>, raw: Vec<u8>, uuid: [u8; 16]) -> Result<Vec<User>, E> { x }";
    for (id, name) in [
        ("ids", "ids"),
        ("&ids", "ids"),
        ("ids.clone()", "ids"),
        ("some", "some"),
        ("some.to_vec()", "some"),
        ("few", "few"),
        ("set", "set"),
        ("result", "result"),
    ] {
        let message = format!("`id` is one row, and `{name}` holds many; write `ids = {name}`");
        let found = invalidates_mistakes(&format!("\"users\", id = {id}"), item);
        assert_mistakes(&found, &[(id, &message)]);
    }
    for (id, fix) in [
        ("\"id\"", "id"),
        ("\"#id\"", "id"),
        ("\"#result.id\"", "result.id"),
        ("\"{id}\"", "id"),
    ] {
        let message = format!("`{id}` is the same for every call; write `id = {fix}`");
        let found = invalidates_mistakes(&format!("\"users\", id = {id}"), item);
        assert_mistakes(&found, &[(id, &message)]);
    }
    for id in [
        "raw",
        "uuid",
        "ids.len()",
        "ids[0]",
        "ids.as_slice()",
        "1",
        "\"main\"",
        "result.id",
    ] {
        assert_mistakes(
            &invalidates_mistakes(&format!("\"users\", id = {id}"), item),
            &[],
        );
    }
}

#[test]
fn errors_are_told_apart_where_there_are_some() {
    let none = "`rejected` tells errors apart, and this function returns none; return a `Result`, or remove it";
    for (returns, fails) in [
        ("", false),
        ("-> ()", false),
        ("-> bool", false),
        ("-> Option<Result<User, E>>", false),
        ("-> &User", false),
        ("-> Result<User, E>", true),
        ("-> io::Result<()>", true),
        ("-> Saved", true),
        ("-> Self::Saved", true),
    ] {
        let item = format!("async fn w(id: i64) {returns} {{ x }}");
        let found = invalidates_mistakes("\"users\", rejected = |e| e.is_refused()", &item);
        let expected = [("rejected", none)];
        assert_mistakes(&found, if fails { &[] } else { &expected });
    }
}

#[test]
fn one_function_reads_or_writes() {
    let message = "`#[invalidates]` makes stale what `#[cached]` keeps of `users`, \
                   so no call would be a hit; make two functions, one that reads and one that writes";
    let get = "async fn get(id: i64) -> User { x }";
    for (other, path) in [
        ("#[invalidates(\"users\")]", "invalidates"),
        (
            "#[cache_runtime::invalidates(\"a\", \"users\", id = id)]",
            "cache_runtime::invalidates",
        ),
    ] {
        signature(&format!("{other} {get}"), &[(path, message)]);
        let item = format!("#[doc = \"\"] {other} {get}");
        let found = cached_mistakes("resource = \"b\", depends(\"users\")", &item);
        assert_mistakes(&found, &[(path, message)]);
        assert_mistakes(&cached_mistakes("resource = \"b\"", &item), &[]);
    }
    let below = format!("#[cached(resource = \"users\", ttl = 5)] {get}");
    assert_mistakes(
        &invalidates_mistakes("\"users\"", &below),
        &[("cached", message)],
    );
    assert_mistakes(&invalidates_mistakes("\"teams\"", &below), &[]);
    assert_mistakes(
        &cached_mistakes(
            "resource = Self::USERS",
            &format!("#[invalidates(Self::USERS)] {get}"),
        ),
        &[("invalidates", &message.replace("users", "Self::USERS"))],
    );
    let twice = format!("#[cached(resource = \"users\", op = \"other\")] {get}");
    signature(&twice, &[]);
}

#[test]
fn options_that_exclude_each_other_are_told_apart() {
    let item = "async fn list(&self, db: &Db, skip: u32) -> Vec<User> { vec![] }";
    let key =
        "can't be combined with `key`, which lists all that is in the key; remove one of them";
    cached(
        "key(skip), skip(db), include(self.tenant)",
        item,
        &[
            ("skip", &format!("`skip` {key}")),
            ("include", &format!("`include` {key}")),
        ],
    );
    cached(
        "key(skip), id = db.id(skip)",
        item,
        &[("id", &format!("`id` {key}"))],
    );
    cached(
        "id = db.id(skip), include(self.tenant)",
        item,
        &[(
            "include",
            "`include` can't be combined with `id`; \
             put its values into `id`, e.g. `id = (self.tenant, id)`",
        )],
    );
    cached(
        "none_ttl = 5, cache_none = false",
        item,
        &[(
            "none_ttl",
            "`none_ttl` can't be combined with `cache_none = false`, which keeps no `None`; \
             remove one of them",
        )],
    );
    cached("none_ttl = 5, cache_none = true", item, &[]);
    assert_mistakes(
        &invalidates_mistakes(
            "\"users\", on = ok, rejected = |e| e.is_refused()",
            "async fn w() {}",
        ),
        &[(
            "rejected",
            "`rejected` can't be combined with `on = ok`, \
             which takes every error for a write that did not happen; remove one of them",
        )],
    );
}

#[test]
fn a_write_names_what_becomes_stale() {
    let item = "async fn update(&self, id: i64, new: User) -> Result<User, E> { save(id, new) }";
    let missing = "missing a resource; name what becomes stale, e.g. `#[invalidates(\"users\")]`";
    assert_eq!(invalidates_mistakes("", item)[0].1, missing);
    for (args, mistakes) in [
        ("on = ok", &[("", missing)][..]),
        (
            "users",
            &[(
                "users",
                "a resource is a string or the path of a constant; write `\"users\"`",
            )],
        ),
        (
            "\"users\", crashsafe",
            &[(
                "crashsafe",
                "unknown option `crashsafe`; did you mean `crash_safe`?",
            )],
        ),
        (
            "\"users\", aftercommit, reqired",
            &[
                (
                    "aftercommit",
                    "unknown option `aftercommit`; did you mean `after_commit`?",
                ),
                (
                    "reqired",
                    "unknown option `reqired`; did you mean `required`?",
                ),
            ],
        ),
        (
            "resource = \"users\"",
            &[(
                "resource",
                "`resource` is not written here; write e.g. `#[invalidates(\"users\")]`",
            )],
        ),
        (
            "id = id, \"users\"",
            &[(
                "id",
                "`id` comes after its resource; write e.g. `\"users\", id = id`",
            )],
        ),
        (
            "\"users\", id = idd",
            &[(
                "idd",
                "`id = idd` matches no parameter; did you mean `id`? this function has `id`, `new`",
            )],
        ),
        (
            "\"users\", on = error",
            &[(
                "error",
                "`on` is `ok` or left out; without it an error invalidates, too",
            )],
        ),
        (
            "\"users\", \"teams\", \"users\"",
            &[(
                "\"users\"",
                "`users` is named twice, and once as a whole; keep that one",
            )],
        ),
        (
            "\"users\", \"users\", id = id",
            &[(
                "\"users\"",
                "`users` is named twice, and once as a whole; keep that one",
            )],
        ),
        ("\"users\", id = id, \"users\", id = new.id", &[]),
        ("USERS, Self::RESOURCE, \"teams\", id = result.team", &[]),
    ] {
        let found = invalidates_mistakes(args, item);
        if mistakes.first().is_some_and(|(at, _)| at.is_empty()) {
            assert_eq!(found[0].1, mistakes[0].1, "{args}");
        } else {
            assert_mistakes(&found, mistakes);
        }
    }
    assert_mistakes(
        &invalidates_mistakes(
            "\"users\", id = result.id",
            "async fn w(result: R) -> R { result }",
        ),
        &[(
            "result",
            "`result` is what the function returned, and a parameter is named so, too; \
             rename the parameter",
        )],
    );
}

#[test]
fn values_that_may_borrow_are_not_returned() {
    let message = "a value that may borrow can't be kept; \
                   return an owned one, e.g. `String` or `Cow<'static, str>`";
    for (ty, underlined) in [
        ("Cow<'a, str>", "Cow<'a, str>"),
        ("Cow<str>", "Cow<str>"),
        ("Option<Cow<'_, [User]>>", "Cow<'_, [User]>"),
        ("Result<Page<'_>, E>", "Page<'_>"),
        ("Vec<Arc<View<'a>>>", "View<'a>"),
    ] {
        signature(
            &format!("async fn get(id: i64) -> {ty} {{ x }}"),
            &[(underlined, message)],
        );
    }
    for ty in [
        "Cow<'static, str>",
        "Result<User, Failure<'_>>",
        "Result<Vec<Cow<'static, str>>, &'a str>",
    ] {
        signature(&format!("async fn get(id: i64) -> {ty} {{ x }}"), &[]);
    }
}

#[test]
fn functions_that_wait_for_redis_are_async() {
    let item = "fn get(id: i64) -> User { load(id) }";
    for (options, word, message) in [
        (
            "strict",
            "strict",
            "`strict` asks Redis each time, and a function without `async` never waits for Redis; make it an `async fn`, or leave `strict` out",
        ),
        (
            "local = false",
            "local",
            "`local = false` keeps values in Redis alone, and a function without `async` never waits for Redis; make it an `async fn`, or leave it out",
        ),
    ] {
        assert_mistakes(
            &cached_mistakes(&format!("resource = \"users\", {options}"), item),
            &[(word, message)],
        );
    }
}

#[test]
fn a_function_that_asks_each_time_remembers_nothing() {
    let item = "async fn get(id: i64) -> User { load(id) }";
    assert_mistakes(
        &cached_mistakes("resource = \"users\", strict, memo", item),
        &[(
            "memo",
            "`memo` can't be combined with `strict`, which asks the store on each call; remove one of them",
        )],
    );
}

#[test]
fn a_request_remembers_nothing_of_a_batch() {
    let item = "async fn get(ids: &[i64]) -> HashMap<i64, User> { load(ids) }";
    cached(
        "batch = ids, memo",
        item,
        &[(
            "memo",
            "`memo` can't be combined with `batch`, of which a request remembers nothing; remove it",
        )],
    );
}

#[test]
fn the_load_context_hides_no_parameter() {
    let item = "async fn get(&self, id: i64) -> User { load(id) }";
    for name in ["id", "self"] {
        let message = format!(
            "`{name}` is a name of the function's own; call the context otherwise, e.g. `context = load`"
        );
        cached(&format!("context = {name}"), item, &[(name, &message)]);
    }
}

#[test]
fn without_errors_there_are_none_to_leave_out() {
    let message = "`on = ok` leaves errors out, and this function returns none; return a `Result`, or remove it";
    let on_ok = |item: &str, mistakes: &[(&str, &str)]| {
        assert_mistakes(&invalidates_mistakes("\"users\", on = ok", item), mistakes);
    };
    for output in ["", "-> u64", "-> Option<User>"] {
        let item = format!("async fn set(id: u64) {output} {{ write(id) }}");
        on_ok(&item, &[("on", message)]);
    }
    for output in ["Result<(), E>", "Fallible", "Arc<Result<User, E>>"] {
        let item = format!("async fn set(id: u64) -> {output} {{ write(id) }}");
        on_ok(&item, &[]);
    }
}

#[test]
fn a_name_without_its_quotes_is_given_them() {
    let item = "async fn list() -> Vec<User> { load() }";
    cached(
        "op = list, depends(teams)",
        item,
        &[
            (
                "list",
                "an op is a string or the path of a constant; write `\"list\"`",
            ),
            (
                "teams",
                "a resource is a string or the path of a constant; write `\"teams\"`",
            ),
        ],
    );
    cached("op = LIST, depends(TEAMS, Self::OTHERS)", item, &[]);
}

#[test]
fn in_process_functions_have_no_options_of_redis() {
    let item = "async fn get(id: i64) -> User { load(id) }";
    assert_mistakes(
        &cached_mistakes("resource = \"users\", in_process, strict, swr = 5", item),
        &[
            (
                "strict",
                "`strict` can't be combined with `in_process`, which keeps nothing in Redis; remove one of them",
            ),
            (
                "swr",
                "`swr` can't be combined with `in_process`, which keeps no expired entries; remove one of them",
            ),
        ],
    );
    assert_mistakes(
        &cached_mistakes("resource = \"users\", max_loads = 0", item),
        &[(
            "0",
            "`max_loads` is a whole number above 0, e.g. `max_loads = 32`",
        )],
    );
    assert_mistakes(
        &cached_mistakes("resource = \"users\", include_context(\"tenant\")", item),
        &[(
            "include_context",
            "`include_context` can't be used for single rows: `#[invalidates]` has to build the same key; declare it for the resource, with `CacheConfig::resource`, or give the function an `op`",
        )],
    );
}

#[test]
fn self_in_a_text_is_not_taken_along() {
    let mistake = "with `swr` the load may outlive its caller, and `self` inside a text can't be replaced by what it keeps; \
                   pass it behind the text, as in `\"{}\", self`";
    let item = |body: &str| format!("async fn get(&self, id: i64) -> String {{ {body} }}");
    for body in ["format!(\"{self:?}\")", "if x { log(format!(\"{self}\")) }"] {
        let found = cached_mistakes(&format!("{USERS}, swr"), &item(body));
        assert!(
            matches!(&found[..], [(_, message)] if message == mistake),
            "{found:?}"
        );
        assert_mistakes(&cached_mistakes(USERS, &item(body)), &[]);
    }
    let own = "impl fmt::Display for X { fn fmt(&self) { write!(\"{self:?}\") } } self.load(id)";
    cached("swr", &item(own), &[]);
    let owned = "async fn get(self: Arc<Self>, id: i64) -> String { format!(\"{self:?}\") }";
    cached("swr", owned, &[]);
}
