//! The options as they were written: each key and each value with its span. Only this module knows
//! their syntax.

mod expr;
mod kinds;
mod name;
mod syntax;
mod tag;
mod value;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Expr, Ident, LitStr, Path};

pub(crate) use self::expr::{is_constant, quoted_expr, root, single_ident};
pub(crate) use self::kinds::{Codec, Dependency, Name, Outcome, Tag, Ttl};
use self::name::NameKind;
pub(crate) use self::name::{is_segment, repaired};
use self::syntax::{Entry, Form, RawOption, entries};
use crate::diag::{Errors, listed, nearest};

/// One option, absent or given.
#[derive(Default)]
pub(crate) enum Setting<T> {
    /// Not given.
    #[default]
    Absent,
    /// Given, but its value is a mistake that has been reported.
    Broken { key: Ident },
    /// Given, with a value of the right kind.
    Given { key: Ident, value: T },
}

impl<T> Setting<T> {
    /// The option's name where it was written.
    pub(crate) fn key(&self) -> Option<&Ident> {
        match self {
            Self::Absent => None,
            Self::Broken { key } | Self::Given { key, .. } => Some(key),
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Broken { .. } => None,
        }
    }

    pub(crate) fn into_value(self) -> Option<T> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Broken { .. } => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The options that both attributes have.
#[derive(Default)]
pub(crate) struct Common {
    /// The instance to use instead of the process-wide one.
    pub(crate) cache: Setting<Expr>,
    /// Where `cache-runtime` is found.
    pub(crate) krate: Setting<Path>,
}

/// The options of `#[cached(..)]`.
#[derive(Default)]
pub(crate) struct CachedArgs {
    pub(crate) common: Common,
    pub(crate) resource: Setting<Name>,
    pub(crate) op: Setting<Name>,
    pub(crate) id: Setting<Expr>,
    pub(crate) skip: Setting<Vec<Ident>>,
    pub(crate) autocommit: Setting<Vec<Ident>>,
    pub(crate) include: Setting<Vec<Expr>>,
    pub(crate) key: Setting<Vec<Expr>>,
    pub(crate) ttl: Setting<Ttl>,
    pub(crate) none_ttl: Setting<Ttl>,
    /// Whether it is that of the whole block, whose methods need not all return an `Option`.
    pub(crate) none_ttl_is_default: bool,
    pub(crate) cache_none: Setting<bool>,
    pub(crate) version: Setting<u32>,
    pub(crate) tags: Setting<Vec<Tag>>,
    pub(crate) depends: Setting<Vec<Dependency>>,
    pub(crate) when: Setting<Expr>,
    pub(crate) unless: Setting<Expr>,
    pub(crate) codec: Setting<Codec>,
    pub(crate) shared: Setting<bool>,
    pub(crate) strict: Setting<bool>,
    pub(crate) local: Setting<bool>,
    pub(crate) local_ttl: Setting<Ttl>,
    pub(crate) batch: Setting<Ident>,
    /// Without a time it takes that of the configuration, like `timeout`.
    pub(crate) swr: Setting<Option<Ttl>>,
    pub(crate) stale_if_error: Setting<Ttl>,
    pub(crate) timeout: Setting<Option<Ttl>>,
    pub(crate) early: Setting<Expr>,
    pub(crate) jitter: Setting<Expr>,
    pub(crate) audit: Setting<Expr>,
    pub(crate) context: Setting<Ident>,
    pub(crate) max_loads: Setting<Expr>,
    pub(crate) in_process: Setting<bool>,
    pub(crate) memo: Setting<bool>,
    pub(crate) include_context: Setting<Vec<LitStr>>,
}

/// The options of `#[invalidates(..)]`.
#[derive(Default)]
pub(crate) struct InvalidatesArgs {
    pub(crate) common: Common,
    pub(crate) targets: Vec<TargetArgs>,
    /// Whether a target could not be parsed, and is missing in `targets`.
    pub(crate) broken_target: bool,
    pub(crate) tags: Setting<Vec<Tag>>,
    pub(crate) on: Setting<Outcome>,
    pub(crate) rejected: Setting<Expr>,
    pub(crate) crash_safe: Setting<bool>,
    pub(crate) required: Setting<bool>,
    pub(crate) after_commit: Setting<bool>,
    pub(crate) autocommit: Setting<Vec<Ident>>,
}

/// A resource and the options that belong to it.
pub(crate) struct TargetArgs {
    pub(crate) resource: Name,
    pub(crate) id: Setting<Expr>,
    pub(crate) ids: Setting<Expr>,
    pub(crate) ops: Setting<Vec<Name>>,
}

/// Names each option once: its parser, and the list for "did you mean", come from the same line.
type OptionTable<A> = &'static [(&'static str, fn(&mut A, OptionParser<'_>))];

/// A `none_ttl` that `#[cache_defaults]` has added. Nobody writes it.
pub(crate) const DEFAULT_NONE_TTL: &str = "__default_none_ttl";

const CACHED: OptionTable<CachedArgs> = &[
    ("resource", |args, parser| {
        parser.into(&mut args.resource, RawOption::resource)
    }),
    ("ttl", |args, parser| {
        parser.into(&mut args.ttl, RawOption::ttl)
    }),
    ("op", |args, parser| {
        parser.into(&mut args.op, RawOption::op)
    }),
    ("id", |args, parser| {
        parser.into(&mut args.id, RawOption::expr)
    }),
    ("skip", |args, parser| {
        parser.into(&mut args.skip, RawOption::parameters)
    }),
    ("autocommit", |args, parser| {
        parser.into(&mut args.autocommit, RawOption::parameters)
    }),
    ("include", |args, parser| {
        parser.into(&mut args.include, RawOption::exprs)
    }),
    ("key", |args, parser| {
        parser.into(&mut args.key, RawOption::exprs)
    }),
    ("none_ttl", |args, parser| {
        parser.into(&mut args.none_ttl, RawOption::ttl)
    }),
    (DEFAULT_NONE_TTL, |args, mut parser| {
        parser.raw.key = Ident::new("none_ttl", parser.raw.key.span());
        args.none_ttl_is_default = true;
        parser.into(&mut args.none_ttl, RawOption::ttl);
    }),
    ("cache_none", |args, parser| {
        parser.into(&mut args.cache_none, RawOption::bool)
    }),
    ("version", |args, parser| {
        parser.into(&mut args.version, RawOption::version)
    }),
    ("tags", |args, parser| {
        parser.into(&mut args.tags, RawOption::tags)
    }),
    ("depends", |args, parser| {
        parser.into(&mut args.depends, RawOption::dependencies)
    }),
    ("when", |args, parser| {
        parser.into(&mut args.when, RawOption::expr)
    }),
    ("unless", |args, parser| {
        parser.into(&mut args.unless, RawOption::expr)
    }),
    ("codec", |args, parser| {
        parser.into(&mut args.codec, RawOption::codec)
    }),
    ("shared", |args, parser| {
        parser.into(&mut args.shared, RawOption::flag)
    }),
    ("strict", |args, parser| {
        parser.into(&mut args.strict, RawOption::flag)
    }),
    ("local", |args, parser| {
        parser.into(&mut args.local, RawOption::bool)
    }),
    ("local_ttl", |args, parser| {
        parser.into(&mut args.local_ttl, RawOption::ttl)
    }),
    ("batch", |args, parser| {
        parser.into(&mut args.batch, RawOption::parameter)
    }),
    ("swr", |args, parser| {
        parser.into(&mut args.swr, RawOption::ttl_or_default)
    }),
    ("stale_if_error", |args, parser| {
        parser.into(&mut args.stale_if_error, RawOption::ttl)
    }),
    ("timeout", |args, parser| {
        parser.into(&mut args.timeout, RawOption::ttl_or_default)
    }),
    ("early", |args, parser| {
        parser.into(&mut args.early, RawOption::beta)
    }),
    ("jitter", |args, parser| {
        parser.into(&mut args.jitter, RawOption::part)
    }),
    ("audit", |args, parser| {
        parser.into(&mut args.audit, RawOption::part_of_hits)
    }),
    ("context", |args, parser| {
        parser.into(&mut args.context, RawOption::name)
    }),
    ("max_loads", |args, parser| {
        parser.into(&mut args.max_loads, RawOption::count)
    }),
    ("in_process", |args, parser| {
        parser.into(&mut args.in_process, RawOption::flag)
    }),
    ("memo", |args, parser| {
        parser.into(&mut args.memo, RawOption::flag)
    }),
    ("include_context", |args, parser| {
        parser.into(&mut args.include_context, RawOption::names)
    }),
    ("cache", |args, parser| {
        parser.into(&mut args.common.cache, RawOption::instance)
    }),
    ("crate", |args, parser| {
        parser.into(&mut args.common.krate, RawOption::path)
    }),
];

const INVALIDATES: OptionTable<InvalidatesArgs> = &[
    ("id", |args, parser| {
        parser.of_target(
            args,
            |target| &mut target.id,
            RawOption::expr,
            "`\"users\", id = id`",
        );
    }),
    ("ids", |args, parser| {
        parser.of_target(
            args,
            |target| &mut target.ids,
            RawOption::expr,
            "`\"users\", ids = ids`",
        );
    }),
    ("ops", |args, parser| {
        parser.of_target(
            args,
            |target| &mut target.ops,
            RawOption::ops,
            "`\"users\", ops(\"list\")`",
        );
    }),
    ("tags", |args, parser| {
        parser.into(&mut args.tags, RawOption::tags)
    }),
    ("on", |args, parser| {
        parser.into(&mut args.on, RawOption::outcome)
    }),
    ("rejected", |args, parser| {
        parser.into(&mut args.rejected, RawOption::expr)
    }),
    ("crash_safe", |args, parser| {
        parser.into(&mut args.crash_safe, RawOption::flag)
    }),
    ("required", |args, parser| {
        parser.into(&mut args.required, RawOption::flag)
    }),
    ("after_commit", |args, parser| {
        parser.into(&mut args.after_commit, RawOption::flag)
    }),
    ("autocommit", |args, parser| {
        parser.into(&mut args.autocommit, RawOption::parameters)
    }),
    ("cache", |args, parser| {
        parser.into(&mut args.common.cache, RawOption::instance)
    }),
    ("crate", |args, parser| {
        parser.into(&mut args.common.krate, RawOption::path)
    }),
];

/// Options of other caching libraries, and ours with the same meaning.
const SYNONYMS: &[(&str, &str)] = &[
    ("duration", "ttl"),
    ("expire", "ttl"),
    ("expires", "ttl"),
    ("expiry", "ttl"),
    ("max_age", "ttl"),
    ("seconds", "ttl"),
    ("time", "ttl"),
    ("time_to_live", "ttl"),
    ("ttl_millis", "ttl"),
    ("ttl_ms", "ttl"),
    ("ttl_seconds", "ttl"),
    ("ttl_secs", "ttl"),
    ("negative_ttl", "none_ttl"),
    ("cache_null", "cache_none"),
    ("unless_null", "cache_none"),
    ("stale_while_revalidate", "swr"),
    ("stale", "swr"),
    ("fail_safe", "stale_if_error"),
    ("load_timeout", "timeout"),
    ("beta", "early"),
    ("ctx", "context"),
    ("bulkhead", "max_loads"),
    ("max_concurrency", "max_loads"),
    ("concurrency", "max_loads"),
    ("memoize", "memo"),
    ("local_only", "in_process"),
    ("in_memory", "in_process"),
    ("cache_name", "resource"),
    ("cache_names", "resource"),
    ("cacheNames", "resource"),
    ("entity", "resource"),
    ("name", "resource"),
    ("namespace", "resource"),
    ("prefix", "resource"),
    ("table", "resource"),
    ("args", "key"),
    ("convert", "key"),
    ("keyGenerator", "key"),
    ("key_generator", "key"),
    // For an attribute without `key`.
    ("key", "id"),
    ("keys", "ids"),
    ("op", "ops"),
    ("exclude", "skip"),
    ("ignore", "skip"),
    ("operation", "op"),
    ("tag", "tags"),
    ("condition", "when"),
    ("if", "when"),
    ("depends_on", "depends"),
    ("format", "codec"),
    ("serializer", "codec"),
];

/// Options of other libraries for which none is needed here, and why.
const NEEDLESS: &[(&[&str], &str)] = &[
    (
        &["sync", "sync_lock", "sync_writes", "single_flight"],
        "one call at a time loads an entry, the others wait for it",
    ),
    (
        &[
            "capacity",
            "max_capacity",
            "max_entries",
            "max_size",
            "size",
        ],
        "the configuration bounds the memory of all entries together, with `CACHE_LOCAL_MB`",
    ),
    (
        &["result"],
        "an `Err` is never kept, and what is in `Ok` is",
    ),
    (
        &["option"],
        "`None` is kept like a value, for `none_ttl`; with `cache_none = false` it is not",
    ),
    (
        &["refresh", "sliding", "time_refresh", "time_to_idle", "tti"],
        "a hit does not prolong an entry; `early` loads anew shortly before its time is over, `swr` after it",
    ),
    (
        &["all_entries", "allEntries"],
        "a resource without `id` is invalidated as a whole",
    ),
    (
        &["before_invocation", "beforeInvocation"],
        "the cache is told after the function, also of errors and of calls that are dropped",
    ),
];

/// An option that is about to be parsed.
struct OptionParser<'e> {
    raw: RawOption,
    errors: &'e mut Errors,
}

impl OptionParser<'_> {
    fn into<T>(self, setting: &mut Setting<T>, read: fn(&RawOption) -> syn::Result<T>) {
        let Self { raw, errors } = self;
        let value = match raw.form {
            Form::Broken => None,
            _ => read(&raw).map_err(|error| errors.absorb(error)).ok(),
        };
        let key = raw.key;
        if !setting.is_absent() {
            errors.on(&key, format!("`{key}` is given twice; keep one of them"));
        } else if let Some(value) = value {
            *setting = Setting::Given { key, value };
        } else {
            *setting = Setting::Broken { key };
        }
    }

