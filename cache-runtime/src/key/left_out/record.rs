//! Records what a value serialises to, with the type, size and address of each part.

use serde::ser::{self, Serialize, Serializer};

use super::facts::Subject;
use super::written_for::WrittenFor;
use crate::key::error::ElementOrder;

/// One value, as it was serialised.
#[derive(Debug)]
pub(crate) struct Node {
    /// The name of the value's type.
    pub(super) ty: &'static str,
    /// The type, in the facts from `Debug` and in those from sizes.
    pub(super) subjects: [Subject; 2],
    pub(super) start: usize,
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) data: Data,
}

impl Node {
    /// Whether this is a type without a value (`PhantomData`), which `Debug` shows and serde may
    /// skip.
    fn is_phantom(&self) -> bool {
        self.ty.starts_with("core::marker::PhantomData<")
    }
}

/// The serialised form of a value. A tuple's number is the number of parts that its type announced.
#[derive(Debug)]
pub(super) enum Data {
    /// `size` is that of a number's or flag's type; 0 for texts.
    Leaf {
        text: String,
        size: usize,
    },
    Unit,
    UnitStruct(&'static str),
    None,
    Some(Box<Node>),
    Newtype(&'static str, Box<Node>),
    Struct(&'static str, Fields),
    TupleStruct(&'static str, usize, Vec<Node>),
    /// A list, set, array or tuple.
    Items(Vec<Node>, ElementOrder),
    /// `None`: it is written by hand, and nobody sees what its order is worth.
    Map(Vec<(Node, Node)>, Option<ElementOrder>),
    UnitVariant(Variant),
    NewtypeVariant(Variant, Box<Node>),
    TupleVariant(Variant, usize, Vec<Node>),
    StructVariant(Variant, Fields),
}

/// A variant of an enum. Two of them may have one name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    /// The name of the enum.
    pub(super) of: &'static str,
    pub(super) index: u32,
    pub(super) name: &'static str,
}

/// The fields of a struct.
#[derive(Debug)]
pub(super) struct Fields {
    /// How many fields the type announced.
    pub(super) said: usize,
    /// The same without fields of types that have no value.
    pub(super) len: usize,
    /// `None` for a field that this value leaves out.
    pub(super) all: Vec<(&'static str, Option<Node>)>,
}

/// Deeper values are not examined.
const DEEPEST: usize = 64;

/// Records a value. `None` if it can't be serialised, or is nested too deeply.
pub(crate) fn record<T: Serialize + ?Sized>(value: &T, form: WrittenFor) -> Option<Node> {
    node(value, 0, form).ok()
}

fn node<T: Serialize + ?Sized>(value: &T, depth: usize, form: WrittenFor) -> Result<Node, Failed> {
    if depth > DEEPEST {
        return Err(Failed);
    }
    Ok(Node {
        ty: std::any::type_name::<T>(),
        subjects: Subject::both(typeid::of::<T>(), form),
        start: std::ptr::from_ref(value).cast::<()>().addr(),
        size: size_of_val(value),
        align: align_of_val(value),
        data: value.serialize(Recorder {
            depth: depth + 1,
            form,
        })?,
    })
}

#[derive(Debug)]
pub(super) struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("can't be recorded")
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Recorder {
    depth: usize,
    form: WrittenFor,
}

impl Recorder {
    fn many(self, name: Name, len: usize) -> Many {
        Many {
            depth: self.depth,
            form: self.form,
            name,
            said: len,
            len,
            order: None,
            items: Vec::new(),
            fields: Vec::new(),
            key: None,
            entries: Vec::new(),
        }
    }
}

macro_rules! leaves {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, v: $type) -> Result<Data, Failed> {
            // As `Debug` writes it.
            Ok(Data::Leaf { text: format!("{v:?}"), size: size_of::<$type>() })
        }
    )*};
}

impl Serializer for Recorder {
    type Ok = Data;
    type Error = Failed;
    type SerializeSeq = Many;
    type SerializeTuple = Many;
    type SerializeTupleStruct = Many;
    type SerializeTupleVariant = Many;
    type SerializeMap = Many;
    type SerializeStruct = Many;
    type SerializeStructVariant = Many;

    leaves! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
    }

    fn is_human_readable(&self) -> bool {
        self.form.is_readable()
    }

