//! Lints: mistakes that a program's annotations show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::description::blanked;
use super::{CachedFunction, Catalog, SourceLocation};

/// A longer ttl, on a resource that nothing invalidates, is most likely a mistake.
const LONG: u64 = 3600;

/// A likely mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lint {
    /// The kind of mistake, for code that branches on it.
    pub kind: LintKind,
    /// The fault, and the fix.
    pub text: String,
    /// The place of the attribute.
    pub place: SourceLocation,
}

/// The kind of a [`Lint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LintKind {
    /// A function invalidates a resource, an `op` or a tag that no cached function has.
    NeverCached,
    /// A function caches a resource for more than an hour, and nothing invalidates it.
    NeverInvalidated,
    /// Two functions use the same keys.
    TwoClaimants,
    /// The ids of a resource are numbers in one function and texts in another.
    IdTypes,
    /// Two functions store the same entries with different times to live.
    Ttls,
    /// A value was not stored, since it would have come back changed, or not at all. Known after
    /// the function has run.
    NotStored,
    /// The `Serialize` of an argument leaves out what tells calls apart. Known after the function
    /// has run.
    NotInKey,
    /// An option has no effect: `none_ttl` or `cache_none` on a function that never returns `None`.
    /// Known after the function has run.
    NoEffect,
}

impl LintKind {
    /// The kind's name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverCached => "never_cached",
            Self::NeverInvalidated => "never_invalidated",
            Self::TwoClaimants => "two_claimants",
            Self::IdTypes => "id_types",
            Self::Ttls => "ttls",
            Self::NotStored => "not_stored",
            Self::NotInKey => "not_in_key",
            Self::NoEffect => "no_effect",
        }
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.file, self.place.line, self.text)
    }
}

impl Catalog {
    /// The likely mistakes of the program, in source order; empty if there are none.
    #[must_use]
    pub fn check(&self) -> Vec<Lint> {
        let mut findings = self.never_cached();
        findings.extend(self.ops_never_cached());
        findings.extend(self.never_invalidated());
        findings.extend(self.two_claimants());
        findings.extend(self.id_types());
        findings.extend(self.not_stored());
        findings.extend(self.not_in_key());
        findings.extend(self.without_effect());
        findings.sort_by(|a, b| (&a.place, a.kind).cmp(&(&b.place, b.kind)));
        findings
    }

    /// The `ops(..)` of writers that no reader of the resource has. Where the program has no reader
    /// of the resource at all, its ops are those of another program.
    pub(crate) fn ops_never_cached(&self) -> Vec<Lint> {
        let mut findings = Vec::new();
        for writer in &self.writers {
            for target in writer
                .targets
                .iter()
                .filter(|target| !target.ops.is_empty())
            {
                let name = &target.resource;
                let readers = || self.readers.iter().filter(|it| it.resource == *name);
                let ops: BTreeSet<&str> = readers().filter_map(CachedFunction::op).collect();
                if is_constant(name) || readers().next().is_none() {
                    continue;
                }
                for op in target.ops.iter().filter(|op| !ops.contains(op.as_str())) {
                    let fix = nearest(op, ops.iter().copied()).map_or_else(
                        || "name one that is, or leave it out".to_owned(),
                        |meant| format!("did you mean `{meant}`?"),
                    );
                    findings.push(Lint {
                        kind: LintKind::NeverCached,
                        text: format!(
                            "`{}` invalidates `op = \"{op}\"` of `{name}`, and no function caches that; {fix}",
                            writer.function
                        ),
                        place: writer.place.clone(),
                    });
                }
            }
        }
        findings
    }