    /// An option of the resource before it.
    fn of_target<T>(
        self,
        args: &mut InvalidatesArgs,
        setting: fn(&mut TargetArgs) -> &mut Setting<T>,
        read: fn(&RawOption) -> syn::Result<T>,
        example: &str,
    ) {
        match args.targets.last_mut() {
            Some(target) => self.into(setting(target), read),
            // The resource it belongs to has been reported.
            None if args.broken_target => {}
            None => {
                let key = &self.raw.key;
                let message = format!("`{key}` comes after its resource; write e.g. {example}");
                self.errors.on(key, message);
            }
        }
    }
}

/// Parses the options of `#[cached]`.
pub(crate) fn cached(tokens: TokenStream, errors: &mut Errors) -> CachedArgs {
    let mut args = CachedArgs::default();
    for entry in entries(tokens, errors) {
        match entry {
            Entry::Option(raw) => {
                let key = raw.key.clone();
                let meant = dispatch("cached", CACHED, &mut args, raw, errors);
                // It is not missing, then.
                if meant == Some("resource") && args.resource.is_absent() {
                    args.resource = Setting::Broken { key };
                }
            }
            Entry::Bare(value) => match single_ident(&value).filter(|word| !is_constant(word)) {
                Some(word) => {
                    let raw = RawOption::bare(word.clone());
                    dispatch("cached", CACHED, &mut args, raw, errors);
                }
                None if args.resource.is_absent() => {
                    let raw = value.to_token_stream();
                    let message = format!("this value has no name; write `resource = {raw}`");
                    errors.on(&value, message);
                    args.resource = Setting::Broken {
                        key: Ident::new("resource", Span::call_site()),
                    };
                }
                None => errors.on(&value, "this value has no name; write `option = value`"),
            },
        }
    }
    args
}

