//! The values that a call can return, for code that is compiled once for all types.

use std::any::{Any, TypeId};

use crate::call::returns::Returns;
use crate::local::AnyValue;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::fingerprint::Fingerprint;

/// The type of a call's values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueType {
    pub(crate) id: TypeId,
    /// Finds the fingerprint for a version, and whether the type's shape was known already.
    pub(crate) find_fingerprint: fn(u32) -> (Fingerprint, bool),
}

impl ValueType {
    pub(crate) fn of<V: Cacheable>() -> Self {
        Self {
            id: TypeId::of::<V>(),
            find_fingerprint: Fingerprint::find::<V>,
        }
    }
}

/// The values that a call can return.
// It fits into two registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returnable {
    /// The type of its values. Only calls that are not answered at once ask for it.
    pub(crate) value_type: fn() -> ValueType,
    /// Whether it can return an absence.
    pub(crate) absence: bool,
}

impl Returnable {
    /// Those of a call that returns `R`.
    #[inline]
    pub(super) fn of<R: Returns<S>, S>() -> Self {
        Self {
            value_type: ValueType::of::<R::Value>,
            absence: R::from_absence().is_some(),
        }
    }

    /// Returns true if the call can return this value, or an absence for `None`.
    #[inline]
    pub(crate) fn takes(&self, value: Option<&AnyValue>) -> bool {
        match value {
            Some(value) => Any::type_id(&**value) == (self.value_type)().id,
            None => self.absence,
        }
    }
}
