//! Made-up values that are offered to a part which takes any value.

use serde::de::value::{
    BorrowedStrDeserializer, MapAccessDeserializer, MapDeserializer, SeqDeserializer,
};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::endless;
use super::error::Stop;

/// A made-up value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SampleValue {
    Nothing,
    Text(&'static str),
    Number,
    Bool,
    Float,
    List(Vec<SampleValue>),
    Map(Vec<(Name, SampleValue)>),
}

impl SampleValue {
    /// Those of a map.
    pub(super) fn entries(&self) -> &[(Name, SampleValue)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// The key of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Name {
    Text(&'static str),
    /// Derived types know their fields by name and by position, since binary formats write these.
    Position(u64),
    /// No derived struct takes this key.
    Refused,
}

/// A deserializer of a made-up value.
#[derive(Clone, Copy)]
pub(super) struct Offer<'m> {
    pub(super) value: &'m SampleValue,
    pub(super) is_readable: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Key(Name);

impl<'m> Offer<'m> {
    fn of(self, value: &'m SampleValue) -> Self {
        Self { value, ..self }
    }

    pub(super) fn entries<'de>(
        self,
        entries: &'m [(Name, SampleValue)],
    ) -> MapDeserializer<'de, impl Iterator<Item = (Key, Self)>, Stop> {
        MapDeserializer::new(
            entries
                .iter()
                .map(move |(name, value)| (Key(*name), self.of(value))),
        )
    }
}

impl<'de> IntoDeserializer<'de, Stop> for Offer<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> IntoDeserializer<'de, Stop> for Key {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Offer<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        endless::asked();
        match self.value {
            SampleValue::Nothing => visitor.visit_unit(),
            SampleValue::Text(text) => visitor.visit_borrowed_str(text),
            SampleValue::Number => visitor.visit_u64(1),
            SampleValue::Bool => visitor.visit_bool(true),
            SampleValue::Float => visitor.visit_f64(1.5),
            SampleValue::List(parts) => {
                visitor.visit_seq(SeqDeserializer::new(parts.iter().map(|part| self.of(part))))
            }
            SampleValue::Map(entries) => visitor.visit_map(self.entries(entries)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            SampleValue::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.value {
            SampleValue::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            SampleValue::Map(entries) => {
                visitor.visit_enum(MapAccessDeserializer::new(self.entries(entries)))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        self.is_readable
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

impl<'de> Deserializer<'de> for Key {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.0 {
            Name::Text(name) => visitor.visit_borrowed_str(name),
            Name::Position(position) => visitor.visit_u64(position),
            Name::Refused => visitor.visit_bool(true),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier option enum
        ignored_any
    }
}
