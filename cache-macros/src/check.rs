//! The rules that combine an option with another option, or with the signature.

mod combined;
mod connection_candidates;
mod connection_names;
mod detached;
mod key;
mod left_out;
mod transactions;
mod types;
mod values;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Expr, FnArg, Ident, Type};

use self::key::{key, part};
use self::left_out::is_left_out;
use self::values::{named, named_in_tags, one_row};
use crate::args::{
    CachedArgs, Common, Dependency, InvalidatesArgs, Name, Outcome, Setting, Tag, TargetArgs, Ttl,
};
use crate::diag::Errors;
use crate::item::{
    Binding, Item, bindings_of, borrowed_value, impl_trait, never_fails, optional_result,
    returns_nothing,
};
use crate::model::{
    Absence, AfterResult, CachedFn, ConnectionCandidate, Depends, Env, InvalidatesFn, Key,
    LocalOptions, On, Rows, StalePolicy, Target,
};
use crate::tokens::{holds, mention};

/// Checks a function under `#[cached]`; `None` if a reported mistake leaves nothing to generate.
pub(crate) fn cached(args: CachedArgs, item: Item, errors: &mut Errors) -> Option<CachedFn> {
    callable("cached", &item, errors);
    if item.form().is_none() {
        blocking(&args, errors);
    }
    combined::on_writes(&args, &item, errors);
    named_in_tags(tags_of(&args.tags), &item, errors);
    uncommitted(&args, &item, errors);
    conditional(&args, &item, errors);
    keepable(&item, errors);
    if args.resource.is_absent() {
        errors.at(
            Span::call_site(),
            "missing `resource`; name the data, e.g. `resource = \"users\"`",
        );
    }
    let key = key(&args, &item, errors);
    let types = key.as_ref().map(|key| types::types(key, &args, &item));
    let detached = detached::detached(&args, &item, errors);
    let in_process = args.in_process.value() == Some(&true);
    combinable(&args, &item, key.as_ref(), errors);
    let reads_through = connection_candidates::to_ask_of_reads(&item, &args.autocommit, |name| {
        is_left_out(&args, name)
    });
    let absence = absence(args.cache_none, args.none_ttl, errors);
    let local_options = match in_process {
        true => LocalOptions::InProcess,
        false => local_options(args.strict, args.local, args.local_ttl, errors),
    };
    let depends = depends(args.depends.into_value().unwrap_or_default(), &item, errors);
    Some(CachedFn {
        key: key?,
        types: types.unwrap_or_default(),
        resource: args.resource.into_value()?,
        absence,
        ttl: args.ttl.into_value(),
        version: args.version.into_value(),
        tags: args.tags.into_value().unwrap_or_default(),
        depends,
        when: args.when.into_value(),
        unless: args.unless.into_value(),
        codec: args.codec.into_value(),
        shared: args.shared.into_value().unwrap_or_default(),
        local_options,
        stale_policy: StalePolicy {
            swr: args.swr.into_value(),
            stale_if_error: args.stale_if_error.into_value(),
            timeout: args.timeout.into_value(),
            early: args.early.into_value(),
            jitter: args.jitter.into_value(),
            audit: args.audit.into_value(),
        },
        context: args.context.into_value(),
        max_loads: args.max_loads.into_value(),
        memo: args.memo.into_value().unwrap_or_default(),
        include_context: args.include_context.into_value().unwrap_or_default(),
        reads_through,
        detached,
        env: env(args.common),
        item,
    })
}

/// Checks that there is a value, and that it can be kept.
fn keepable(item: &Item, errors: &mut Errors) {
    if item.output().is_none() {
        let message = "the function returns nothing, so there is nothing to cache; give it a return type or remove `#[cached]`";
        errors.on(&item.sig.ident, message);
    }
    if let Some(borrowed) = item.output().and_then(borrowed_value) {
        let message = match borrowed {
            Type::Reference(_) => {
                "a borrowed value can't be kept; return an owned one, e.g. `String` in place of `&str`"
            }
            _ => {
                "a value that may borrow can't be kept; return an owned one, e.g. `String` or `Cow<'static, str>`"
            }
        };
        errors.on(borrowed, message);
    }
    if let Some(result) = item.output().and_then(optional_result) {
        let message =
            "a `Result` in an `Option` is the wrong way round; return `Result<Option<T>, E>`";
        errors.on(result, message);
    }
}

