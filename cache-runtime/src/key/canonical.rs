//! The canonical encoding of arguments: equal arguments have equal bytes, different arguments never
//! do.
//!
//! Every value starts with a tag, strings carry their length, and sequences end with a mark that
//! starts no value. So the encoding is prefix-free: two different lists of arguments never have the
//! same bytes. Equal meanings are encoded alike: integers by value whatever their width, entries of
//! maps without an order sorted. Fields and variants are written by name, so two versions of a
//! program that order a filter's fields differently never read each other's entries by mistake.
//!
//! Values that are equal and not the same have the same bytes, and [`Disambiguator`] tells them
//! apart: `-0.0`, variants that are renamed alike, and the order of a map whose type is not visible
//! (`serde_json::Map`, `flatten`).

use serde::ser::{self, Serialize, Serializer};

use super::KeyError;
use super::disambiguator::Disambiguator;
use super::error::ElementOrder;

/// Appends the canonical bytes of `value` to `sink`, and what they don't show to `disambiguator`.
pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    sink: &mut Vec<u8>,
    disambiguator: &mut Disambiguator,
) -> Result<(), KeyError> {
    value.serialize(Encoder(sink, disambiguator))
}

const END: &[u8] = b"e";

struct Encoder<'a>(&'a mut Vec<u8>, &'a mut Disambiguator);

impl Encoder<'_> {
    fn varint(&mut self, mut n: u128) {
        // Most numbers are short, and arithmetic on 128 bits is slow.
        if n < 0x80 {
            self.0.push(n as u8);
            return;
        }
        while n >= 0x80 {
            self.0.extend_from_slice(&[0x80 | (n & 0x7f) as u8]);
            n >>= 7;
        }
        self.0.extend_from_slice(&[n as u8]);
    }

    fn text(&mut self, text: &[u8]) {
        self.varint(text.len() as u128);
        self.0.extend_from_slice(text);
    }

    fn unsigned(mut self, n: u128) {
        self.0.extend_from_slice(b"u");
        self.varint(n);
    }

    fn signed(mut self, n: i128) {
        if n >= 0 {
            self.unsigned(n.unsigned_abs());
        } else {
            self.0.extend_from_slice(b"n");
            self.varint(n.unsigned_abs() - 1);
        }
    }

    fn variant(&mut self, index: u32, name: &str) {
        self.1.variant(index);
        self.0.extend_from_slice(b"v");
        self.text(name.as_bytes());
    }
}

