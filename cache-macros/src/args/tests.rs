//! Mistakes that can be seen in one option by itself.

use crate::testing::{assert_mistakes, cached_mistakes, invalidates_mistakes};

const READ: &str = "async fn get(id: i64) -> User { load(id) }";
const WRITE: &str = "async fn update(id: i64) -> User { save(id) }";

/// One wrong option beside a right resource.
#[track_caller]
fn option(option: &str, underlined: &str, message: &str) {
    let found = cached_mistakes(&format!("resource = \"users\", {option}"), READ);
    assert_mistakes(&found, &[(underlined, message)]);
}

#[track_caller]
fn fine(option: &str) {
    assert_mistakes(
        &cached_mistakes(&format!("resource = \"users\", {option}"), READ),
        &[],
    );
}

#[test]
fn unknown_options_are_explained() {
    option(
        "tll = 300",
        "tll",
        "unknown option `tll`; did you mean `ttl`?",
    );
    option(
        "expire = 300",
        "expire",
        "unknown option `expire`; did you mean `ttl`?",
    );
    option(
        "exclude(db)",
        "exclude",
        "unknown option `exclude`; did you mean `skip`?",
    );
    for (given, meant) in [
        ("convert", "key"),
        ("ttl_secs", "ttl"),
        ("unless_null", "cache_none"),
        ("cacheNames", "resource"),
    ] {
        option(
            &format!("{given} = 1"),
            given,
            &format!("unknown option `{given}`; did you mean `{meant}`?"),
        );
    }
    for (given, why) in [
        (
            "sync_writes",
            "one call at a time loads an entry, the others wait for it",
        ),
        (
            "size",
            "the configuration bounds the memory of all entries together, with `CACHE_LOCAL_MB`",
        ),
        ("result", "an `Err` is never kept, and what is in `Ok` is"),
        (
            "option",
            "`None` is kept like a value, for `none_ttl`; with `cache_none = false` it is not",
        ),
        (
            "refresh",
            "a hit does not prolong an entry; `early` loads anew shortly before its time is over, `swr` after it",
        ),
    ] {
        option(
            &format!("{given} = true"),
            given,
            &format!("unknown option `{given}`; {why}"),
        );
    }
    assert_mistakes(
        &invalidates_mistakes("\"users\", key = \"#id\"", WRITE),
        &[("key", "unknown option `key`; did you mean `id`?")],
    );
    option(
        "colour = 1",
        "colour",
        "unknown option `colour`; `#[cached]` takes `resource`, `ttl`, `op`, `id`, `skip`, `autocommit`, \
         `include`, `key`, `none_ttl`, `cache_none`, `version`, `tags`, `depends`, `when`, `unless`, `codec`, `shared`, `strict`, `local`, `local_ttl`, `batch`, `swr`, \
         `stale_if_error`, `timeout`, `early`, `jitter`, `audit`, `context`, `max_loads`, `in_process`, `memo`, `include_context`, `cache`, `crate`",
    );
    option(
        "on = ok",
        "on",
        "`on` is an option of `#[invalidates]`; leave it out of `#[cached]`",
    );
    assert_mistakes(
        &invalidates_mistakes("\"users\", ttl = 5", WRITE),
        &[(
            "ttl",
            "`ttl` is an option of `#[cached]`; leave it out of `#[invalidates]`",
        )],
    );
}