/// Checks options that exclude each other, or a form of key.
fn combinable(args: &CachedArgs, item: &Item, key: Option<&Key>, errors: &mut Errors) {
    if args.strict.value() == Some(&true) && args.memo.value() == Some(&true) {
        let message = "`memo` can't be combined with `strict`, which asks the store on each call; remove one of them";
        errors.on(args.memo.key(), message);
    }
    if args.memo.value() == Some(&true) && args.batch.key().is_some() {
        let message = "`memo` can't be combined with `batch`, of which a request remembers nothing; remove it";
        errors.on(args.memo.key(), message);
    }
    of_its_own_name(args, item, errors);
    if args.in_process.value() == Some(&true) {
        kept_here_only(args, errors);
    }
    if let (Some(option), Some(Key::Batch(_) | Key::Entity(_))) = (args.include_context.key(), key)
    {
        let message = "`include_context` can't be used for single rows: `#[invalidates]` has to build the same key; declare it for the resource, with `CacheConfig::resource`, or give the function an `op`";
        errors.on(option, message);
    }
}

fn depends(written: Vec<Dependency>, item: &Item, errors: &mut Errors) -> Vec<Depends> {
    let (bindings, _) = item.bindings();
    let depends = written.into_iter().map(|on| Depends {
        resource: on.resource,
        row: on.id.map(|id| {
            named("id", &id, &bindings, errors);
            one_row(&id, item, &bindings, errors);
            part(&id, &bindings)
        }),
    });
    depends.collect()
}

/// Checks a function under `#[invalidates]`; `None` if a reported mistake leaves nothing to
/// generate.
pub(crate) fn invalidates(
    args: InvalidatesArgs,
    item: Item,
    errors: &mut Errors,
) -> Option<InvalidatesFn> {
    callable("invalidates", &item, errors);
    combined::on_reads(&args, &item, errors);
    named_in_tags(tags_of(&args.tags), &item, errors);
    let (bindings, _) = item.bindings();
    let has_self = item.sig.receiver().is_some();
    transactions::named(
        &args.autocommit,
        &Setting::Absent,
        &bindings,
        has_self,
        errors,
    );
    let writes_through = writes_through(&args, &item, errors);
    if args.targets.is_empty() && !args.broken_target && args.tags.is_absent() {
        errors.at(
            Span::call_site(),
            "missing a resource; name what becomes stale, e.g. `#[invalidates(\"users\")]`",
        );
    }
    known_before(&args.tags, errors);
    let mut scope = None;
    let targets: Vec<Target> = args
        .targets
        .into_iter()
        .map(|written| target(written, &item, &bindings, &mut scope, errors))
        .collect();
    named_twice(&targets, errors);
    let result = scope.map(|result| AfterResult {
        result,
        kept: kept(&targets, &item),
    });
    may_fail(&args.on, &args.rejected, &item, errors);
    let on = on(args.on, args.rejected, errors);
    Some(InvalidatesFn {
        env: env(args.common),
        targets,
        tags: args.tags.into_value().unwrap_or_default(),
        crash_safe: args.crash_safe.into_value().unwrap_or_default(),
        required: args.required.into_value().unwrap_or_default(),
        after_commit: args.after_commit.into_value().unwrap_or_default(),
        writes_through,
        result,
        on,
        item,
    })
}

/// Refuses what may be a caller's transaction. Returns the parameters whose types the compiler is
/// asked for.
fn writes_through(
    args: &InvalidatesArgs,
    item: &Item,
    errors: &mut Errors,
) -> Vec<ConnectionCandidate> {
    if args.after_commit.value() == Some(&true) {
        if let Some(autocommit) = args.autocommit.key() {
            let message = "`autocommit` can't be combined with `after_commit`, which is for functions inside a transaction; remove one of them";
            errors.on(autocommit, message);
        }
        return Vec::new();
    }
    let parts = transactions::parts(item, &args.autocommit, |_| false);
    transactions::refuse_writes(&parts, errors);
    let ids = args.targets.iter().filter_map(|target| target.id.value());
    let ids: Vec<_> = ids
        .chain(args.targets.iter().filter_map(|target| target.ids.value()))
        .filter_map(only_ident)
        .cloned()
        .collect();
    connection_candidates::to_ask(item, &args.autocommit, &ids)
}