    fn never_cached(&self) -> Vec<Lint> {
        let resources: BTreeSet<&str> = self
            .readers
            .iter()
            .flat_map(|reader| std::iter::once(&reader.resource).chain(&reader.depends))
            .map(String::as_str)
            .collect();
        let tags: BTreeSet<String> = self
            .readers
            .iter()
            .flat_map(|reader| &reader.tags)
            .map(|tag| blanked(tag))
            .collect();
        let mut findings = Vec::new();
        for writer in &self.writers {
            let function = &writer.function;
            let mut report = |what: String, meant: Option<&str>| {
                let fix = meant.map_or_else(
                    || "name one that is, or leave it out".to_owned(),
                    |meant| format!("did you mean `{meant}`?"),
                );
                findings.push(Lint {
                    kind: LintKind::NeverCached,
                    text: format!(
                        "`{function}` invalidates {what}, and no function caches that; {fix}"
                    ),
                    place: writer.place.clone(),
                });
            };
            for target in &writer.targets {
                let name = target.resource.as_str();
                if !resources.contains(name) && !is_constant(name) {
                    let meant = nearest(name, resources.iter().copied());
                    report(format!("`{name}`"), meant);
                }
            }
            for tag in &writer.tags {
                // A tag that is one expression could be any tag.
                let wanted = blanked(tag);
                if !tags.contains(&wanted) && !tags.contains("{}") && wanted != "{}" {
                    let meant = nearest(&wanted, tags.iter().map(String::as_str));
                    report(format!("the tag `{tag}`"), meant);
                }
            }
        }
        findings
    }

    /// Whether this program invalidates what `reader` caches, by attribute or by hand.
    pub(crate) fn reaches(&self, reader: &CachedFunction) -> bool {
        let targets = || self.writers.iter().flat_map(|writer| &writer.targets);
        let tags = || self.writers.iter().flat_map(|writer| &writer.tags);
        targets().any(|target| target.resource == reader.resource)
            || self.by_hand.contains(&reader.resource)
            || reader
                .tags
                .iter()
                .any(|tag| tags().any(|other| blanked(other) == blanked(tag)))
    }

    fn never_invalidated(&self) -> Vec<Lint> {
        self.readers
            .iter()
            .filter(|reader| seconds(reader).is_some_and(|ttl| ttl > LONG) && !self.reaches(reader))
            .map(|reader| Lint {
                kind: LintKind::NeverInvalidated,
                text: format!(
                    "`{}` caches `{}` for {} seconds, and no function invalidates it; \
                     add `#[invalidates(\"{}\")]` to the function that writes it, \
                     or call `invalidated_by_hand`",
                    reader.function,
                    reader.resource,
                    reader.ttl.as_deref().unwrap_or_default(),
                    reader.resource,
                ),
                place: reader.place.clone(),
            })
            .collect()
    }

    /// Also finds different times to live of functions that share keys on purpose.
    fn two_claimants(&self) -> Vec<Lint> {
        let mut claims: BTreeMap<String, Vec<&CachedFunction>> = BTreeMap::new();
        for reader in &self.readers {
            claims.entry(reader.claim()).or_default().push(reader);
        }
        let mut findings = Vec::new();
        for (key, readers) in claims {
            // The first function in the source counts as the owner.
            let Some((owner, others)) = readers.split_first() else {
                continue;
            };
            for other in others {
                let may = owner.batch || other.batch || (owner.shared && other.shared);
                if !may {
                    findings.push(Lint {
                        kind: LintKind::TwoClaimants,
                        text: format!(
                            "`{}` and `{}` ({}:{}) both claim the keys `{key}`; \
                             give one an `op` of its own, \
                             or write `shared` on both if they return the same",
                            other.function, owner.function, owner.place.file, owner.place.line,
                        ),
                        place: other.place.clone(),
                    });
                } else if owner.ttl != other.ttl {
                    let ttl = |reader: &CachedFunction| {
                        reader.ttl.clone().unwrap_or("the default".into())
                    };
                    findings.push(Lint {
                        kind: LintKind::Ttls,
                        text: format!(
                            "`{}` stores `{key}` for {}, `{}` ({}:{}) for {}; give them one `ttl`",
                            other.function,
                            ttl(other),
                            owner.function,
                            owner.place.file,
                            owner.place.line,
                            ttl(owner),
                        ),
                        place: other.place.clone(),
                    });
                }
            }
        }
        findings
    }

    /// The values that were not stored so far.
    fn not_stored(&self) -> impl Iterator<Item = Lint> {
        self.readers.iter().filter_map(|reader| {
            let reason = reader.not_stored.as_ref()?;
            Some(Lint {
                kind: LintKind::NotStored,
                text: format!("`{}` is not cached: {reason}", reader.function),
                place: reader.place.clone(),
            })
        })
    }

