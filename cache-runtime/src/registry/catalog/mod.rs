//! The catalog: every annotated function of the program, what it reads or invalidates, and the
//! mistakes that this shows.
//!
//! Functions register themselves at link time, so the catalog is complete before any of them has
//! run. It knows only what the attributes say. A resource given by a constant appears under the
//! constant's name, until [`Catalog::bind`] says what it stands for.

mod check;
mod description;
mod show;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use self::check::is_constant;
#[cfg(feature = "outbox-postgres")]
pub(crate) use self::check::nearest;
pub use self::check::{Lint, LintKind};
use self::description::DescriptionItem;
pub(crate) use self::description::blanked;
use crate::registry::{Role, SITES, Site};

/// All annotated functions that are linked into this program.
///
/// A test of three lines catches a typo such as `#[invalidates("usres")]`:
///
/// ```standalone_crate
/// # use cache_runtime::{cached, invalidates};
/// # #[cached(resource = "users")] async fn get(id: i64) -> Option<String> { let _ = id; None }
/// # #[invalidates("users", id = id)] async fn delete(id: i64) { let _ = id; }
/// # fn main() {
/// let findings = cache_runtime::catalog().check();
/// assert!(findings.is_empty(), "{findings:#?}");
/// # }
/// ```
#[must_use]
pub fn catalog() -> Catalog {
    Catalog::of(SITES.iter())
}

/// The annotated functions of a program, by resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Catalog {
    readers: Vec<CachedFunction>,
    writers: Vec<InvalidatingFunction>,
    /// Resources that the program invalidates by hand.
    #[serde(skip)]
    by_hand: Vec<String>,
}

/// A function under `#[cached]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CachedFunction {
    /// The function's name.
    pub function: String,
    /// The resource; a constant appears in braces, such as `{R::RESOURCE}`.
    pub resource: String,
    /// The part of the key after the resource: `{id: i64}` for an entity, `list` for a derived
    /// entry.
    pub key: String,
    /// The time to live in seconds, or as written; `None` for the default, `CACHE_TTL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Other resources that the value depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// Tags, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether other functions may use the same keys.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether it takes many ids at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// Why a value was not stored: its codec would have lost a part of it. Known after the function
    /// has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The part of an argument that its `Serialize` leaves out, if a call so far has shown one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Whether `none_ttl` or `cache_none` has no effect, since the function never returns `None`.
    /// Known after the function has run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_none: bool,
    /// The place of its attribute.
    pub place: SourceLocation,
}

/// A function under `#[invalidates]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InvalidatingFunction {
    /// The function's name.
    pub function: String,
    /// The resources and rows that it invalidates.
    pub targets: Vec<InvalidationTarget>,
    /// Tags, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether the write is announced before its body runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub crash_safe: bool,
    /// The place of its attribute.
    pub place: SourceLocation,
}

/// A resource or row that a write invalidates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InvalidationTarget {
    /// The resource.
    pub resource: String,
    /// The row, as written; `None` for the whole resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of what is derived only this, if anything is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<String>,
}

/// A line of source code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceLocation {
    /// The file, as the compiler names it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl Catalog {
    fn of<'a>(sites: impl IntoIterator<Item = &'a Site>) -> Self {
        let mut map = Self {
            readers: Vec::new(),
            writers: Vec::new(),
            by_hand: Vec::new(),
        };
        for site in sites {
            let description = description::read(site.description());
            match site.role() {
                Role::Reads => map.readers.extend(CachedFunction::of(site, description)),
                Role::Writes => map
                    .writers
                    .push(InvalidatingFunction::of(site, description)),
            }
        }
        // The linker's order is arbitrary.
        map.readers
            .sort_by(|a, b| (&a.place, &a.function).cmp(&(&b.place, &b.function)));
        map.writers
            .sort_by(|a, b| (&a.place, &a.function).cmp(&(&b.place, &b.function)));
        map
    }

    /// Says which resources a constant stands for. `constant` is written as in the attributes. A
    /// function that is generic over it appears once per resource.
    ///
    /// ```
    /// # #[cfg(any())]
    /// let map = cache_runtime::catalog().bind("R::RESOURCE", [User::RESOURCE, Product::RESOURCE]);
    /// ```
    #[must_use]
    pub fn bind<'a>(
        mut self,
        constant: &str,
        resources: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let braced = format!("{{{constant}}}");
        let names: Vec<&str> = resources.into_iter().collect();
        let each = |text: &str| -> Vec<String> {
            match text == braced {
                true => names.iter().map(|&name| name.to_owned()).collect(),
                false => vec![text.to_owned()],
            }
        };
        let bound = |reader: CachedFunction| {
            let depends = reader.depends.iter().flat_map(|name| each(name)).collect();
            let reader = CachedFunction { depends, ..reader };
            let resources = each(&reader.resource).into_iter();
            resources.map(move |resource| CachedFunction {
                resource,
                ..reader.clone()
            })
        };
        self.readers = self.readers.into_iter().flat_map(bound).collect();
        for writer in &mut self.writers {
            let targets = std::mem::take(&mut writer.targets).into_iter();
            let bound = targets.flat_map(|target| {
                let resources = each(&target.resource).into_iter();
                resources.map(move |resource| InvalidationTarget {
                    resource,
                    id: target.id.clone(),
                    ops: target.ops.clone(),
                })
            });
            writer.targets = bound.collect();
        }
        self
    }

    /// Says that a resource is invalidated by hand, with
    /// [`Cache::invalidate_all`](crate::Cache::invalidate_all) or
    /// [`Cache::invalidate`](crate::Cache::invalidate). The catalog can't see such calls.
    #[must_use]
    pub fn invalidated_by_hand(mut self, resource: &str) -> Self {
        self.by_hand.push(resource.to_owned());
        self
    }

    /// The functions under `#[cached]`, in source order.
    #[must_use]
    pub fn readers(&self) -> &[CachedFunction] {
        &self.readers
    }

    /// The functions under `#[invalidates]`, in source order.
    #[must_use]
    pub fn writers(&self) -> &[InvalidatingFunction] {
        &self.writers
    }

    /// Groups all readers and writers by resource.
    fn by_resource(&self) -> BTreeMap<&str, ResourceUsers<'_>> {
        let mut all: BTreeMap<&str, ResourceUsers<'_>> = BTreeMap::new();
        for reader in &self.readers {
            all.entry(&reader.resource)
                .or_default()
                .readers
                .push(reader);
        }
        for writer in &self.writers {
            for target in &writer.targets {
                let users = all.entry(&target.resource).or_default();
                users.writers.push((writer, target));
            }
        }
        all
    }
}