/// A tag has to be known if there is no result, too.
fn known_before(tags: &Setting<Vec<Tag>>, errors: &mut Errors) {
    for value in tags_of(tags).iter().flat_map(Tag::values) {
        if let Some(result) = mention(value.to_token_stream(), "result") {
            let message = "a tag can't be read from `result`: after an error there is none, and what was written would stay cached; make it of the parameters, or invalidate the resource";
            errors.on(result, message);
        }
    }
}

/// `rejected` and `on = ok` need errors.
fn may_fail(on: &Setting<Outcome>, rejected: &Setting<Expr>, item: &Item, errors: &mut Errors) {
    if on.is_absent()
        && let Some(key) = rejected.key()
        && item.form().is_some()
        && item.output().is_none_or(never_fails)
    {
        let message = "`rejected` tells errors apart, and this function returns none; return a `Result`, or remove it";
        errors.on(key, message);
    }
    if let Some(key) = on.key()
        && rejected.is_absent()
        && item.form().is_some()
        && item
            .output()
            .is_none_or(|ty| never_fails(ty) && !holds(ty.to_token_stream(), "Result"))
    {
        let message = "`on = ok` leaves errors out, and this function returns none; return a `Result`, or remove it";
        errors.on(key, message);
    }
}

/// After which outcomes the write invalidates.
fn on(on: Setting<Outcome>, rejected: Setting<Expr>, errors: &mut Errors) -> On {
    match (on, rejected) {
        (Setting::Absent, rejected) => rejected
            .into_value()
            .map_or(On::Always, |judge| On::UnlessRejected(Box::new(judge))),
        (_, Setting::Absent) => On::Ok,
        (_, rejected) => {
            let message = "`rejected` can't be combined with `on = ok`, which takes every error for a write that did not happen; remove one of them";
            errors.on(rejected.key(), message);
            On::Ok
        }
    }
}
fn tags_of(tags: &Setting<Vec<Tag>>) -> &[Tag] {
    tags.value().map(Vec::as_slice).unwrap_or_default()
}

/// Data that a caller's transaction has not committed must not be cached for others.
fn uncommitted(args: &CachedArgs, item: &Item, errors: &mut Errors) {
    let (bindings, _) = item.bindings();
    let has_self = item.sig.receiver().is_some();
    transactions::named(&args.autocommit, &args.skip, &bindings, has_self, errors);
    let is_in_key = |name: &Ident| !is_left_out(args, name);
    let parts = transactions::parts(item, &args.autocommit, is_in_key);
    transactions::refuse_reads(&parts, errors);
    // With these two options mutable borrows are refused elsewhere.
    if args.swr.is_absent() && args.timeout.is_absent() {
        let permitted = args
            .autocommit
            .value()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let is_left_out = |name: &Ident| !permitted.contains(name) && is_left_out(args, name);
        transactions::refuse_mutable(item, &parts, is_left_out, errors);
    }
}

/// The key must be the same in each build.
fn conditional(args: &CachedArgs, item: &Item, errors: &mut Errors) {
    for input in &item.sig.inputs {
        if let FnArg::Typed(parameter) = input
            && let Some(cfg) = parameter.attrs.iter().find(|it| it.path().is_ident("cfg"))
            && !bindings_of(&parameter.pat)
                .iter()
                .all(|binding| is_left_out(args, &binding.ident))
        {
            let message = "a parameter under `#[cfg]` can't be in the key, which must be the same in all builds; leave it out with `skip`, or write one function for each case";
            errors.on(cfg, message);
        }
    }
}

