//! The parts of a made-up value.

use std::any::type_name;
use std::cell::RefCell;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::error::Stop;
use super::probe::Probe;

/// Reads a part whose type the seed names.
fn read<'de, S: DeserializeSeed<'de>>(part: Probe<'_>, seed: S) -> Result<S::Value, Stop> {
    let part = Probe {
        ty: type_name::<S::Value>(),
        ..part
    };
    part.attempt(part.place, |part| seed.deserialize(part))
}

/// The elements of a list or tuple.
pub(super) struct List<'p> {
    probe: Probe<'p>,
    at: usize,
    len: usize,
}

impl<'p> List<'p> {
    pub(super) fn new(probe: Probe<'p>, len: usize) -> Self {
        Self { probe, at: 0, len }
    }
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        if self.at == self.len {
            return Ok(None);
        }
        let part = self.probe.at(&self.at.to_string());
        self.at += 1;
        read(part, seed).map(Some)
    }
}

/// The entries of a map or struct.
pub(super) struct Entries<'p> {
    probe: Probe<'p>,
    names: std::vec::IntoIter<&'static str>,
    /// The name whose value comes next; none for a key of the map's own type.
    name: Option<&'static str>,
    any_key: bool,
    asked: Option<&'p RefCell<Option<&'static str>>>,
}

impl<'p> Entries<'p> {
    pub(super) fn new(probe: Probe<'p>, names: Vec<&'static str>) -> Self {
        Self {
            probe,
            names: names.into_iter(),
            name: None,
            any_key: false,
            asked: None,
        }
    }

    /// One entry whose key is read as well.
    pub(super) fn of_any_key(probe: Probe<'p>) -> Self {
        Self {
            any_key: true,
            ..Self::new(probe, Vec::new())
        }
    }
}

impl<'p> Entries<'p> {
    /// Tells which name was read last while its value has not been.
    pub(super) fn asked<'a>(self, asked: &'a RefCell<Option<&'static str>>) -> Entries<'a>
    where
        'p: 'a,
    {
        Entries {
            asked: Some(asked),
            ..self
        }
    }

    fn tell(&self, name: Option<&'static str>) {
        if let Some(asked) = self.asked {
            *asked.borrow_mut() = name;
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        if std::mem::take(&mut self.any_key) {
            return read(self.probe.at("key"), seed).map(Some);
        }
        self.name = self.names.next();
        let Some(name) = self.name else {
            return Ok(None);
        };
        self.tell(Some(name));
        let key: BorrowedStrDeserializer<'de, Stop> = BorrowedStrDeserializer::new(name);
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.tell(None);
        let part = self.probe.at(self.name.unwrap_or("value"));
        read(part, seed)
    }
}

/// An enum in one of its variants.
pub(super) struct OneVariant<'p> {
    probe: Probe<'p>,
    name: &'static str,
}

impl<'p> OneVariant<'p> {
    pub(super) fn new(probe: Probe<'p>, name: &'static str) -> Self {
        Self { probe, name }
    }
}

impl<'de, 'p> EnumAccess<'de> for OneVariant<'p> {
    type Error = Stop;
    type Variant = Probe<'p>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Probe<'p>), Stop> {
        let name: StrDeserializer<'_, Stop> = StrDeserializer::new(self.name);
        Ok((seed.deserialize(name)?, self.probe.at(self.name)))
    }
}

impl<'de> VariantAccess<'de> for Probe<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.plan.borrow_mut().note(self.place, "unit")
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.plan.borrow_mut().note(self.place, "newtype")?;
        read(self.at("0"), seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.plan.borrow_mut().note(self.place, "tuple")?;
        visitor.visit_seq(List::new(self, len))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        serde::Deserializer::deserialize_struct(self, "", fields, visitor)
    }
}
