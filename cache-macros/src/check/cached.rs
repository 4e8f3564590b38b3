//! The rules of `#[cached]`.

use proc_macro2::Span;
use syn::{FnArg, Ident, Type};

use super::common::{callable, env, tags_of};
use super::key::{key, part};
use super::left_out::is_left_out;
use super::values::{named, named_in_tags, one_row};
use super::{combined, connection_candidates, detached, transactions, types};
use crate::args::{CachedArgs, Dependency, Setting, Ttl};
use crate::diag::Errors;
use crate::item::{Item, bindings_of, borrowed_value, optional_result};
use crate::model::{Absence, CachedFn, Depends, Key, LocalOptions, StalePolicy};

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
    let is_default = args.none_ttl_is_default;
    let absence = absence(args.cache_none, args.none_ttl, is_default, errors);
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

fn absence(
    cache_none: Setting<bool>,
    none_ttl: Setting<Ttl>,
    is_default: bool,
    errors: &mut Errors,
) -> Absence {
    if cache_none.value() == Some(&false) {
        if let Some(key) = none_ttl.key() {
            errors.on(key, "`none_ttl` can't be combined with `cache_none = false`, which keeps no `None`; remove one of them");
        }
        return Absence::NotKept;
    }
    none_ttl
        .into_value()
        .map_or(Absence::ByDefault, |ttl| Absence::KeptFor {
            ttl,
            is_default,
        })
}