/// The rules for any function whose body is wrapped.
fn callable(attribute: &str, item: &Item, errors: &mut Errors) {
    // A function that is not `async` can read the process's memory, and can't wait for anything
    // else.
    if item.form().is_none() && attribute == "invalidates" {
        errors.on(
            item.sig.fn_token,
            format!("`#[{attribute}]` needs an `async fn`; add `async` before `fn`"),
        );
    }
    if let Some(constness) = &item.sig.constness {
        let message = format!(
            "`#[{attribute}]` can't be on a `const fn`, which has no cache to look into; remove `const`"
        );
        errors.on(constness, message);
    }
    if let Some(found) = item.output().and_then(impl_trait) {
        errors.at(found, format!("`#[{attribute}]` needs a return type with a name; write the type in place of `impl ..`"));
    }
    if let Some(never @ Type::Never(_)) = item.output() {
        let message =
            format!("the function never returns, so `#[{attribute}]` has nothing to do; remove it");
        errors.on(never, message);
    }
    for pat in item.bindings().1 {
        let message = format!(
            "`#[{attribute}]` can't see which names this pattern binds; bind one name and take it apart in the body"
        );
        errors.on(pat, message);
    }
}

/// The options that a function that is not `async` can't have, since it never waits for Redis.
fn blocking(args: &CachedArgs, errors: &mut Errors) {
    let is_set = |setting: &Setting<bool>| setting.value() == Some(&true);
    if is_set(&args.strict) {
        let message = "`strict` asks Redis each time, and a function without `async` never waits for Redis; make it an `async fn`, or leave `strict` out";
        errors.on(args.strict.key(), message);
    }
    if args.local.value() == Some(&false) {
        let message = "`local = false` keeps values in Redis alone, and a function without `async` never waits for Redis; make it an `async fn`, or leave it out";
        errors.on(args.local.key(), message);
    }
    for (name, key) in [
        ("batch", args.batch.key()),
        ("swr", args.swr.key()),
        ("timeout", args.timeout.key()),
    ] {
        if let Some(key) = key {
            let message = format!("`{name}` needs an `async fn`; add `async` before `fn`");
            errors.on(key, message);
        }
    }
}

/// The name of the load context would hide a parameter, which may be in the key.
fn of_its_own_name(args: &CachedArgs, item: &Item, errors: &mut Errors) {
    let Some(name) = args.context.value() else {
        return;
    };
    if name == "self" || item.bindings().0.iter().any(|binding| binding.is(name)) {
        let message = format!(
            "`{name}` is a name of the function's own; call the context otherwise, e.g. `context = load`"
        );
        errors.on(name, message);
    }
}

/// The options that can't be combined with `in_process`.
fn kept_here_only(args: &CachedArgs, errors: &mut Errors) {
    let whys = [
        (
            args.strict.key(),
            "`in_process`, which keeps nothing in Redis",
        ),
        (args.local.key(), "`in_process`, which implies it"),
        (
            args.local_ttl.key(),
            "`in_process`, where `ttl` is the only time",
        ),
        (
            args.batch.key(),
            "`in_process`, which loads one row at a time",
        ),
        (
            args.swr.key(),
            "`in_process`, which keeps no expired entries",
        ),
        (
            args.timeout.key(),
            "`in_process`, which keeps no expired entries",
        ),
        (
            args.stale_if_error.key(),
            "`in_process`, which keeps no expired entries",
        ),
    ];
    for (key, why) in whys {
        if let Some(key) = key {
            errors.on(
                key,
                format!("`{key}` can't be combined with {why}; remove one of them"),
            );
        }
    }
}

fn env(common: Common) -> Env {
    Env {
        krate: common.krate.into_value(),
        cache: common.cache.into_value(),
    }
}

fn local_options(
    strict: Setting<bool>,
    local: Setting<bool>,
    local_ttl: Setting<Ttl>,
    errors: &mut Errors,
) -> LocalOptions {
    let is_strict = strict.value() == Some(&true);
    if is_strict || local.value() == Some(&false) {
        if let Some(key) = local_ttl.key() {
            let why = if is_strict {
                "`strict`, which serves nothing from the process"
            } else {
                "`local = false`, which keeps nothing in the process"
            };
            errors.on(
                key,
                format!("`local_ttl` can't be combined with {why}; remove one of them"),
            );
        }
        if is_strict && local.value() == Some(&true) {
            errors.on(local.key(), "`local` can't be combined with `strict`, which serves nothing from the process; remove one of them");
        }
        return if is_strict {
            LocalOptions::Strict
        } else {
            LocalOptions::NotKept
        };
    }
    LocalOptions::Kept(local_ttl.into_value())
}