#[test]
fn a_resource_is_there_and_well_formed() {
    let missing = "missing `resource`; name the data, e.g. `resource = \"users\"`";
    assert_eq!(cached_mistakes("ttl = 5", READ)[0].1, missing);
    for (written, example) in [
        ("Users", "users"),
        ("UserAccounts", "user-accounts"),
        ("user accounts", "user-accounts"),
        ("users:list", "users-list"),
        ("", "users"),
        ("größe", "gr-e"),
        ("*", "users"),
    ] {
        assert_mistakes(
            &cached_mistakes(&format!("resource = {written:?}"), READ),
            &[(
                &format!("{written:?}"),
                &format!(
                    "`{written}` is not a resource name; \
                     use lower-case letters, digits, `-` and `_`, e.g. `{example}`"
                ),
            )],
        );
    }
    let shape = "a resource is a string or the path of a constant, \
                 e.g. `\"users\"` or `Self::RESOURCE`";
    for value in ["5", "format!(\"x\")", "name()"] {
        assert_mistakes(
            &cached_mistakes(&format!("resource = {value}"), READ),
            &[(value, shape)],
        );
    }
    for value in [
        "\"users\"",
        "\"a-b_1\"",
        "USERS",
        "Self::RESOURCE",
        "<T as Entity>::RESOURCE",
    ] {
        assert_mistakes(&cached_mistakes(&format!("resource = {value}"), READ), &[]);
    }
}

#[test]
fn an_op_is_well_formed() {
    let letters = "use lower-case letters, digits, `-` and `_`, in parts joined by `:`";
    for (written, example) in [
        ("List", "list"),
        ("filter::paginated", "list"),
        ("filter:Paginated List", "filter:paginated-list"),
        ("", "list"),
    ] {
        option(
            &format!("op = {written:?}"),
            &format!("{written:?}"),
            &format!("`{written}` is not an op; {letters}, e.g. `{example}`"),
        );
    }
    option(
        "op = 5",
        "5",
        "an op is a string or the path of a constant, e.g. `\"list\"`",
    );
    fine("op = \"filter:paginated\"");
    fine("op = Self::OP");
}

#[test]
fn a_ttl_keeps_something() {
    let units = "use whole seconds, or a string such as \"5m\" or \"500ms\"";
    let zero = "is 0, so nothing would be kept; use 1 or more seconds";
    let names = "the units are `ms`, `s`, `m`, `h`, `d`, as in \"5m\" or \"1h30m\"";
    option("ttl = 0", "0", &format!("`ttl` {zero}"));
    option("ttl = \"0s\"", "\"0s\"", &format!("`ttl` {zero}"));
    option(
        "none_ttl = 0",
        "0",
        &format!("`none_ttl` {zero}, or `cache_none = false`"),
    );
    option("ttl = -5", "-5", &format!("`ttl` is negative; {units}"));
    option(
        "ttl = 1.5",
        "1.5",
        &format!("`ttl` is not a whole number; {units}"),
    );
    option(
        "ttl = true",
        "true",
        &format!("`ttl` is not a duration; {units}"),
    );
    option(
        "ttl = 99999999999999999999",
        "99999999999999999999",
        &format!("`ttl` is more than a 64-bit number holds; {units}"),
    );
    option(
        "ttl = \"300\"",
        "\"300\"",
        "\"300\" has no unit; write `300` for seconds, or \"300s\"",
    );
    for text in ["5 minutes", "5min", "m", "-5m", "1h30", "", "5µs"] {
        option(
            &format!("ttl = {text:?}"),
            &format!("{text:?}"),
            &format!("\"{text}\" is not a duration; {names}"),
        );
    }
    let long = "\"99999999999999999d\"";
    option(
        &format!("ttl = {long}"),
        long,
        &format!("{long} is longer than can be counted; use less"),
    );
    for value in [
        "300",
        "300u32",
        "\"90s\"",
        "\"1h30m\"",
        "\"500ms\"",
        "\"1d\"",
        "self.ttl",
        "TTL",
    ] {
        fine(&format!("ttl = {value}"));
    }
}

