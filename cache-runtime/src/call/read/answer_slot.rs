//! Where the answer of a call is put, by code that does not know its type.
//!
//! The code that looks up, waits, decides and counts is compiled once, in this crate. Each type of
//! values only adds an [`AnswerSlot`]: the compiler would otherwise make a copy of that code, in
//! each program, for each return type.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::call::Call;
use super::hit::Hit;
use super::returnable::ValueType;
use crate::call::returns::Returns;
use crate::coalesce::single_flight::LoadResult;
use crate::local::AnyValue;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{self, Compare};
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::Content;
use crate::protocol::packable::Packed;
use crate::store::Payload;

/// The slot for the answer of one call.
pub(super) trait AnswerSlot: Send {
    /// The type of the values.
    fn value_type(&self) -> ValueType;
    /// Decodes a value. Returns false if it does not decode.
    fn decode(&mut self, codec: CodecId, bytes: &Bytes) -> bool;
    /// Takes a value that others have as well. Returns false if it is of another type.
    fn take_shared(&mut self, value: AnyValue) -> bool;
    /// Takes an absence. Returns false if the return type can't express it.
    fn take_absence(&mut self) -> bool;
    /// The answer, so that others can have it as well. A value is cloned if it is not shared yet.
    fn share(&self) -> Option<LoadResult>;
    /// The same for later calls of a request, if each of them may get a clone.
    fn for_request(&self, call: &Call) -> Option<LoadResult>;
    /// The value behind a pointer, to be kept and returned; `None` without one.
    fn keep(&mut self) -> Option<AnyValue>;
}

impl dyn AnswerSlot + '_ {
    /// Takes what an entry has. Returns false if it is not of this type.
    pub(super) fn restore(&mut self, hit: &Hit) -> bool {
        match (hit.header.content.plain(), &hit.payload) {
            (Content::Absence, _) => self.take_absence(),
            (Content::Value, Payload::Encoded(bytes)) => {
                match codec::decompress(hit.header.codec, bytes) {
                    Some((codec, bytes)) => self.decode(codec, &bytes),
                    None => false,
                }
            }
            (Content::Value, Payload::Decoded(value)) => self.take_shared(Arc::clone(value)),
            // A hit has none of these.
            (Content::Value, Payload::Empty)
            | (Content::Nothing | Content::ListedValue | Content::ListedAbsence, _) => false,
        }
    }

    /// Takes the result of another caller's load. Returns false if it has failed, or is not of this
    /// type.
    pub(super) fn arrived(&mut self, load_result: LoadResult) -> bool {
        match load_result {
            LoadResult::Failure => false,
            LoadResult::Absence => self.take_absence(),
            LoadResult::Value(value) => self.take_shared(value),
        }
    }
}

/// The slot for values of type `V`, which are compared by `C`.
#[derive(Debug)]
pub(super) struct Slot<V, C> {
    answer: Option<SlotAnswer<V>>,
    /// Whether the return type can express an absence.
    absence: bool,
    /// Whether the return type has the value behind a pointer.
    shares: bool,
    compare: PhantomData<fn() -> C>,
}

#[derive(Debug)]
enum SlotAnswer<V> {
    Absent,
    Own(V),
    Shared(Arc<V>),
}

impl<V: Cacheable, C: Compare<V>> Slot<V, C> {
    /// An empty slot for a call that returns `R`.
    pub(super) fn of<R: Returns<S, Value = V, Compare = C>, S>() -> Self {
        Self {
            answer: None,
            absence: R::from_absence().is_some(),
            shares: R::SHARES,
            compare: PhantomData,
        }
    }

    /// The return value for the answer, if there is one.
    pub(super) fn returned<R: Returns<S, Value = V>, S>(self) -> Option<R> {
        match self.answer? {
            SlotAnswer::Absent => R::from_absence(),
            SlotAnswer::Own(value) => Some(R::from_own(value)),
            SlotAnswer::Shared(value) => Some(R::from_value(value)),
        }
    }

    fn put(&mut self, value: Option<SlotAnswer<V>>) -> bool {
        self.answer = value;
        self.answer.is_some()
    }
}

impl<V: Cacheable, C: Compare<V>> AnswerSlot for Slot<V, C> {
    fn value_type(&self) -> ValueType {
        ValueType::of::<V>()
    }

    fn decode(&mut self, codec: CodecId, bytes: &Bytes) -> bool {
        let value = super::call::decoded::<V>(codec, bytes);
        let shares = self.shares;
        self.put(value.map(|value| match shares {
            true => SlotAnswer::Shared(Arc::new(value)),
            false => SlotAnswer::Own(value),
        }))
    }

    fn take_shared(&mut self, value: AnyValue) -> bool {
        self.put(value.downcast().ok().map(SlotAnswer::Shared))
    }

    fn take_absence(&mut self) -> bool {
        self.put(self.absence.then_some(SlotAnswer::Absent))
    }

    fn share(&self) -> Option<LoadResult> {
        Some(match self.answer.as_ref()? {
            SlotAnswer::Absent => LoadResult::Absence,
            SlotAnswer::Own(value) => LoadResult::Value(Arc::new(value.clone())),
            SlotAnswer::Shared(value) => LoadResult::Value(Arc::clone(value) as AnyValue),
        })
    }

    fn for_request(&self, call: &Call) -> Option<LoadResult> {
        let (value, shared) = match self.answer.as_ref()? {
            SlotAnswer::Absent => return Some(LoadResult::Absence),
            SlotAnswer::Own(value) => (value, None),
            SlotAnswer::Shared(value) => (&**value, Some(value)),
        };
        let share = || Some(shared.map_or_else(|| Arc::new(value.clone()), Arc::clone));
        call.value_for_waiters(&Packed::<V, C>::new(value, &share))
    }

    fn keep(&mut self) -> Option<AnyValue> {
        let value = match self.answer.take()? {
            SlotAnswer::Absent => {
                self.answer = Some(SlotAnswer::Absent);
                return None;
            }
            SlotAnswer::Own(value) => Arc::new(value),
            SlotAnswer::Shared(value) => value,
        };
        self.answer = Some(SlotAnswer::Shared(Arc::clone(&value)));
        Some(value)
    }
}

/// The return value for the result of another caller's load, or for a hit that was audited.
pub(super) fn answer<R: Returns<S>, S>(load_result: LoadResult) -> Option<R> {
    let mut slot = Slot::of::<R, S>();
    let slot_of_any: &mut dyn AnswerSlot = &mut slot;
    slot_of_any.arrived(load_result);
    slot.returned()
}
