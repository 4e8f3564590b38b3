//! What comes out, from signature to policy. Whole functions are in the snapshots.

mod snapshots;

use crate::testing::{cached, invalidates};

/// The plan of a read: everything behind `__p`.
fn plan(options: &str, item: &str) -> String {
    let expanded = cached(&format!("resource = \"users\"{options}"), item);
    // `.arg_of(&x)` for short.
    let plan = plans(&expanded).swap_remove(0);
    plan.replace("__crt::argument(", "")
        .replace(").__known())", ")")
}

/// What is called on each `__p` of an expansion, without spaces and line breaks.
fn plans(expanded: &str) -> Vec<String> {
    let code: String = expanded.split_whitespace().collect();
    let code = code.replace("|{__p", "|__p");
    // Each closure mentions it twice: as its parameter, and where its body starts.
    let calls = code.split("|__p").skip(2).step_by(2).map(|rest| {
        let mut depth = 0;
        let end = rest.find(|letter| {
            depth += match letter {
                '(' | '{' => 1,
                ')' | '}' => -1,
                ',' if depth == 0 => -1,
                _ => 0,
            };
            depth < 0
        });
        rest[..end.expect("a closure is an argument")].replace(",)", ")")
    });
    calls.collect()
}

#[test]
fn a_body_that_may_go_on_owns_what_it_names() {
    for (body, is_kept) in [
        ("id", false),
        ("{ let other = 1; id }", false),
        ("id + market.len()", true),
        ("query!(\"SELECT {market}\")", true),
        ("format!(\"{id:market$}\")", true),
    ] {
        let item = format!("async fn get(market: &str, id: i64) -> i64 {{ {body} }}");
        let expanded = cached("resource = \"users\", swr = 5", &item);
        assert_eq!(expanded.contains("__crt::owned(market)"), is_kept, "{body}");
    }
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
    use ::cache_runtime::__private as __crt;
    static __CRT: __crt::Site = __crt::cached("get", "users:{id: i64}, ttl 300", || ());
    __crt::Shape::<Result<Option<User>, DbError>>::OF
        .__form()
        .__read(&__CRT, "users", |__p| __p.id(&id).ttl(300u64))
        .run(move |__kind| async move {
            if __kind.unreached() {
                return __kind.value();
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
    use ::cache_runtime::__private as __crt;
    static __CRT: __crt::Site = __crt::invalidates("create", "users:{result.id}, teams");
    __crt::through_type::<NewUser>().__settled();
    __crt::Shape::<Result<User, DbError>>::OF
        .__write(&__CRT, |__p| __p.resource("users").resource("teams"))
        .rejected(|e| matches!(e, DbError::Conflict))
        .result(move |__p, result| {
            __p.resource("users").id(&result.id).resource("teams")
        })
        .run(move |__kind| async move {
            if __kind.unreached() {
                return __kind.value();
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
        ("", "get(Path(id): Path<i64>)", ".id_of(&id)"),
        ("", "get(id: i64, _: bool)", ".id(&id)"),
        (
            "",
            "get(mut id: impl Into<i64>)",
            ".id_of(&id).typed_as(&id)",
        ),
        (
            ", skip(db)",
            "get<T: Db>(db: T, id: i64)",
            ".id(&id).instance_for::<T>()",
        ),
        (
            ", skip(db)",
            "get(db: &impl Db, id: i64)",
            ".id(&id).instance_for_type_of(&*db)",
        ),
        (
            ", skip(db)",
            "get(db: impl Db, id: i64)",
            ".id(&id).instance_for_type_of(&db)",
        ),
        (
            ", skip(db)",
            "get(State(db): State<impl Db>, id: i64)",
            ".id(&id).instance_for_type_of(&db)",
        ),
        (
            ", skip(load)",
            "get<F: AsyncFn() -> User>(load: F, id: i64)",
            ".id(&id).untyped::<F>()",
        ),
        (
            ", skip(load)",
            "get(load: impl Future<Output = User>, id: i64)",
            ".id(&id).untyped_as(&load)",
        ),
        (
            ", autocommit(ex)",
            "get<E: Executor>(ex: E, id: i64)",
            ".id(&id).untyped::<E>()",
        ),
        (
            ", op = \"view\"",
            "view<T: Format>(id: i64)",
            ".op(\"view\").type_param::<T>().arg(&id)",
        ),
        (", skip(db)", "get(db: &Db, id: i64)", ".id(&id)"),
        (", key(id)", "get(db: &Db, id: i64)", ".id(&id)"),
        (
            ", id = (self.tenant, id)",
            "get(&self, id: i64)",
            ".id_of(&(&self.tenant,&id))",
        ),
        (", id = a + b", "get(a: i64, b: i64)", ".id_of(&(a+b))"),
        (", id = user.id", "get(user: &User)", ".id_of(&user.id)"),
        ("", "get(id: UserId)", ".id_of(&id)"),
        ("", "get(id: &UserId)", ".id_of(&*id)"),
        (
            "",
            "find(a: Option<Vec<(u8, &str)>>, b: [X; 2])",
            ".arg(&a).arg_of(&b)",
        ),
        (
            ", op = \"avatar\"",
            "get(id: i64)",
            ".op(\"avatar\").id(&id)",
        ),
        (
            ", op = OP, id = user.id",
            "get(user: User)",
            ".op(OP).id_of(&user.id)",
        ),
        ("", "all()", ""),
        ("", "r#type()", ""),
        ("", "list(skip: u32, limit: u32)", ".arg(&skip).arg(&limit)"),
        (
            "",
            "list((a, mut b): (u8, u8), P { c, d: [e, ..] }: P)",
            ".arg_of(&a).arg_of(&b).arg_of(&c).arg_of(&e)",
        ),
        (
            "",
            "list(all @ (a, _): (u8, u8))",
            ".arg_of(&all).arg_of(&a)",
        ),
        ("", "list((Ok(x) | Err(x)): Result<u8, u8>)", ".arg_of(&x)"),
        (
            ", op = \"by:name\"",
            "find(name: &str)",
            ".op(\"by:name\").arg(&name)",
        ),
        (
            ", include(self.tenant)",
            "find(&self, id: i64)",
            ".arg(&id).arg_of(&self.tenant)",
        ),
        (
            ", key(a.len(), TENANT)",
            "find(a: &str, b: u8)",
            ".arg_of(&a.len()).arg_of(&TENANT)",
        ),
        (
            "",
            "find<'a, T, U, const N: usize>(a: &'a T)",
            ".type_param::<T>().type_param::<U>().arg(&N).arg_of(&*a)",
        ),
        ("", "find<const N: usize>(id: i64)", ".arg(&N).arg(&id)"),
        (", skip(N)", "find<const N: usize>(id: i64)", ".id(&id)"),
    ] {
        let item = format!("async fn {signature} -> User {{ x }}");
        assert_eq!(plan(options, &item), expected, "{options} {signature}");
    }
}

#[test]
fn a_type_that_may_leave_something_out_is_looked_at() {
    let expanded: String = cached(
        "resource = \"users\"",
        "async fn get(id: UserId) -> User { x }",
    )
    .split_whitespace()
    .collect();
    assert!(
        expanded.contains("|__p|__p.id_of(__crt::argument(&id).__known())"),
        "{expanded}"
    );
    let many = |ids: &str| {
        let item = format!("async fn many(ids: &[{ids}]) -> HashMap<{ids}, User> {{ x }}");
        plans(&cached("resource = \"users\", batch = ids", &item)).swap_remove(0)
    };
    assert_eq!(many("i64"), ".each(&ids)");
    assert_eq!(
        many("UserId"),
        ".each_of(&ids,|__id|__crt::argument(__id).__known())"
    );
}

/// What the compiler is asked about: types, and values after `&`.
fn asked(expanded: &str, method: &str) -> Vec<String> {
    let compact: String = expanded.split_whitespace().collect();
    let end = format!(").{method}();");
    compact
        .split("__crt::through")
        .skip(1)
        .map(|rest| {
            let asked = rest.split(&end).next().unwrap_or_default();
            match asked.strip_prefix("_type::<") {
                Some(ty) => ty.strip_suffix(">(").unwrap_or(ty).to_owned(),
                None => asked.trim_start_matches('(').to_owned(),
            }
        })
        .collect()
}

#[test]
fn a_reader_is_asked_for_the_types_of_what_is_not_in_its_key() {
    for (options, signature, expected) in [
        (
            ", skip(work)",
            "get(mut work: Work<'_>, id: i64)",
            &["Work<'_>"][..],
        ),
        (", skip(link)", "get(link: Link, id: i64)", &["Link"]),
        (", skip(db)", "get(db: impl Db, id: i64)", &["&db"]),
        (", skip(db)", "get<D: Db>(db: &D, id: i64)", &["D"]),
        (", skip(db)", "get(db: E, id: i64)", &["E"]),
        (
            ", skip(db)",
            "get(db: &Arc<Mutex<Link>>, id: i64)",
            &["Link"],
        ),
        (
            ", skip(db)",
            "get(db: State<Link>, id: i64)",
            &["State<Link>", "Link"],
        ),
        (", skip(db)", "get(db: &[Mutex<Link>], id: i64)", &["Link"]),
        (", key(id)", "get((id, db): (i64, Arc<Link>))", &["Link"]),
        (
            ", key(id)",
            "get(Both(id, db): Both<Link>)",
            &["Both<Link>", "Link"],
        ),
        (", skip(pool)", "get(pool: PgPool, id: i64)", &[]),
        (", skip(pool)", "get(pool: &PgPool, id: i64)", &[]),
        (", skip(pool)", "get(pool: &Pool<Link>, id: i64)", &[]),
        (", skip(f)", "get<F: Fn() -> i64>(f: F, id: i64)", &[]),
        (", skip(log)", "get(log: &mut Vec<String>, id: i64)", &[]),
        (", autocommit(link)", "get(link: Link, id: i64)", &[]),
        ("", "get(&self, id: UserId)", &[]),
    ] {
        let item = format!("async fn {signature} -> User {{ x }}");
        let expanded = cached(&format!("resource = \"users\"{options}"), &item);
        let asked = asked(&expanded, "__committed");
        assert_eq!(asked, expected, "{options} {signature}");
    }
}

#[test]
fn parameters_that_may_be_connections_are_asked_for_their_type() {
    let asked = |args: &str, signature: &str, body: &str| {
        let item = format!("async fn {signature} {{ {body} }}");
        asked(
            &invalidates(&format!("\"users\"{args}"), &item),
            "__settled",
        )
    };
    let signature =
        "w(&self, link: &mut Link, db: &impl Db, of: Of<'_>, rows: &mut Vec<u8>, id: UserId)";
    let all = ["&mutLink", "&*db", "Of<'_>", "UserId"];
    assert_eq!(asked("", signature, ""), all);
    assert_eq!(asked(", id = id", signature, ""), all[..3]);
    assert_eq!(asked(", autocommit(link, of, id)", signature, ""), ["&*db"]);
    assert_eq!(asked(", after_commit", signature, "self.tx"), [""; 0]);
    let body = "q(\"..\").execute(&mut *self.tx).await; self.open_tx.x; self.conn(); self.name";
    assert_eq!(asked("", "w(&self)", body), ["&self.tx", "&self.open_tx"]);
    assert_eq!(asked("", "w(&mut self)", ""), ["&mutSelf"]);
    assert_eq!(asked("", "w(self)", ""), ["Self"]);
    assert_eq!(asked("", "w(self: &mut Link)", ""), ["&mutLink"]);
    assert_eq!(asked("", "w(self: Arc<Self>)", ""), [""; 0]);
    assert_eq!(asked(", autocommit(self)", "w(&mut self)", body), [""; 0]);
    assert_eq!(
        asked(
            "",
            "w<T: Db>(t: T, s: impl Into<String>, all: Vec<&mut Link>)",
            ""
        ),
        ["T", "&mutLink"]
    );
    assert_eq!(
        asked(
            "",
            "w((pool, link): (&PgPool, &mut Link), same: &mut Link)",
            ""
        ),
        ["&mutLink"]
    );
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
        (", tags(\"all\")", ".tag(\"all\")"),
        (
            ", tags(\"{{a}}:{id}:{self.team}\", self.tag())",
            ".tag(::core::format_args!(\"{{a}}:{}:{}\",__crt::part(&id).__text(),__crt::part(&self.team).__text())).tag(__crt::part(&self.tag()).__text())",
        ),
        (
            ", depends(\"teams\", T::NAME)",
            ".depends(\"teams\").depends(T::NAME)",
        ),
        (
            ", depends(\"teams\", id = self.team, \"roles\")",
            ".depends_row(\"teams\",&self.team).depends(\"roles\")",
        ),
        (", when = id > 0", ".when(id>0)"),
        (", codec = \"msgpack\"", ".codec(__crt::codec::msgpack)"),
        (", shared", ".shared()"),
        (", shared = false", ""),
        (
            ", max_loads = 32, in_process, memo",
            ".in_process().max_loads(32).memo()",
        ),
        (", codec = \"json+zstd\"", ".codec(__crt::codec::json_zstd)"),
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
    let expanded: String = cached(
        "resource = USERS, crate = crate::reexported, cache = self.caches[0]",
        "async fn get(&self, id: i64) -> User { x }",
    )
    .split_whitespace()
    .collect();
    assert!(!expanded.contains("::cache_runtime"), "{expanded}");
    assert!(
        expanded.contains(".__read_in(&self.caches[0],&__CRT,USERS,|__p|__p.id(&id))"),
        "{expanded}"
    );
}

#[test]
fn ids_of_a_write_know_the_arguments_and_the_result() {
    let write = |args: &str, signature: &str| {
        plans(&invalidates(args, &format!("async fn {signature} {{ x }}")))
    };
    assert_eq!(
        write(
            "\"users\", id = (self.tenant, id), TEAMS, tags(\"t:{id}\"), on = ok",
            "w(&self, id: i64) -> R"
        ),
        [
            ".resource(\"users\").id(&(&self.tenant,&id)).resource(TEAMS).tag(::core::format_args!(\"t:{}\",__crt::part(&id).__text()))"
        ]
    );
    assert_eq!(
        write(
            "\"users\", ids = self.ids, ops(\"list\", OP), \"teams\", ids = ids.iter()",
            "w(&self, ids: &[i64])"
        ),
        [
            ".resource(\"users\").ids(__crt::each(&self.ids).__each()).op(\"list\").op(OP).resource(\"teams\").ids(ids.iter())"
        ]
    );
    assert_eq!(
        write("\"users\", ids = result", "w() -> Result<Vec<i64>, E>"),
        [
            ".resource(\"users\")",
            ".resource(\"users\").ids(__crt::each(&result).__each())"
        ]
    );
    assert_eq!(
        write(
            "\"users\", id = (team, result.id)",
            "w(team: String, name: &str) -> R"
        ),
        [
            ".resource(\"users\")",
            ".resource(\"users\").id(&(&team,&result.id))"
        ]
    );
    assert_eq!(
        write(
            "\"users\", id = name, \"teams\", id = result",
            "w(team: String, name: &str) -> R"
        ),
        [
            ".resource(\"users\").id(&name).resource(\"teams\")",
            ".resource(\"users\").id(&name).resource(\"teams\").id(&result)"
        ]
    );
}

#[test]
fn a_result_closure_owns_what_the_body_takes() {
    let expanded: String = invalidates(
        "\"users\", id = (team, result.id)",
        "async fn w(team: String, name: &str) -> R { x }",
    )
    .split_whitespace()
    .collect();
    assert!(
        expanded.contains(
            ".result({letteam=::core::clone::Clone::clone(&team);let_=(&team,);move|__p,result|"
        ),
        "{expanded}"
    );
}

#[test]
fn the_scope_of_the_body_survives() {
    let expanded = cached(
        "resource = \"users\", op = \"row\"",
        "#[tracing::instrument(skip(self))] #[expect(dead_code, reason = \"..\")]
        pub(super) async unsafe fn get<'a, T>(self: &Arc<Self>, #[data] mut id: &'a T) -> Vec<T>
        where T: Key + 'a { #![allow(unused)] half . typed }",
    );
    for part in [
        "#[tracing::instrument(skip(self))]\n#[expect(dead_code, reason = \"..\")]\n",
        "pub(super) async unsafe fn get<'a, T>(self: &Arc<Self>, #[data] mut id: &'a T) -> Vec<T>",
        "where\n    T: Key + 'a,\n{\n    #![allow(unused)]\n    use ::cache_runtime::__private as __crt;",
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