#[test]
fn options_take_their_kind_of_value() {
    option("skip = id", "id", "`skip` takes a list; write `skip(id)`");
    option(
        "key = (a, b)",
        "(a, b)",
        "`key` takes a list; write `key(a, b)`",
    );
    for (option_given, message) in [
        ("key = \"id\"", "`key` takes a list; write `key(id)`"),
        ("key = \"#id\"", "`key` takes a list; write `key(id)`"),
        (
            "key = \"#{#user.id}\"",
            "`key` takes a list; write `key(user.id)`",
        ),
        ("key = (\"#a\", b)", "`key` takes a list; write `key(a, b)`"),
        (
            "key = \"String\"",
            "`key` takes a list of expressions, e.g. `key(id)`",
        ),
        (
            "key = 1",
            "`key` takes a list of expressions, e.g. `key(id)`",
        ),
        ("skip = \"db\"", "`skip` takes a list; write `skip(db)`"),
        (
            "skip = \"a, b\"",
            "`skip` takes a list of parameters, e.g. `skip(db)`",
        ),
        (
            "tags = \"t:{id}\"",
            "`tags` takes a list; write `tags(\"t:{id}\")`",
        ),
        (
            "depends = [\"a\", B]",
            "`depends` takes a list; write `depends(\"a\", B)`",
        ),
    ] {
        let (_, value) = option_given.split_once(" = ").expect("a value");
        option(option_given, value, message);
    }
    option(
        "tags(\"t:{id:02}\")",
        "\"t:{id:02}\"",
        "a tag takes no format such as that in `{id:02}`; write `{id}`, or an expression that makes the text",
    );
    option(
        "cache = \"CACHE\"",
        "\"CACHE\"",
        "`cache` is an expression without quotes; write `cache = CACHE`",
    );
    option(
        "cache = true",
        "true",
        "`cache` is a `Cache`, e.g. `cache = self.cache`",
    );
    option(
        "ttl(300)",
        "(300)",
        "`ttl` takes one value; write `ttl = ..`",
    );
    option("ttl", "ttl", "`ttl` has no value; write `ttl = ..`");
    option(
        "ttl =",
        "ttl",
        "`ttl` has no value; write one after the `=`",
    );
    option(
        "skip()",
        "skip",
        "`skip` is empty; name something in it or remove it",
    );
    option(
        "skip(&id)",
        "&id",
        "`skip` takes names of parameters, e.g. `skip(db)`",
    );
    option("cache_none = 1", "1", "`cache_none` is `true` or `false`");
    let version = "`version` is a whole number; \
                   count it up when the stored form changes, e.g. `version = 2`";
    option("version = \"2\"", "\"2\"", version);
    option("version = 5000000000", "5000000000", version);
    option(
        "crate = \"my::cache\"",
        "\"my::cache\"",
        "`crate` is a path without quotes; write `crate = my::cache`",
    );
    option(
        "crate = 5",
        "5",
        "`crate` is a path, e.g. `crate = my_crate::cache_runtime`",
    );
}

#[test]
fn an_option_is_given_once() {
    option(
        "ttl = 5, ttl = 6",
        "ttl",
        "`ttl` is given twice; keep one of them",
    );
    let found = cached_mistakes("resource = \"a\", resource = \"b\"", READ);
    assert_mistakes(
        &found,
        &[("resource", "`resource` is given twice; keep one of them")],
    );
}

#[test]
fn reading_goes_on_behind_a_mistake() {
    assert_mistakes(
        &cached_mistakes(
            "resource = \"Users\" ttl = 0, = 7, op = , tll = 5 6, key(a b)",
            READ,
        ),
        &[
            (
                "\"Users\"",
                "`Users` is not a resource name; \
                 use lower-case letters, digits, `-` and `_`, e.g. `users`",
            ),
            ("ttl", "expected `,` between two options"),
            (
                "0",
                "`ttl` is 0, so nothing would be kept; use 1 or more seconds",
            ),
            ("=", "expected an option, e.g. `ttl = 300`"),
            ("op", "`op` has no value; write one after the `=`"),
            ("tll", "unknown option `tll`; did you mean `ttl`?"),
            ("6", "expected `,` between two options"),
            ("b", "expected `,`"),
        ],
    );
}

#[test]
fn values_without_a_name_get_one() {
    assert_mistakes(
        &cached_mistakes("\"users\", 300", READ),
        &[
            (
                "\"users\"",
                "this value has no name; write `resource = \"users\"`",
            ),
            ("300", "this value has no name; write `option = value`"),
        ],
    );
}