/// The readers of a resource, and the writers that invalidate it.
#[derive(Default)]
struct ResourceUsers<'a> {
    readers: Vec<&'a CachedFunction>,
    writers: Vec<(&'a InvalidatingFunction, &'a InvalidationTarget)>,
}

impl CachedFunction {
    fn of(site: &Site, description: Vec<DescriptionItem>) -> Option<Self> {
        let mut description = description.into_iter();
        let Some(DescriptionItem::Name {
            resource,
            rest: Some(key),
        }) = description.next()
        else {
            return None;
        };
        let mut reader = Self {
            function: site.function().to_owned(),
            resource,
            key,
            ttl: None,
            depends: Vec::new(),
            tags: Vec::new(),
            not_stored: site.lost().map(str::to_owned),
            left_out: site.left_out().map(str::to_owned),
            never_none: site.has_no_none(),
            shared: false,
            batch: false,
            place: SourceLocation::of(site),
        };
        for word in description {
            match word {
                DescriptionItem::Ttl(ttl) => reader.ttl = Some(ttl),
                DescriptionItem::Depends(name) => reader.depends.push(name),
                DescriptionItem::Tag(tag) => reader.tags.push(tag),
                DescriptionItem::Shared => reader.shared = true,
                DescriptionItem::Batch => reader.batch = true,
                DescriptionItem::Name { .. }
                | DescriptionItem::Op(_)
                | DescriptionItem::CrashSafe => {}
            }
        }
        Some(reader)
    }

    /// Whether it holds rows under their primary id.
    pub(crate) fn is_entity(&self) -> bool {
        self.key.starts_with('{') && !self.key.contains("}:")
    }

    /// The name of its `op`; `None` for rows under their primary id.
    pub(crate) fn op(&self) -> Option<&str> {
        let end = self.key.find(":{").unwrap_or(self.key.len());
        let op = self.key.get(..end).unwrap_or_default();
        (!op.starts_with('{')).then_some(op)
    }

    /// The name of its keys, without the parts that are known only at run time.
    fn claim(&self) -> String {
        format!("{}:{}", self.resource, blanked(&self.key))
    }
}

impl InvalidatingFunction {
    fn of(site: &Site, description: Vec<DescriptionItem>) -> Self {
        let mut writer = Self {
            function: site.function().to_owned(),
            targets: Vec::new(),
            tags: Vec::new(),
            crash_safe: false,
            place: SourceLocation::of(site),
        };
        for word in description {
            match word {
                DescriptionItem::Name { resource, rest } => {
                    writer.targets.push(InvalidationTarget {
                        resource,
                        id: rest,
                        ops: Vec::new(),
                    })
                }
                DescriptionItem::Op(op) => {
                    if let Some(target) = writer.targets.last_mut() {
                        target.ops.push(op);
                    }
                }
                DescriptionItem::Tag(tag) => writer.tags.push(tag),
                DescriptionItem::CrashSafe => writer.crash_safe = true,
                _ => {}
            }
        }
        writer
    }
}

impl SourceLocation {
    fn of(site: &Site) -> Self {
        Self {
            file: site.place().file().to_owned(),
            line: site.place().line(),
        }
    }
}

#[cfg(test)]
pub(crate) fn test_map(sites: &[Site]) -> Catalog {
    Catalog::of(sites)
}