/// Parses the resources and options of `#[invalidates]`.
pub(crate) fn invalidates(tokens: TokenStream, errors: &mut Errors) -> InvalidatesArgs {
    let mut args = InvalidatesArgs::default();
    for entry in entries(tokens, errors) {
        let result = match entry {
            Entry::Option(raw) if raw.key == "resource" => {
                Err(raw.error("is not written here; write e.g. `#[invalidates(\"users\")]`"))
            }
            Entry::Option(raw) => {
                dispatch("invalidates", INVALIDATES, &mut args, raw, errors);
                continue;
            }
            Entry::Bare(value) => match single_ident(&value).filter(|word| is_option(word)) {
                Some(word) => {
                    let raw = RawOption::bare(word.clone());
                    dispatch("invalidates", INVALIDATES, &mut args, raw, errors);
                    continue;
                }
                None => match single_ident(&value).and_then(misspelt_flag) {
                    Some((word, flag)) => Err(syn::Error::new_spanned(
                        word,
                        format!("unknown option `{word}`; did you mean `{flag}`?"),
                    )),
                    None => NameKind::Resource.read(&value),
                },
            },
        };
        match result {
            Ok(resource) => args.targets.push(TargetArgs {
                resource,
                id: Setting::Absent,
                ids: Setting::Absent,
                ops: Setting::Absent,
            }),
            Err(error) => {
                args.broken_target = true;
                errors.absorb(error);
            }
        }
    }
    args
}

