//! A deserializer of made-up values.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, VariantAccess, Visitor};
use serde::{Deserializer, Serialize};

use super::access::{Entries, Followed, List, OneVariant, Part};
use super::buffered_probe::BufferedProbe;
use super::endless::{GivenUp, finds, on_own_stack};
use super::error::Stop;
use super::plan::{PathHash, Plan, Taker, step};
use super::sample_value::{Name, Offer, SampleValue};
use super::shape::Schema;
use super::text::{ANY, BYTES, TEXTS};
use crate::base::mutation;
use crate::key::written_names;

/// The most questions for all parts of a type.
const QUESTIONS: usize = 6_000;

/// Reads `T` until a reading finds nothing new, first as from a text format, then as from a binary
/// one: many types have two forms.
pub(super) fn run<T: DeserializeOwned + 'static>() -> Schema {
    all_readings(cfg!(panic = "unwind"), reading::<T>)
}

/// The same, and writes the values that were read: serde's code asks for no field behind `flatten`,
/// and `Serialize` names them all.
pub(super) fn run_and_write<T: Serialize + DeserializeOwned + 'static>() -> Schema {
    all_readings(cfg!(panic = "unwind"), reading_and_writing::<T>)
}

/// The same as where panics abort.
#[cfg(test)]
pub(super) fn run_without_unwinding<T: DeserializeOwned + 'static>() -> Schema {
    all_readings(false, reading::<T>)
}

/// One reading of a type. What calls it is compiled once, and not in each program for each type.
type Reading = fn(&RefCell<Plan>, bool);

fn reading<T: DeserializeOwned>(plan: &RefCell<Plan>, is_readable: bool) {
    // The plan knows more than whether it was read.
    let _ = read::<T>(plan, is_readable);
}

fn reading_and_writing<T: Serialize + DeserializeOwned>(plan: &RefCell<Plan>, is_readable: bool) {
    let Ok(value) = read::<T>(plan, is_readable) else {
        return;
    };
    // Where panics abort, one of its `Serialize` would end the process.
    if cfg!(panic = "unwind") && plan.borrow().wants_names() {
        let mut note = |name| plan.borrow_mut().is_written(name);
        let write = || written_names(&value, step(0, "written"), step, &mut note);
        // A made-up value may break a rule that its `Serialize` relies on. The readings go on.
        let _ = catch_unwind(AssertUnwindSafe(write));
    }
}

fn read<T: DeserializeOwned>(plan: &RefCell<Plan>, is_readable: bool) -> Result<T, Stop> {
    let probe = Probe {
        plan,
        path: step(0, if is_readable { "text" } else { "binary" }),
        depth: 0,
        ty: type_name::<T>(),
        size: size_of::<T>(),
        is_readable,
        is_buffered: false,
        flat: None,
        is_tag: false,
        tag: None,
    };
    probe.attempt(probe.path, |probe| T::deserialize(probe))
}

/// A type's own code may panic at a value that no program would write.
fn guarded(reading: Reading, plan: &RefCell<Plan>, is_readable: bool) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| reading(plan, is_readable)))
}

fn all_readings(unwinds: bool, reading: Reading) -> Schema {
    on_own_stack(unwinds, move || readings(reading))
}

/// Asks the parts that take any value, as from a text format.
fn ask_takers(reading: Reading, plan: &RefCell<Plan>, takers: &[Rc<Taker>]) {
    if mutation::is_active("buffered-fields-unseen") {
        return;
    }
    let left = Cell::new(QUESTIONS);
    for taker in takers {
        let mut ask = |value: &SampleValue| {
            left.set(left.get().checked_sub(1)?);
            plan.borrow_mut().begin_question(taker, value)?;
            let read = guarded(reading, plan, true);
            let errors = plan.borrow_mut().end_question();
            read.ok().and(errors)
        };
        let mut note = |path, what: &str| plan.borrow_mut().fact(path, what);
        let names = plan.borrow().learnt(taker.path);
        BufferedProbe::new(&mut ask, &mut note, names).of(step(taker.path, "asked"));
    }
}