    /// The arguments so far whose keys do not tell them apart.
    fn not_in_key(&self) -> impl Iterator<Item = Lint> {
        self.readers.iter().filter_map(|reader| {
            let left_out = reader.left_out.as_ref()?;
            Some(Lint {
                kind: LintKind::NotInKey,
                text: format!(
                    "the key of `{}` does not tell all calls apart: {left_out}; list what does with \
                     `key(..)`",
                    reader.function
                ),
                place: reader.place.clone(),
            })
        })
    }

    /// The options so far that have shown to have no effect.
    fn without_effect(&self) -> impl Iterator<Item = Lint> {
        let readers = self.readers.iter().filter(|reader| reader.never_none);
        readers.map(|reader| Lint {
            kind: LintKind::NoEffect,
            text: format!(
                "`none_ttl` and `cache_none` have no effect on `{}`, which never returns `None`; \
                 return an `Option`, or leave the option out",
                reader.function
            ),
            place: reader.place.clone(),
        })
    }

    fn id_types(&self) -> Vec<Lint> {
        let readers = self.readers.iter().filter(|reader| reader.is_entity());
        let read = readers.map(|reader| {
            (
                &reader.resource,
                &reader.key,
                &reader.function,
                &reader.place,
            )
        });
        let written = self.writers.iter().flat_map(|writer| {
            writer.targets.iter().filter_map(move |target| {
                let id = target.id.as_ref()?;
                Some((&target.resource, id, &writer.function, &writer.place))
            })
        });
        let mut first: BTreeMap<&str, (IdKind, &str, &SourceLocation)> = BTreeMap::new();
        let mut findings = Vec::new();
        for (resource, id, function, place) in read.chain(written) {
            let Some(kind) = IdKind::of(id) else {
                continue;
            };
            let (known, owner, there) =
                *first
                    .entry(resource)
                    .or_insert((kind, function.as_str(), place));
            if known != kind {
                findings.push(Lint {
                    kind: LintKind::IdTypes,
                    text: format!(
                        "`{function}` has ids of `{resource}` that are {}, \
                         and `{owner}` ({}:{}) has {}; use one type for both",
                        kind.as_str(),
                        there.file,
                        there.line,
                        known.as_str(),
                    ),
                    place: place.clone(),
                });
            }
        }
        findings
    }
}

/// The kinds of ids that differ in a key, and that the name of a type shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdKind {
    Numbers,
    Texts,
}

impl IdKind {
    /// The kind of an id such as `{id: i64}`.
    fn of(id: &str) -> Option<Self> {
        let (_, ty) = id.strip_prefix('{')?.strip_suffix('}')?.rsplit_once(": ")?;
        match ty {
            "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u8" | "u16" | "u32" | "u64"
            | "u128" | "usize" => Some(Self::Numbers),
            "str" | "String" | "Box<str>" | "Arc<str>" => Some(Self::Texts),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Texts => "texts",
        }
    }
}

fn seconds(reader: &CachedFunction) -> Option<u64> {
    reader.ttl.as_ref()?.parse().ok()
}

/// Whether a name is a constant whose resource the catalog does not know.
pub(crate) fn is_constant(name: &str) -> bool {
    name.starts_with('{')
}