macro_rules! integers {
    ($($method:ident($int:ty) as $wide:ty => $through:ident;)*) => {$(
        fn $method(self, n: $int) -> Result<(), KeyError> {
            self.$through(<$wide>::from(n));
            Ok(())
        }
    )*};
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = Encoder<'a>;
    type SerializeTuple = Encoder<'a>;
    type SerializeTupleStruct = Encoder<'a>;
    type SerializeTupleVariant = Encoder<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Encoder<'a>;
    type SerializeStructVariant = Encoder<'a>;

    integers! {
        serialize_u8(u8) as u128 => unsigned;
        serialize_u16(u16) as u128 => unsigned;
        serialize_u32(u32) as u128 => unsigned;
        serialize_u64(u64) as u128 => unsigned;
        serialize_u128(u128) as u128 => unsigned;
        serialize_i8(i8) as i128 => signed;
        serialize_i16(i16) as i128 => signed;
        serialize_i32(i32) as i128 => signed;
        serialize_i64(i64) as i128 => signed;
        serialize_i128(i128) as i128 => signed;
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, v: bool) -> Result<(), KeyError> {
        self.0.extend_from_slice(if v { b"t" } else { b"f" });
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), KeyError> {
        self.serialize_f64(f64::from(v))
    }

    fn serialize_f64(self, v: f64) -> Result<(), KeyError> {
        if v.is_nan() {
            return Err(KeyError::not_a_number());
        }
        self.1.float(v);
        // `-0.0 + 0.0` is `0.0`; every other number stays the same.
        self.0.extend_from_slice(b"d");
        self.0.extend_from_slice(&(v + 0.0).to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), KeyError> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(mut self, v: &str) -> Result<(), KeyError> {
        self.0.extend_from_slice(b"s");
        self.text(v.as_bytes());
        Ok(())
    }

    fn serialize_bytes(mut self, v: &[u8]) -> Result<(), KeyError> {
        self.0.extend_from_slice(b"b");
        self.text(v);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), KeyError> {
        self.0.extend_from_slice(b"0");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        self.0.extend_from_slice(b"1");
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), KeyError> {
        self.0.extend_from_slice(b"_");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), KeyError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), KeyError> {
        self.variant(index, variant);
        self.serialize_unit()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        encode(value, self.0, self.1)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.variant(index, variant);
        value.serialize(self)
    }

    /// An unordered set is encoded as its sorted elements, so that equal sets have equal bytes.
    fn collect_seq<I>(self, elements: I) -> Result<(), KeyError>
    where
        I: IntoIterator<Item: Serialize>,
    {
        let Self(sink, disambiguator) = self;
        sink.extend_from_slice(b"l");
        if ElementOrder::of::<I>() == ElementOrder::None
            && !crate::base::mutation::is_active("sets-in-their-own-order")
        {
            let mut sorted = Vec::new();
            for element in elements {
                let mut bytes = Vec::new();
                let mut disambiguator = Disambiguator::default();
                encode(&element, &mut bytes, &mut disambiguator)?;
                sorted.push((bytes, disambiguator));
            }
            sorted.sort_unstable_by(|(a, one), (b, other)| {
                a.cmp(b).then_with(|| one.version().cmp(&other.version()))
            });
            for (bytes, part) in sorted {
                sink.extend(bytes);
                disambiguator.part(part);
            }
        } else {
            for element in elements {
                encode(&element, sink, disambiguator)?;
            }
        }
        sink.extend_from_slice(END);
        Ok(())
    }

    /// Most maps come this way, and show what their order is worth.
    fn collect_map<K, V, I>(self, entries: I) -> Result<(), KeyError>
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let Self(sink, disambiguator) = self;
        let mut map = Entries::new(sink, disambiguator, Some(ElementOrder::of::<I>()));
        for (key, value) in entries {
            ser::SerializeMap::serialize_entry(&mut map, &key, &value)?;
        }
        ser::SerializeMap::end(map)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, KeyError> {
        self.0.extend_from_slice(b"l");
        Ok(self)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self, KeyError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Self, KeyError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self, KeyError> {
        self.variant(index, variant);
        self.serialize_seq(Some(len))
    }

    /// A map that is written by hand, or a struct of which a part is flattened: whether its order
    /// counts is not seen.
    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, KeyError> {
        let Self(sink, disambiguator) = self;
        Ok(Entries::new(sink, disambiguator, None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, KeyError> {
        self.0.extend_from_slice(b"r");
        Ok(self)
    }

    fn serialize_struct_variant(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self, KeyError> {
        self.variant(index, variant);
        self.serialize_struct(name, len)
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident;)*) => {$(
        impl ser::$trait for Encoder<'_> {
            type Ok = ();
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
                encode(value, self.0, self.1)
            }

            fn end(self) -> Result<(), KeyError> {
                self.0.extend_from_slice(END);
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl ser::$trait for Encoder<'_> {
            type Ok = ();
            type Error = KeyError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), KeyError> {
                // The mark tells a name's length from the end of the struct.
                self.0.extend_from_slice(b".");
                self.text(name.as_bytes());
                encode(value, self.0, self.1)
            }

            /// Two fields of one name are told apart by which of them is there.
            fn skip_field(&mut self, name: &'static str) -> Result<(), KeyError> {
                if !crate::base::mutation::is_active("skipped-fields-keep-no-place") {
                    self.0.extend_from_slice(b"-");
                    self.text(name.as_bytes());
                }
                Ok(())
            }

            fn end(self) -> Result<(), KeyError> {
                self.0.extend_from_slice(END);
                Ok(())
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

/// The entries of a map.
///
/// If their order may be a part of the value, they are written as they come. Otherwise they are
/// collected and sorted by key. If nothing tells which, they are sorted, and the order is in
/// [`Disambiguator`]: equal maps still have one key.
///
/// A struct with `flatten` is a map too, and may have one key twice. The order of those two tells
/// their values apart, so the sort is stable.
struct Entries<'a> {
    sink: &'a mut Vec<u8>,
    disambiguator: &'a mut Disambiguator,
    /// `None`: not known.
    order: Option<ElementOrder>,
    collected: Vec<Entry>,
}

/// One entry that is collected.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
    /// The length of the key's bytes.
    key: usize,
    disambiguator: Disambiguator,
    /// The entry's position.
    at: usize,
}

impl Entry {
    fn key(&self) -> Option<&[u8]> {
        self.bytes.get(..self.key)
    }
}

impl<'a> Entries<'a> {
    fn new(
        sink: &'a mut Vec<u8>,
        disambiguator: &'a mut Disambiguator,
        order: Option<ElementOrder>,
    ) -> Self {
        sink.extend_from_slice(b"m");
        Self {
            sink,
            disambiguator,
            order,
            collected: Vec::new(),
        }
    }

    fn is_kept(&self) -> bool {
        self.order == Some(ElementOrder::Kept)
    }
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = KeyError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), KeyError> {
        if self.is_kept() {
            return encode(key, self.sink, self.disambiguator);
        }
        let mut entry = Entry {
            at: self.collected.len(),
            ..Entry::default()
        };
        encode(key, &mut entry.bytes, &mut entry.disambiguator)?;
        entry.key = entry.bytes.len();
        self.collected.push(entry);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        if self.is_kept() {
            return encode(value, self.sink, self.disambiguator);
        }
        match self.collected.last_mut() {
            Some(entry) => encode(value, &mut entry.bytes, &mut entry.disambiguator),
            None => Err(ser::Error::custom("a map's value came before its key")),
        }
    }

    fn end(mut self) -> Result<(), KeyError> {
        self.collected.sort_by(|a, b| a.key().cmp(&b.key()));
        let is_sorted = self.collected.is_sorted_by_key(|entry| entry.at);
        for entry in &self.collected {
            self.sink.extend_from_slice(&entry.bytes);
            self.disambiguator.part(entry.disambiguator);
        }
        if self.order.is_none() {
            for entry in &self.collected {
                let place = if is_sorted { 0 } else { entry.at as u64 + 1 };
                self.disambiguator.add(place);
            }
        }
        self.sink.extend_from_slice(END);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    fn bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, &mut out, &mut Disambiguator::default()).expect("encodes");
        out
    }

    #[derive(Serialize)]
    struct Filter {
        field: String,
        limit: Option<u32>,
    }

    #[test]
    fn golden() {
        let filter = Filter {
            field: "age".into(),
            limit: Some(300),
        };
        assert_eq!(bytes(&filter), b"r.\x05fields\x03age.\x05limit1u\xac\x02e");
        assert_eq!(bytes(&(-1i8, true, None::<u8>, "x")), b"ln\0t0s\x01xe");
        assert_eq!(
            bytes(&BTreeMap::from([(2, 'b'), (1, 'a')])),
            b"mu\x01s\x01au\x02s\x01be"
        );
    }

    #[test]
    fn equal_values_are_encoded_alike() {
        assert_eq!(bytes(&1u8), bytes(&1i64));
        assert_eq!(bytes(&-0.0f64), bytes(&0.0f32));
        assert_eq!(bytes(&vec![1, 2]), bytes(&[1, 2]));
        let shuffled: HashMap<_, _> = (0..100).map(|n| (n, n)).collect();
        assert_eq!(
            bytes(&shuffled),
            bytes(&shuffled.clone().into_iter().collect::<BTreeMap<_, _>>())
        );
    }

    #[test]
    fn different_values_are_encoded_apart() {
        let different = [
            bytes(&()),
            bytes(&None::<u8>),
            bytes(&Some(None::<u8>)),
            bytes(""),
            bytes(&[""]),
            bytes(&["", ""]),
            bytes(&vec![0u8; 0]),
            bytes(&(Vec::<u8>::new(), Vec::<u8>::new())),
            bytes(&0),
            bytes(&false),
            bytes("0"),
            bytes(&0.0),
            bytes(&-1),
        ];
        for (i, a) in different.iter().enumerate() {
            assert!(different[i + 1..].iter().all(|b| a != b), "{a:?}");
        }
    }

    #[test]
    fn a_set_behind_an_iterator_is_sorted() {
        struct Of(std::collections::HashSet<u32>);
        impl Serialize for Of {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter())
            }
        }
        let set = |numbers: std::ops::Range<u32>| Of(numbers.collect());
        let backwards = Of((0..100).rev().collect());
        assert_eq!(bytes(&set(0..100)), bytes(&backwards));
        assert_ne!(bytes(&set(0..100)), bytes(&set(0..99)));
    }

    #[test]
    fn nan_is_refused() {
        assert!(encode(&f32::NAN, &mut Vec::new(), &mut Disambiguator::default()).is_err());
        assert!(
            encode(
                &Some(vec![f64::NAN]),
                &mut Vec::new(),
                &mut Disambiguator::default()
            )
            .is_err()
        );
    }

    #[derive(Debug, Clone, PartialEq, Serialize)]
    enum Value {
        Null,
        Bool(bool),
        Int(i64),
        Text(String),
        List(Vec<Value>),
        Pair(Box<Value>, Box<Value>),
        Named { a: Box<Value>, b: Option<u8> },
        Map(BTreeMap<String, u8>),
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-3i64..300).prop_map(Value::Int),
            "[ae.\\x00\\x01]{0,3}".prop_map(Value::Text),
            prop::collection::btree_map("[ae]{0,2}", 0u8..3, 0..3).prop_map(Value::Map),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::List),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| Value::Pair(a.into(), b.into())),
                (inner, prop::option::of(0u8..3))
                    .prop_map(|(a, b)| Value::Named { a: a.into(), b }),
            ]
        })
    }

    proptest! {
        #[test]
        fn injective_on_arguments(a in prop::collection::vec(value(), 0..4), b in prop::collection::vec(value(), 0..4)) {
            // Arguments are encoded one after the other, as a call does.
            let run = |values: &[Value]| values.iter().flat_map(bytes).collect::<Vec<u8>>();
            prop_assert_eq!(run(&a) == run(&b), a == b);
        }

        #[test]
        fn no_encoding_starts_another(a in value(), b in value()) {
            prop_assume!(a != b);
            prop_assert!(!bytes(&a).starts_with(&bytes(&b)));
        }
    }
}