fn readings(reading: Reading) -> Schema {
    let shared = Rc::new(RefCell::new(Plan::default()));
    let found = Rc::clone(&shared);
    // The plan is not borrowed while the type's code runs.
    finds(move || found.try_borrow().map_or(Schema::NONE, |it| it.schema()));
    let plan = &*shared;
    for is_readable in [true, false] {
        loop {
            plan.borrow_mut().begin();
            let before = plan.borrow().before();
            let read = guarded(reading, plan, is_readable);
            if let Err(thrown) = &read {
                let given_up = GivenUp::of(&**thrown);
                let is_endless = given_up.is_some_and(|it| it.is_endless);
                plan.borrow_mut().is_endless |= is_endless;
            }
            // A panic gives no reason, so there is nothing else to offer.
            if read.is_err() || !plan.borrow().goes_on(before) {
                break;
            }
        }
        if is_readable {
            let takers = plan.borrow().takers();
            ask_takers(reading, plan, &takers);
        }
    }
    plan.borrow().schema()
}

/// One place of a type that is being read.
#[derive(Clone, Copy)]
pub(super) struct Probe<'p> {
    pub(super) plan: &'p RefCell<Plan>,
    pub(super) path: PathHash,
    /// How many steps this is from the type as a whole.
    pub(super) depth: usize,
    /// The name of the type that is read here.
    pub(super) ty: &'static str,
    pub(super) size: usize,
    pub(super) is_readable: bool,
    /// Whether this is inside of a part that takes any value, and looks at it later.
    is_buffered: bool,
    /// The struct around this that has flattened parts.
    flat: Option<PathHash>,
    /// Whether this is the tag of an adjacently tagged enum.
    is_tag: bool,
    /// Where the tag was, and which variant it was.
    tag: Option<(PathHash, usize)>,
}

impl Part for Probe<'_> {
    fn at(self, name: &str) -> Self {
        Self {
            path: step(self.path, name),
            ..self.deeper()
        }
    }

    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        let part = Self {
            ty: type_name::<S::Value>(),
            size: size_of::<S::Value>(),
            ..self
        };
        part.attempt(part.path, |part| seed.deserialize(part))
    }

    fn read_tag<'de, S: DeserializeSeed<'de>>(
        self,
        name: &str,
        seed: S,
    ) -> Result<(S::Value, Self), Stop> {
        let tag = Self {
            is_tag: true,
            ..self.at(name)
        };
        let read = tag.attempt_more(|tag| seed.deserialize(tag))?;
        let variant = self.plan.borrow().tag(tag.path);
        let rest = variant.map_or(self, |variant| Self {
            path: step(self.path, &format!("variant {variant}")),
            tag: Some((tag.path, variant)),
            ..self
        });
        Ok((read, rest))
    }

    fn read_tagged<'de, S: DeserializeSeed<'de>>(
        self,
        name: &str,
        seed: S,
    ) -> Result<S::Value, Stop> {
        let part = Self {
            tag: None,
            size: size_of::<S::Value>(),
            ..self.at(name)
        };
        let before = self.plan.borrow().before();
        let read = part.attempt_more(|part| seed.deserialize(part));
        if let Some((tag, variant)) = self.tag {
            let mut plan = self.plan.borrow_mut();
            plan.has_read((tag, self.ty), variant, read.is_ok(), before);
        }
        read
    }
}

