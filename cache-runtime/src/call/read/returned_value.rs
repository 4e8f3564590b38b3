//! The return value of a body, for code that does not know its type.
//!
//! The same as [`answer_slot`](super::answer_slot) in the other direction: what hands the value to
//! waiters, checks it and stores it is compiled once.

use std::any::TypeId;
use std::marker::PhantomData;

use super::audit::audited_hit::Audited;
use super::audit::{Compared, compare};
use super::call::Call;
use super::new_entry::NewEntry;
use super::store_filter::StoreFilter;
use crate::call::returns::{Loaded, Returns};
use crate::coalesce::single_flight::LoadResult;

/// The return value of a body.
pub(super) trait ReturnedValue {
    /// The type of the values.
    fn type_id(&self) -> TypeId;
    /// Whether the body has failed.
    fn has_failed(&self) -> bool;
    /// The load result for others, each of whom gets a clone of a value.
    fn for_waiters(&self, call: &Call) -> Option<LoadResult>;
    /// Returns the entry, if it may be stored. Asks the function's own filter, once.
    fn pack(&mut self, call: &Call) -> Option<NewEntry>;
    /// Compares a hit with it.
    fn compare(&self, hit: Audited, call: &Call) -> Compared;
}

/// A return value of shape `S`.
pub(super) struct Returned<'r, R, S, U> {
    returned: &'r R,
    unless: Option<U>,
    shape: PhantomData<fn() -> S>,
}

impl<'r, R, S, U> Returned<'r, R, S, U> {
    pub(super) fn new(returned: &'r R, unless: U) -> Self {
        Self {
            returned,
            unless: Some(unless),
            shape: PhantomData,
        }
    }
}

impl<R: Returns<S>, S, U: StoreFilter<R::Value>> ReturnedValue for Returned<'_, R, S, U> {
    fn type_id(&self) -> TypeId {
        TypeId::of::<R::Value>()
    }

    fn has_failed(&self) -> bool {
        matches!(self.returned.loaded(), Loaded::Failed)
    }

    fn for_waiters(&self, call: &Call) -> Option<LoadResult> {
        call.result_for_waiters(self.returned)
    }

    fn pack(&mut self, call: &Call) -> Option<NewEntry> {
        call.pack(self.returned, self.unless.take()?)
    }

    fn compare(&self, hit: Audited, call: &Call) -> Compared {
        compare(hit, call, self.returned)
    }
}
