//! `#[cached]` and `#[invalidates]` on one function: the upper attribute sees the lower one.
//!
//! They may be about different data, since a load may write a log. With the same data, each load
//! would invalidate what it is about to store.

use proc_macro2::TokenStream;
use syn::Path;

use crate::args::{self, CachedArgs, InvalidatesArgs, Name};
use crate::diag::Errors;
use crate::item::Item;
use crate::tokens::text;

/// `#[cached]` on `#[invalidates]`.
pub(super) fn on_writes(read: &CachedArgs, item: &Item, errors: &mut Errors) {
    for (path, options) in below("invalidates", item) {
        // The other attribute reports its own mistakes.
        let write = args::invalidates(options, &mut Errors::default());
        of_the_same(read, &write, path, errors);
    }
}

/// `#[invalidates]` on `#[cached]`.
pub(super) fn on_reads(write: &InvalidatesArgs, item: &Item, errors: &mut Errors) {
    for (path, options) in below("cached", item) {
        let read = args::cached(options, &mut Errors::default());
        of_the_same(&read, write, path, errors);
    }
}

/// The attributes of this name, with their options.
fn below<'a>(name: &str, item: &'a Item) -> impl Iterator<Item = (&'a Path, TokenStream)> {
    item.attrs.iter().filter_map(move |attribute| {
        let last = attribute.path().segments.last()?;
        let options = attribute.meta.require_list().ok()?.tokens.clone();
        (last.ident == name).then(|| (attribute.path(), options))
    })
}

fn of_the_same(read: &CachedArgs, write: &InvalidatesArgs, place: &Path, errors: &mut Errors) {
    let depends = read.depends.value().into_iter().flatten();
    let depends = depends.map(|dependency| &dependency.resource);
    let mut made_of = read.resource.value().into_iter().chain(depends);
    let is_stale = |name: &&Name| {
        let mut stale = write.targets.iter().map(|target| &target.resource);
        stale.any(|resource| text(resource) == text(*name))
    };
    if let Some(both) = made_of.find(is_stale) {
        let both = text(both);
        let both = both.trim_matches('"');
        let message = format!(
            "`#[invalidates]` makes stale what `#[cached]` keeps of `{both}`, so no call would be a hit; make two functions, one that reads and one that writes"
        );
        errors.on(place, message);
    }
}