impl<'p> Probe<'p> {
    /// Reads a part. If that fails and no part inside it is at fault, this one is.
    pub(super) fn attempt<T>(
        self,
        path: PathHash,
        read: impl FnOnce(Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.plan.borrow_mut().begins_part(self.ty, path);
        let read = read(self);
        self.plan.borrow_mut().ends_part(path, read.is_ok());
        read
    }

    /// The same for a part of the same type, which does not count as being inside itself.
    fn attempt_more<T>(self, read: impl FnOnce(Self) -> Result<T, Stop>) -> Result<T, Stop> {
        self.attempt(self.path, |part| {
            part.plan.borrow_mut().active.pop();
            let read = read(part);
            part.plan.borrow_mut().active.push(part.ty);
            read
        })
    }

    fn note(self, what: &str) -> Result<(), Stop> {
        self.plan.borrow_mut().note(self.path, self.depth, what)
    }

    fn deeper(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    fn note_names(self, names: &[&'static str]) {
        self.plan.borrow_mut().note_names(self.path, names);
    }

    fn choice(self, of: usize) -> usize {
        self.plan.borrow_mut().choice(self.path, of)
    }

    /// Whether the type that is read here contains itself, and is being read inside itself.
    fn recurs(self) -> bool {
        let mut plan = self.plan.borrow_mut();
        let recurs = plan.active.iter().filter(|ty| **ty == self.ty).count() > 1;
        if recurs {
            plan.recurs();
        }
        recurs
    }

    /// The fields of a struct that are offered in this reading.
    fn offered(self, fields: &'static [&'static str]) -> Vec<&'static str> {
        self.note_names(fields);
        let is_large = fields.len() > 2;
        let is_offered = |field: &&&str| {
            let path = self.at(field).path;
            let plan = self.plan.borrow();
            !(plan.is_skipped(path) || is_large && plan.is_aside(path))
        };
        fields.iter().filter(is_offered).copied().collect()
    }

    /// A part of a list or map; `None` if it is not to be offered.
    fn part(self, name: &str) -> Option<Self> {
        let part = self.at(name);
        let is_skipped = self.plan.borrow().is_skipped(part.path);
        (!is_skipped && !self.recurs()).then_some(part)
    }

    /// Offers entries to a struct that has flattened parts, and then its own.
    fn also<'de, V: Visitor<'de>>(
        self,
        value: &SampleValue,
        mut learnt: Vec<&'static str>,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let offer = Offer {
            value,
            is_readable: self.is_readable,
        };
        let entries = value.entries();
        learnt.retain(|name| entries.iter().all(|(given, _)| *given != Name::Text(name)));
        visitor.visit_map(Followed {
            first: offer.entries(entries),
            left: entries.len(),
            then: Entries::new(self, learnt),
        })
    }

    /// Offers a value to a type that accepts anything.
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.plan.borrow_mut().guesses = true;
        let offer = self.plan.borrow_mut().offer(self.path);
        if let Some(value) = offer {
            let is_readable = self.is_readable;
            return Offer {
                value: &value,
                is_readable,
            }
            .deserialize_any(visitor);
        }
        if !self.is_buffered && is_derived::<V>() {
            let mut plan = self.plan.borrow_mut();
            plan.takes_any(self.path, self.flat);
            plan.fact(self.path, &format!("size {}", self.size));
        }
        let learnt = self.plan.borrow().learnt(self.path);
        let choice = self.choice(ANY);
        let inside = Self {
            is_buffered: true,
            ..self
        };
        match choice {
            0 => visitor.visit_map(Entries::new(inside, learnt)),
            1 => visitor.visit_u64(1),
            2 => visitor.visit_borrowed_str("a"),
            3 => visitor.visit_bool(true),
            4 => visitor.visit_unit(),
            5 => visitor.visit_f64(1.5),
            _ => visitor.visit_seq(List::new(inside, 0)),
        }
    }
}

/// Whether serde's derived code visits a value of any type, or of a map, with this visitor.
fn is_derived<V>() -> bool {
    let name = type_name::<V>();
    name.contains("ContentVisitor") || name.contains("::__Visitor")
}