    fn serialize_str(self, v: &str) -> Result<Data, Failed> {
        let text = format!("{v:?}");
        Ok(Data::Leaf { text, size: 0 })
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<Data, Failed> {
        let text = format!("{v:?}");
        Ok(Data::Leaf { text, size: 0 })
    }

    fn serialize_none(self) -> Result<Data, Failed> {
        Ok(Data::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Data, Failed> {
        Ok(Data::Some(Box::new(node(value, self.depth, self.form)?)))
    }

    fn serialize_unit(self) -> Result<Data, Failed> {
        Ok(Data::Unit)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Data, Failed> {
        Ok(Data::UnitStruct(name))
    }

    fn serialize_unit_variant(
        self,
        of: &'static str,
        index: u32,
        name: &'static str,
    ) -> Result<Data, Failed> {
        Ok(Data::UnitVariant(Variant { of, index, name }))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Data, Failed> {
        Ok(Data::Newtype(
            name,
            Box::new(node(value, self.depth, self.form)?),
        ))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        of: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Data, Failed> {
        let inner = Box::new(node(value, self.depth, self.form)?);
        Ok(Data::NewtypeVariant(Variant { of, index, name }, inner))
    }

    fn collect_seq<I>(self, items: I) -> Result<Data, Failed>
    where
        I: IntoIterator<Item: Serialize>,
    {
        let mut many = self.many(Name::Items, 0);
        many.order = Some(ElementOrder::of::<I>());
        for item in items {
            ser::SerializeSeq::serialize_element(&mut many, &item)?;
        }
        many.done()
    }

    fn collect_map<K, V, I>(self, entries: I) -> Result<Data, Failed>
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let mut many = self.many(Name::Map, 0);
        many.order = Some(ElementOrder::of::<I>());
        for (key, value) in entries {
            ser::SerializeMap::serialize_entry(&mut many, &key, &value)?;
        }
        many.done()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Many, Failed> {
        Ok(self.many(Name::Items, 0))
    }

    fn serialize_tuple(self, len: usize) -> Result<Many, Failed> {
        Ok(self.many(Name::Items, len))
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Many, Failed> {
        Ok(self.many(Name::TupleStruct(name), len))
    }

    fn serialize_tuple_variant(
        self,
        of: &'static str,
        index: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Many, Failed> {
        Ok(self.many(Name::TupleVariant(Variant { of, index, name }), len))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Many, Failed> {
        Ok(self.many(Name::Map, 0))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Many, Failed> {
        Ok(self.many(Name::Struct(name), len))
    }

    fn serialize_struct_variant(
        self,
        of: &'static str,
        index: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Many, Failed> {
        Ok(self.many(Name::StructVariant(Variant { of, index, name }), len))
    }
}

enum Name {
    Items,
    Map,
    Struct(&'static str),
    TupleStruct(&'static str),
    TupleVariant(Variant),
    StructVariant(Variant),
}

struct Many {
    depth: usize,
    form: WrittenFor,
    name: Name,
    said: usize,
    len: usize,
    /// Whether the order of the elements counts; `None` if that can't be seen.
    order: Option<ElementOrder>,
    items: Vec<Node>,
    fields: Vec<(&'static str, Option<Node>)>,
    key: Option<Node>,
    entries: Vec<(Node, Node)>,
}

impl Many {
    fn done(self) -> Result<Data, Failed> {
        let fields = Fields {
            said: self.said,
            len: self.len,
            all: self.fields,
        };
        Ok(match self.name {
            Name::Items => Data::Items(self.items, self.order.unwrap_or(ElementOrder::Kept)),
            Name::Map => Data::Map(self.entries, self.order),
            Name::Struct(name) => Data::Struct(name, fields),
            Name::StructVariant(name) => Data::StructVariant(name, fields),
            Name::TupleStruct(name) => Data::TupleStruct(name, self.said, self.items),
            Name::TupleVariant(name) => Data::TupleVariant(name, self.said, self.items),
        })
    }
}

macro_rules! items {
    ($($trait:ident::$method:ident;)*) => {$(
        impl ser::$trait for Many {
            type Ok = Data;
            type Error = Failed;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
                let node = node(value, self.depth, self.form)?;
                if !node.is_phantom() {
                    self.items.push(node);
                }
                Ok(())
            }

            fn end(self) -> Result<Data, Failed> {
                self.done()
            }
        }
    )*};
}

items! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl ser::$trait for Many {
            type Ok = Data;
            type Error = Failed;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Failed> {
                let node = node(value, self.depth, self.form)?;
                match node.is_phantom() {
                    true => self.len = self.len.saturating_sub(1),
                    false => self.fields.push((name, Some(node))),
                }
                Ok(())
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Failed> {
                self.fields.push((name, None));
                Ok(())
            }

            fn end(self) -> Result<Data, Failed> {
                self.done()
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl ser::SerializeMap for Many {
    type Ok = Data;
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        self.key = Some(node(key, self.depth, self.form)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        let value = node(value, self.depth, self.form)?;
        self.entries.push((self.key.take().ok_or(Failed)?, value));
        Ok(())
    }

    fn end(self) -> Result<Data, Failed> {
        self.done()
    }
}
