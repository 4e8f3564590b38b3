//! What comes out, from signature to policy. Whole functions are in the snapshots of the `tests` crate.

use crate::testing::{cached, invalidates};

/// The plan of a read: everything behind `__cache_plan`.
fn plan(options: &str, item: &str) -> String {
    let expanded = squeezed(&cached(&format!("resource = \"users\"{options}"), item));
    let plan = expanded
        .split("|__cache_plan|")
        .nth(1)
        .expect("an expansion has a plan");
    let plan = plan.split(", ) ;").next().unwrap_or(plan);
    plan.trim()
        .trim_matches(['{', '}', ' '])
        .replace(' ', "")
        .replace("__cache_plan.resource(\"users\")", "")
}

/// Without the line breaks and the commas before them, which depend on widths.
fn squeezed(code: &str) -> String {
    let words: Vec<&str> = code.split_whitespace().collect();
    words.join(" ").replace(");", ") ;").replace(",)", ", )")
}

#[test]
fn a_cached_function_is_the_one_in_the_design() {
    let expanded = cached(
        "resource = \"users\", ttl = 300",
        "/// Finds a user.
        #[must_use]
        pub(crate) async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
            self.db.find(id).await?
        }",
    );
    assert_eq!(
        expanded,
        r#"/// Finds a user.
#[must_use]
pub(crate) async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
        ::core::module_path!(),
        "get",
    );
    let __cache_kind = ::cache_runtime::__private::Shape::<
        Result<Option<User>, DbError>,
    >::OF
        .kind();
    let __cache_read = ::cache_runtime::__private::Read::new(
        &__CACHE_SITE,
        ::cache_runtime::__private::global(),
        __cache_kind,
        |__cache_plan| __cache_plan.resource("users").id(&id).ttl(300u64),
    );
    __cache_read
        .run(async move || {
            if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                .unreached()
            {
                return __cache_returned;
            }
            self.db.find(id).await?
        })
        .await
}
"#
    );
}

#[test]
fn an_invalidating_function_is_the_one_in_the_design() {
    let expanded = invalidates(
        "\"users\", id = result.id, \"teams\", rejected = |e| matches!(e, DbError::Conflict)",
        "async fn create(&self, new: NewUser) -> Result<User, DbError> { insert(new).await }",
    );
    assert_eq!(
        expanded,
        r#"async fn create(&self, new: NewUser) -> Result<User, DbError> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
        ::core::module_path!(),
        "create",
    );
    let __cache_kind = ::cache_runtime::__private::Shape::<Result<User, DbError>>::OF
        .kind();
    let __cache_write = ::cache_runtime::__private::Write::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::global(),
            __cache_kind,
            |__cache_plan| __cache_plan.resource("users").resource("teams"),
        )
        .rejected(|e| matches!(e, DbError::Conflict))
        .result(move |__cache_plan, result| {
            __cache_plan.resource("users").id(&result.id).resource("teams")
        });
    __cache_write
        .run(async move || {
            if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                .unreached()
            {
                return __cache_returned;
            }
            insert(new).await
        })
        .await
}
"#
    );
}

#[test]
fn the_signature_decides_which_key_it_is() {
    for (options, signature, expected) in [
        ("", "get(id: i64)", ".id(&id)"),
        ("", "get(&self, r#id: &str)", ".id(&r#id)"),
        ("", "get(Path(id): Path<i64>)", ".id(&id)"),
        ("", "get(id: i64, _: bool)", ".id(&id)"),
        ("", "get(mut id: impl Into<i64>)", ".id(&id)"),
        ("", "get<T: Entity>(id: i64)", ".id(&id)"),
        (", skip(db)", "get(db: &Db, id: i64)", ".id(&id)"),
        (", key(id)", "get(db: &Db, id: i64)", ".id(&id)"),
        (
            ", id = (self.tenant, id)",
            "get(&self, id: i64)",
            ".id(&(&self.tenant,&id))",
        ),
        (", id = a + b", "get(a: i64, b: i64)", ".id(&(a+b))"),
        (", id = user.id", "get(user: &User)", ".id(&user.id)"),
        (
            ", op = \"avatar\"",
            "get(id: i64)",
            ".op(\"avatar\").id(&id)",
        ),
        (
            ", op = OP, id = user.id",
            "get(user: User)",
            ".op(OP).id(&user.id)",
        ),
        ("", "all()", ".op(\"all\")"),
        ("", "r#type()", ".op(\"type\")"),
        (
            "",
            "list(skip: u32, limit: u32)",
            ".op(\"list\").arg(&skip).arg(&limit)",
        ),
        (
            "",
            "list((a, mut b): (u8, u8), P { c, d: [e, ..] }: P)",
            ".op(\"list\").arg(&a).arg(&b).arg(&c).arg(&e)",
        ),
        (
            "",
            "list(all @ (a, _): (u8, u8))",
            ".op(\"list\").arg(&all).arg(&a)",
        ),
        (
            "",
            "list((Ok(x) | Err(x)): Result<u8, u8>)",
            ".op(\"list\").arg(&x)",
        ),
        (
            ", op = \"by:name\"",
            "find(name: &str)",
            ".op(\"by:name\").arg(&name)",
        ),
        (
            ", include(self.tenant)",
            "find(&self, id: i64)",
            ".op(\"find\").arg(&id).arg(&self.tenant)",
        ),
        (
            ", key(a.len(), TENANT)",
            "find(a: &str, b: u8)",
            ".op(\"find\").arg(&a.len()).arg(&TENANT)",
        ),
        (
            "",
            "find<'a, T, U, const N: usize>(a: &'a T)",
            ".op(\"find\").type_param::<T>().type_param::<U>().arg(&N).arg(&a)",
        ),
        (
            "",
            "find<const N: usize>(id: i64)",
            ".op(\"find\").arg(&N).arg(&id)",
        ),
        (", skip(N)", "find<const N: usize>(id: i64)", ".id(&id)"),
    ] {
        let item = format!("async fn {signature} -> User {{ x }}");
        assert_eq!(plan(options, &item), expected, "{options} {signature}");
    }
}