macro_rules! numbers {
    ($($method:ident $visit:ident $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.note($name)?;
            // 1 comes first: some types refuse zero.
            match self.choice(2) {
                0 => visitor.$visit(1 as _),
                _ => visitor.$visit(0 as _),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    numbers! {
        deserialize_i8 visit_i8 "i8";
        deserialize_i16 visit_i16 "i16";
        deserialize_i32 visit_i32 "i32";
        deserialize_i64 visit_i64 "i64";
        deserialize_i128 visit_i128 "i128";
        deserialize_u8 visit_u8 "u8";
        deserialize_u16 visit_u16 "u16";
        deserialize_u32 visit_u32 "u32";
        deserialize_u64 visit_u64 "u64";
        deserialize_u128 visit_u128 "u128";
        deserialize_f32 visit_f32 "f32";
        deserialize_f64 visit_f64 "f64";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("any")?;
        self.any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("bool")?;
        match self.choice(2) {
            0 => visitor.visit_bool(true),
            _ => visitor.visit_bool(false),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("char")?;
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("text")?;
        let choice = self.choice(TEXTS.len());
        visitor.visit_borrowed_str(TEXTS.get(choice).unwrap_or(&""))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("bytes")?;
        let choice = self.choice(BYTES.len());
        visitor.visit_borrowed_bytes(BYTES.get(choice).unwrap_or(&&[][..]))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("option")?;
        match self.part("some") {
            Some(part) => part.attempt_more(|part| visitor.visit_some(part)),
            None => visitor.visit_none(),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("unit")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note("unit struct")?;
        self.note(name)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note("newtype struct")?;
        self.note(name)?;
        visitor.visit_newtype_struct(self.deeper())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("list")?;
        let len = usize::from(self.part("0").is_some());
        visitor.visit_seq(List::new(self, len))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.note("tuple")?;
        self.note(&len.to_string())?;
        visitor.visit_seq(List::new(self, len))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(name)?;
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.note("map")?;
        if is_derived::<V>() {
            // A struct with a flattened part.
            let size = size_of::<V::Value>();
            self.plan
                .borrow_mut()
                .fact(self.path, &format!("size {size}"));
            self.flat = Some(self.path);
        }
        let learnt = self.plan.borrow().learnt(self.path);
        if is_derived::<V>() {
            let offer = self.plan.borrow_mut().offer(self.path);
            if let Some(value) = offer {
                return self.also(&value, learnt, visitor);
            }
            self.plan.borrow_mut().takes_any(self.path, None);
        }
        match self.part("value") {
            // A struct with a flattened part asks for a map, and names its fields only in its
            // errors.
            _ if !learnt.is_empty() => {
                let value = self.at("value").path;
                let has_more = self.plan.borrow().is_on_the_way(value);
                visitor.visit_map(Entries::new(self, learnt).with_any_key(has_more))
            }
            Some(_) => visitor.visit_map(Entries::new(self, Vec::new()).with_any_key(true)),
            None => visitor.visit_map(Entries::new(self, Vec::new())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note("struct")?;
        self.note(name)?;
        let asked = RefCell::new(None);
        let entries = Entries::new(self, self.offered(fields)).asked(&asked);
        let read = visitor.visit_map(entries);
        if let (Err(Stop), Some(field)) = (&read, asked.take()) {
            // The name was refused before its value: it is an alias of a field already read.
            self.plan.borrow_mut().refuse(self.at(field).path);
        }
        read
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note("enum")?;
        self.note(name)?;
        self.note_names(variants);
        if self.recurs() {
            let end = self.plan.borrow().end(self.ty);
            let Some(variant) = end.and_then(|end| variants.get(end)) else {
                return Err(self.plan.borrow_mut().requeue());
            };
            return visitor.visit_enum(OneVariant::new(self.at("inside"), variant));
        }
        let chosen = self
            .plan
            .borrow_mut()
            .variant((self.path, self.ty), variants.len());
        let Some(variant) = variants.get(chosen) else {
            return visitor.visit_enum(OneVariant::new(self, ""));
        };
        if self.is_tag {
            // The variant has been read when its content has.
            return visitor.visit_enum(OneVariant::new(self, variant));
        }
        let before = self.plan.borrow().before();
        let read = visitor.visit_enum(OneVariant::new(self, variant));
        let path = (self.path, self.ty);
        let mut plan = self.plan.borrow_mut();
        plan.has_read(path, chosen, read.is_ok(), before);
        read
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note("name")?;
        // The names of variants, after the type has complained about an unknown one.
        let names = self.plan.borrow().learnt(self.path);
        let choice = self.choice(names.len());
        let name = names.get(choice).copied().unwrap_or("");
        BorrowedStrDeserializer::new(name).deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        self.is_readable
    }
}

impl<'de> VariantAccess<'de> for Probe<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.note("unit")
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.note("newtype")?;
        Part::at(self, "0").read(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.note("tuple")?;
        visitor.visit_seq(List::new(self, len))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        Deserializer::deserialize_struct(self, "", fields, visitor)
    }
}