/// The name with the smallest edit distance to `given`, if that distance is small.
pub(crate) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, _)| *distance <= given.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::super::test_map;
    use super::*;
    use crate::registry::{Role, Site};

    fn reads(function: &'static str, words: &'static str) -> Site {
        Site::new(Role::Reads, function, words)
    }

    fn writes(function: &'static str, words: &'static str) -> Site {
        Site::new(Role::Writes, function, words)
    }

    fn found(sites: &[Site]) -> Vec<(LintKind, String)> {
        let findings = test_map(sites).check().into_iter();
        findings
            .map(|finding| (finding.kind, finding.text))
            .collect()
    }

    #[test]
    fn a_program_in_order_has_no_findings() {
        assert_eq!(
            found(&[
                reads("get", "users:{id: i64}, ttl 86400"),
                reads("get_many", "users:{ids: i64}, ttl 86400, a batch"),
                reads(
                    "list",
                    "users:list, ttl 86400, depends teams, tag t:{self.team}"
                ),
                reads("rates", "rates:all, ttl 3600"),
                writes("rename", "users:{id: UserId}, teams, tag t:{team}"),
                reads("row", "{R::RESOURCE}:{id: i64}, ttl 86400"),
                writes("delete", "{R::RESOURCE}:{id: i64}"),
            ]),
            []
        );
    }

    #[test]
    fn a_slip_in_a_name_is_found() {
        let found = found(&[
            reads("get", "users:{id: i64}"),
            reads("by_team", "users:by-team, tag team:{team}"),
            writes("rename", "usres, tag taem:{id}"),
            writes("audit", "log"),
        ]);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "`audit` invalidates `log`, and no function caches that; name one that is, or leave it out",
                "`rename` invalidates `usres`, and no function caches that; did you mean `users`?",
                "`rename` invalidates the tag `taem:{id}`, and no function caches that; did you mean `team:{}`?",
            ]
        );
    }

    #[test]
    fn a_slip_in_an_op_is_found() {
        let found = found(&[
            reads("get", "users:{id: i64}"),
            reads("list", "users:list"),
            reads("avatar", "users:avatar:{id: i64}"),
            reads("pages", "users:filter:paginated"),
            reads("row", "{R::RESOURCE}:all"),
            writes(
                "good",
                "users:{id: i64}, op list, op avatar, op filter:paginated",
            ),
            writes("slip", "users, op lits"),
            writes("part", "users, op filter"),
            writes("generic", "{R::RESOURCE}, op anything"),
        ]);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "`part` invalidates `op = \"filter\"` of `users`, and no function caches that; name one that is, or leave it out",
                "`slip` invalidates `op = \"lits\"` of `users`, and no function caches that; did you mean `list`?",
            ]
        );
    }

    #[test]
    fn entries_kept_long_and_never_invalidated_are_found() {
        let sites = [
            reads("rates", "rates:all, ttl 86400"),
            reads("tagged", "reports:all, ttl 86400, tag year:{year}"),
            writes("close", "tag year:{y}"),
        ];
        let kinds: Vec<_> = found(&sites).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [LintKind::NeverInvalidated]);
        let by_hand = test_map(&sites).invalidated_by_hand("rates");
        assert_eq!(by_hand.check(), []);
    }

    #[test]
    fn two_claimants_are_found_unless_they_share() {
        for (a, b, expected) in [
            ("users:list", "users:list", Some(LintKind::TwoClaimants)),
            (
                "users:{id: i64}",
                "users:{user.id}",
                Some(LintKind::TwoClaimants),
            ),
            (
                "users:list, keys shared",
                "users:list",
                Some(LintKind::TwoClaimants),
            ),
            ("users:list, keys shared", "users:list, keys shared", None),
            (
                "users:list, ttl 5, keys shared",
                "users:list, keys shared",
                Some(LintKind::Ttls),
            ),
            (
                "users:{id: i64}",
                "users:{ids: i64}, ttl 5, a batch",
                Some(LintKind::Ttls),
            ),
            ("users:a:{id: i64}", "users:b:{id: i64}", None),
        ] {
            let kinds = found(&[reads("a", a), reads("b", b)])
                .into_iter()
                .map(|(kind, _)| kind);
            assert_eq!(
                kinds.collect::<Vec<_>>(),
                Vec::from_iter(expected),
                "{a} / {b}"
            );
        }
    }

    #[test]
    fn ids_of_two_kinds_are_found() {
        let found = found(&[
            reads("get", "users:{id: i64}"),
            writes("delete", "users:{id: str}"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, LintKind::IdTypes);
    }

    #[test]
    fn a_bound_constant_is_each_of_its_resources() {
        let map = test_map(&[
            reads("get", "{R::RESOURCE}:{id: i64}, depends {R::RESOURCE}"),
            writes("delete", "{R::RESOURCE}, log"),
        ])
        .bind("R::RESOURCE", ["users", "products"]);
        let resources: Vec<&str> = map.readers().iter().map(|r| r.resource.as_str()).collect();
        assert_eq!(resources, ["users", "products"]);
        assert_eq!(map.readers()[0].depends, ["users", "products"]);
        let targets: Vec<&str> = map.writers()[0]
            .targets
            .iter()
            .map(|t| t.resource.as_str())
            .collect();
        assert_eq!(targets, ["users", "products", "log"]);
    }
}
