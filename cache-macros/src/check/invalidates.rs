//! The rules of `#[invalidates]`.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Expr, FnArg, Ident, Type};

use super::common::{callable, env, tags_of};
use super::key::part;
use super::values::{named, named_in_tags, one_row};
use super::{combined, connection_candidates, transactions};
use crate::args::{InvalidatesArgs, Name, Outcome, Setting, Tag, TargetArgs};
use crate::diag::Errors;
use crate::item::{Binding, Item, bindings_of, never_fails, returns_nothing};
use crate::model::{AfterResult, ConnectionCandidate, InvalidatesFn, On, Rows, Target};
use crate::tokens::{holds, mention};

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