fn is_option(word: &Ident) -> bool {
    INVALIDATES.iter().any(|(name, _)| word == name)
}

/// The options of `#[invalidates]` that have no value.
const FLAGS: [&str; 3] = ["after_commit", "crash_safe", "required"];

/// A word that is most likely a flag, and no resource without its quotes.
fn misspelt_flag(word: &Ident) -> Option<(&Ident, &'static str)> {
    Some((word, nearest(&word.to_string(), FLAGS)?))
}

/// Reads an option. Returns the option that is meant by one that does not exist, if that is clear.
fn dispatch<A>(
    attribute: &str,
    table: OptionTable<A>,
    args: &mut A,
    raw: RawOption,
    errors: &mut Errors,
) -> Option<&'static str> {
    let name = raw.key.to_string();
    if let Some((_, read)) = table.iter().find(|(option, _)| *option == name) {
        read(args, OptionParser { raw, errors });
        return None;
    }
    let (message, meant) = unknown(attribute, table, &name);
    errors.on(&raw.key, message);
    meant
}

/// The message for an option that does not exist, and the option that is meant.
fn unknown<A>(
    attribute: &str,
    table: OptionTable<A>,
    given: &str,
) -> (String, Option<&'static str>) {
    let instead = |meant: &'static str| {
        let message = format!("unknown option `{given}`; did you mean `{meant}`?");
        (message, Some(meant))
    };
    let knows = |name: &str| table.iter().any(|(option, _)| *option == name);
    let names = || {
        let names = table.iter().map(|(name, _)| *name);
        names.filter(|name| *name != DEFAULT_NONE_TTL)
    };
    let other = match attribute {
        "cached" if INVALIDATES.iter().any(|(name, _)| *name == given) => Some("invalidates"),
        "invalidates" if CACHED.iter().any(|(name, _)| *name == given) => Some("cached"),
        _ => None,
    };
    let synonym = SYNONYMS
        .iter()
        .find(|(word, option)| *word == given && knows(option));
    if let Some((_, meant)) = synonym {
        return instead(meant);
    }
    if let Some(other) = other {
        let message =
            format!("`{given}` is an option of `#[{other}]`; leave it out of `#[{attribute}]`");
        return (message, None);
    }
    if let Some((_, why)) = NEEDLESS.iter().find(|(words, _)| words.contains(&given)) {
        return (format!("unknown option `{given}`; {why}"), None);
    }
    match nearest(given, names()) {
        Some(meant) => instead(meant),
        None => {
            let takes = listed(names());
            let message = format!("unknown option `{given}`; `#[{attribute}]` takes {takes}");
            (message, None)
        }
    }
}

#[cfg(test)]
mod tests;