fn absence(cache_none: Setting<bool>, none_ttl: Setting<Ttl>, errors: &mut Errors) -> Absence {
    if cache_none.value() == Some(&false) {
        if let Some(key) = none_ttl.key() {
            errors.on(key, "`none_ttl` can't be combined with `cache_none = false`, which keeps no `None`; remove one of them");
        }
        return Absence::NotKept;
    }
    none_ttl
        .into_value()
        .map_or(Absence::ByDefault, Absence::KeptFor)
}

/// The name that an expression is, if it is nothing else.
fn only_ident(value: &Expr) -> Option<&Ident> {
    match value {
        Expr::Path(path) => path.path.get_ident(),
        _ => None,
    }
}

fn target(
    args: TargetArgs,
    item: &Item,
    bindings: &[Binding],
    scope: &mut Option<Ident>,
    errors: &mut Errors,
) -> Target {
    let TargetArgs {
        resource,
        id,
        ids,
        ops,
    } = args;
    if !id.is_absent()
        && let Some(key) = ids.key()
    {
        errors.on(
            key,
            "`ids` can't be combined with `id`, which is one of them; remove one of the two",
        );
    }
    let (option, value) = match (id.into_value(), ids.into_value()) {
        (Some(id), _) => ("id", Some(id)),
        (None, ids) => ("ids", ids),
    };
    let rows = match value {
        Some(value) => rows(option, value, item, bindings, scope, errors),
        None => Rows::NotNamed,
    };
    Target {
        resource,
        rows,
        ops: ops.into_value().unwrap_or_default(),
    }
}

fn rows(
    option: &str,
    value: Expr,
    item: &Item,
    bindings: &[Binding],
    scope: &mut Option<Ident>,
    errors: &mut Errors,
) -> Rows {
    let is_one = option == "id";
    if is_one {
        one_row(&value, item, bindings, errors);
    }
    let part = part(&value, bindings);
    let Some(result) = mention(value.to_token_stream(), "result") else {
        named(option, &value, bindings, errors);
        return match is_one {
            true => Rows::One(part),
            false => Rows::Many(part),
        };
    };
    if bindings.iter().any(|binding| binding.is(&result)) {
        errors.on(&result, "`result` is what the function returned, and a parameter is named so, too; rename the parameter");
    }
    if item.output().is_none_or(returns_nothing) {
        errors.on(&result, "`result` is what the function returned, and this one returns nothing; return the id, or read it from a parameter");
    }
    scope.get_or_insert(result);
    match is_one {
        true => Rows::OfResult(part),
        false => Rows::ManyOfResult(part),
    }
}

/// A resource that is invalidated as a whole need not be named again.
fn named_twice(targets: &[Target], errors: &mut Errors) {
    for (n, target) in targets.iter().enumerate() {
        let Name::Literal(resource) = &target.resource else {
            continue;
        };
        let same = |other: &&Target| matches!(&other.resource, Name::Literal(name) if name.value() == resource.value());
        let whole =
            |target: &Target| matches!(target.rows, Rows::NotNamed) && target.ops.is_empty();
        if targets[..n]
            .iter()
            .filter(same)
            .any(|earlier| whole(earlier) || whole(target))
        {
            let message = format!(
                "`{}` is named twice, and once as a whole; keep that one",
                resource.value()
            );
            errors.on(resource, message);
        }
    }
}

/// The by-value parameters that an id uses: a closure that waits for the result needs its own
/// copies.
fn kept(targets: &[Target], item: &Item) -> Vec<Ident> {
    let ids: TokenStream = targets
        .iter()
        .filter_map(|target| target.rows.ids())
        .map(|ids| ids.value.to_token_stream())
        .collect();
    item.sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(parameter) if !matches!(*parameter.ty, Type::Reference(_)) => {
                Some(&*parameter.pat)
            }
            _ => None,
        })
        .flat_map(bindings_of)
        .filter(|binding| mention(ids.clone(), &binding.name()).is_some())
        .map(|binding| binding.ident)
        .collect()
}

#[cfg(test)]
mod tests;