#[test]
fn options_become_calls() {
    let item = "async fn get(id: i64) -> User { x }";
    for (options, expected) in [
        (", ttl = 300u32", ".ttl(300u64)"),
        (", ttl = \"5m\"", ".ttl(300u64)"),
        (", ttl = \"1h30m\"", ".ttl(5400u64)"),
        (
            ", ttl = \"1500ms\"",
            ".ttl(::core::time::Duration::from_millis(1500u64))",
        ),
        (", ttl = self.ttl * 2", ".ttl(self.ttl*2)"),
        (", none_ttl = 5", ".none_ttl(5u64)"),
        (", cache_none = false", ".cache_none(false)"),
        (", cache_none = true", ""),
        (", version = 2, ttl = 5", ".ttl(5u64).version(2u32)"),
    ] {
        assert_eq!(
            plan(options, item),
            format!(".id(&id){expected}"),
            "{options}"
        );
    }
}

#[test]
fn the_crate_and_the_cache_can_be_named() {
    let expanded = squeezed(&cached(
        "resource = USERS, crate = crate::reexported, cache = self.caches[0]",
        "async fn get(&self, id: i64) -> User { x }",
    ));
    assert!(!expanded.contains("::cache_runtime"), "{expanded}");
    assert!(
        expanded.contains("crate::reexported::__private::own(&self.caches[0])"),
        "{expanded}"
    );
    assert!(
        expanded.contains("__cache_plan.resource(USERS)"),
        "{expanded}"
    );
}

#[test]
fn ids_of_a_write_know_the_arguments_and_the_result() {
    let write = |args: &str, signature: &str| {
        let expanded = squeezed(&invalidates(args, &format!("async fn {signature} {{ x }}")));
        let calls = expanded
            .split("|__cache_plan|")
            .nth(1)
            .expect("an expansion has a plan");
        calls
            .split("__cache_write")
            .next()
            .unwrap_or(calls)
            .replace([' ', '{', '}'], "")
    };
    assert_eq!(
        write(
            "\"users\", id = (self.tenant, id), TEAMS, on = ok",
            "w(&self, id: i64) -> R"
        ),
        "__cache_plan.resource(\"users\").id(&(&self.tenant,&id)).resource(TEAMS),).on_ok();"
    );
    assert_eq!(
        write(
            "\"users\", id = (team, result.id)",
            "w(team: String, name: &str) -> R"
        ),
        "__cache_plan.resource(\"users\"),).result(letteam=::core::clone::Clone::clone(&team);\
         move|__cache_plan,result|__cache_plan.resource(\"users\").id(&(&team,&result.id)));"
    );
    assert_eq!(
        write(
            "\"users\", id = name, \"teams\", id = result",
            "w(team: String, name: &str) -> R"
        ),
        "__cache_plan.resource(\"users\").id(&name).resource(\"teams\"),).result(\
         move|__cache_plan,result|__cache_plan.resource(\"users\").id(&name).resource(\"teams\").id(&result));"
    );
}

#[test]
fn what_is_around_the_body_survives() {
    let expanded = cached(
        "resource = \"users\"",
        "#[tracing::instrument(skip(self))] #[expect(dead_code, reason = \"..\")]
        pub(super) async unsafe fn get<'a, T>(self: &Arc<Self>, #[data] mut id: &'a T) -> Vec<T>
        where T: Key + 'a { #![allow(unused)] half . typed }",
    );
    for part in [
        "#[tracing::instrument(skip(self))]\n#[expect(dead_code, reason = \"..\")]\n",
        "pub(super) async unsafe fn get<'a, T>(self: &Arc<Self>, #[data] mut id: &'a T) -> Vec<T>",
        "where\n    T: Key + 'a,\n{\n    #![allow(unused)]\n    static __CACHE_SITE",
        "half.typed",
    ] {
        assert!(expanded.contains(part), "{part}\nis missing in\n{expanded}");
    }
}

#[test]
fn mistakes_come_with_the_untouched_function() {
    let expanded = cached(
        "resource = \"users\", tll = 5",
        "pub async fn get(id: i64) -> User { x }",
    );
    assert_eq!(
        expanded,
        "::core::compile_error! {\n    \"unknown option `tll`; did you mean `ttl`?\"\n}\n\
         pub async fn get(id: i64) -> User {\n    x\n}\n"
    );
}
