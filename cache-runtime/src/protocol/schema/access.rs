//! The parts of a made-up value.

use std::any::type_name;
use std::cell::RefCell;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess};

use super::error::Stop;

/// A place in a type whose parts can be read.
pub(super) trait Part: Copy {
    /// The part with this name.
    fn at(self, name: &str) -> Self;
    /// Reads it as the seed's type.
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop>;
    /// Reads the part with this name as the tag of an adjacently tagged enum. The other parts are
    /// read from the place that is returned.
    fn read_tag<'de, S: DeserializeSeed<'de>>(
        self,
        name: &str,
        seed: S,
    ) -> Result<(S::Value, Self), Stop>;
    /// Reads the part with this name as the content that the tag stands for.
    fn read_tagged<'de, S: DeserializeSeed<'de>>(
        self,
        name: &str,
        seed: S,
    ) -> Result<S::Value, Stop>;
}

/// The elements of a list or tuple.
pub(super) struct List<P> {
    probe: P,
    at: usize,
    len: usize,
}

impl<P> List<P> {
    pub(super) fn new(probe: P, len: usize) -> Self {
        Self { probe, at: 0, len }
    }
}

impl<'de, P: Part> SeqAccess<'de> for List<P> {
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
        part.read(seed).map(Some)
    }
}

/// The entries of a map or struct.
pub(super) struct Entries<'p, P> {
    probe: P,
    names: std::vec::IntoIter<&'static str>,
    /// The name whose value comes next; none for a key of the map's own type.
    name: Option<&'static str>,
    any_key: bool,
    asked: Option<&'p RefCell<Option<&'static str>>>,
    /// Whether the tag of an adjacently tagged enum was read.
    has_tag: bool,
}

impl<'p, P: Part> Entries<'p, P> {
    pub(super) fn new(probe: P, names: Vec<&'static str>) -> Self {
        Self {
            probe,
            names: names.into_iter(),
            name: None,
            any_key: false,
            asked: None,
            has_tag: false,
        }
    }

    /// Begins with an entry of the map's own type of key, which is read too.
    pub(super) fn with_any_key(self, any_key: bool) -> Self {
        Self { any_key, ..self }
    }
}

impl<'p, P: Part> Entries<'p, P> {
    /// Records the name that was read last, until its value is read.
    pub(super) fn asked<'a>(self, asked: &'a RefCell<Option<&'static str>>) -> Entries<'a, P>
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

impl<'de, P: Part> MapAccess<'de> for Entries<'_, P> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        if std::mem::take(&mut self.any_key) {
            return self.probe.at("key").read(seed).map(Some);
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
        let name = self.name.unwrap_or("value");
        if self.has_tag {
            return self.probe.read_tagged(name, seed);
        }
        if type_name::<S>().contains("AdjacentlyTaggedEnumVariantSeed") {
            let (tag, rest) = self.probe.read_tag(name, seed)?;
            self.probe = rest;
            self.has_tag = true;
            return Ok(tag);
        }
        self.probe.at(name).read(seed)
    }
}

/// Some entries, and then others.
pub(super) struct Followed<A, B> {
    pub(super) first: A,
    /// How many entries of the first there are.
    pub(super) left: usize,
    pub(super) then: B,
}

impl<'de, A: MapAccess<'de, Error = Stop>, B: MapAccess<'de, Error = Stop>> MapAccess<'de>
    for Followed<A, B>
{
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        match self.left {
            0 => self.then.next_key_seed(seed),
            _ => self.first.next_key_seed(seed),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        match self.left.checked_sub(1) {
            None => self.then.next_value_seed(seed),
            Some(left) => {
                self.left = left;
                self.first.next_value_seed(seed)
            }
        }
    }
}

/// An enum in one of its variants.
pub(super) struct OneVariant<P> {
    probe: P,
    name: &'static str,
}

impl<P> OneVariant<P> {
    pub(super) fn new(probe: P, name: &'static str) -> Self {
        Self { probe, name }
    }
}

impl<'de, P: Part + VariantAccess<'de, Error = Stop>> EnumAccess<'de> for OneVariant<P> {
    type Error = Stop;
    type Variant = P;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, P), Stop> {
        let name: StrDeserializer<'_, Stop> = StrDeserializer::new(self.name);
        Ok((seed.deserialize(name)?, self.probe.at(self.name)))
    }
}
