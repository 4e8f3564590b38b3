//! The text of an id in a key: readable (`users:1`, `users:7,1`), and never the same for two ids.

use serde::ser::{self, Serialize, Serializer};

use super::KeyError;
use super::disambiguator::Disambiguator;
use super::draft::Draft;
use super::error::ElementOrder;
use super::escape::{escape, write_to};
use super::id_form::IdForm;

/// Appends `id` to `key`, escaped.
pub(crate) fn render<T: Serialize + ?Sized>(id: &T, key: &mut String) -> Result<IdForm, KeyError> {
    let mut form = IdForm::default();
    let mut disambiguator = Disambiguator::default();
    id.serialize(Renderer {
        out: key,
        form: &mut form,
        disambiguator: &mut disambiguator,
        nested: false,
        mixed: is_any_value(std::any::type_name::<T>()),
    })?;
    form.disambiguator = disambiguator;
    Ok(form)
}

/// Appends an id that was noted as a [`Draft`]. `text` is its text, and `type_name` the name of its
/// type. The result is that of [`render`] for the id itself.
pub(super) fn render_draft(draft: Draft, text: &str, type_name: &str, key: &mut String) -> IdForm {
    // Such an id shows all of itself.
    let (mut form, mut disambiguator) = (IdForm::default(), Disambiguator::default());
    let renderer = Renderer {
        out: key,
        form: &mut form,
        disambiguator: &mut disambiguator,
        nested: false,
        mixed: is_any_value(type_name),
    };
    match draft {
        Draft::Natural(n) => renderer.digits(n),
        Draft::Negative(n) => renderer.digits(n),
        Draft::Text => renderer.plain_text(text),
        Draft::None => {}
    }
    form
}

/// An id's form does not cover the contents of lists and variants. So inside them this mark tells
/// values apart: it precedes a text that looks like a number or a boolean, and bytes and units,
/// which look like texts. `'` itself is escaped in texts.
const MARK: char = '\'';

fn needs_mark(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        || matches!(text, "true" | "false" | "inf")
}

struct Renderer<'a> {
    out: &'a mut String,
    form: &'a mut IdForm,
    disambiguator: &'a mut Disambiguator,
    nested: bool,
    /// Whether this is inside a list or a variant.
    mixed: bool,
}

impl<'a> Renderer<'a> {
    #[inline]
    fn digits<T: itoa::Integer>(self, n: T) {
        self.form.add(b'i');
        self.out.push_str(itoa::Buffer::new().format(n));
    }

    #[inline]
    fn integer<T: itoa::Integer + TryInto<u64> + Copy>(self, n: T) {
        // Most are natural numbers of 64 bits, and share the code.
        match n.try_into() {
            Ok(n) => self.digits(n),
            Err(_) => self.digits(n),
        }
    }

    #[inline]
    fn plain_text(self, text: &str) {
        self.form.add(b's');
        self.text(text);
    }

    fn text(self, text: &str) {
        if self.mixed && needs_mark(text) {
            self.out.push(MARK);
        }
        escape(text, self.out);
    }

    /// The parts of a tuple or struct. They are part of the id's form.
    fn parts(self, brackets: bool) -> Parts<'a> {
        self.form.add(b'(');
        if brackets {
            self.out.push('(');
        }
        Parts {
            out: self.out,
            form: Some(self.form),
            disambiguator: self.disambiguator,
            brackets,
            mixed: self.mixed,
            number: 0,
        }
    }

    /// The parts of a list or a variant. They are not part of the id's form.
    fn varying_parts(self, tag: u8) -> Parts<'a> {
        self.form.add(tag);
        self.out.push('(');
        Parts {
            out: self.out,
            form: None,
            disambiguator: self.disambiguator,
            brackets: true,
            mixed: true,
            number: 0,
        }
    }
}

macro_rules! integers {
    ($($method:ident($int:ty);)*) => {$(
        fn $method(self, n: $int) -> Result<(), KeyError> {
            self.integer(n);
            Ok(())
        }
    )*};
}

impl<'a> Serializer for Renderer<'a> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = ser::Impossible<(), KeyError>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    integers! {
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
    }

    fn serialize_bool(self, v: bool) -> Result<(), KeyError> {
        self.form.add(b'b');
        self.out.push_str(if v { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), KeyError> {
        self.serialize_f64(f64::from(v))
    }

    fn serialize_f64(self, v: f64) -> Result<(), KeyError> {
        if v.is_nan() {
            return Err(KeyError::not_a_number());
        }
        self.form.add(b'f');
        self.disambiguator.float(v);
        write_to(self.out, format_args!("{:?}", v + 0.0));
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), KeyError> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, v: &str) -> Result<(), KeyError> {
        self.plain_text(v);
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), KeyError> {
        self.form.add(b'x');
        if self.mixed {
            self.out.extend([MARK, MARK]);
        }
        self.out.push_str(if v.is_empty() { "%" } else { "" });
        for byte in v {
            write_to(self.out, format_args!("{byte:02x}"));
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), KeyError> {
        self.form.open = true;
        self.out.push('~');
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        let start = self.out.len();
        value.serialize(Renderer {
            out: &mut *self.out,
            ..self
        })?;
        if self.out[start..].starts_with('~') {
            // `Some(None)` is not `None`.
            self.out.insert(start, '~');
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), KeyError> {
        self.form.add(b'_');
        // Inside a list or variant, `()` is the empty list.
        self.out.push_str(if self.mixed { "'_" } else { "()" });
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), KeyError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), KeyError> {
        self.disambiguator.variant(index);
        self.form.add(b'v');
        self.text(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.disambiguator.variant(index);
        escape(variant, self.out);
        let mut parts = self.varying_parts(b'v');
        parts.part(value)?;
        parts.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, KeyError> {
        // A list's length varies. Without brackets an empty list and a list of one empty string
        // would share a key.
        Ok(self.varying_parts(b'l'))
    }

    fn collect_seq<I>(self, elements: I) -> Result<(), KeyError>
    where
        I: IntoIterator<Item: Serialize>,
    {
        if ElementOrder::of::<I>() == ElementOrder::None {
            return Err(KeyError::unordered());
        }
        let mut parts = self.varying_parts(b'l');
        for element in elements {
            parts.part(&element)?;
        }
        parts.finish()
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, KeyError> {
        let brackets = self.nested;
        Ok(self.parts(brackets))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Parts<'a>, KeyError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, KeyError> {
        self.disambiguator.variant(index);
        escape(variant, self.out);
        Ok(self.varying_parts(b'v'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<ser::Impossible<(), KeyError>, KeyError> {
        Err(ser::Error::custom(
            "a map can't be an id; give the function an `op`, and the map is hashed",
        ))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Parts<'a>, KeyError> {
        self.serialize_tuple(len)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'a>, KeyError> {
        self.serialize_tuple_variant(name, index, variant, len)
    }
}

/// Whether the values of a type of this name, such as `serde_json::Value`, are numbers as well as
/// texts.
fn is_any_value(name: &str) -> bool {
    name.trim_end_matches('>').ends_with("::Value")
}

/// The parts of a composite id, joined by commas.
struct Parts<'a> {
    out: &'a mut String,
    form: Option<&'a mut IdForm>,
    disambiguator: &'a mut Disambiguator,
    brackets: bool,
    mixed: bool,
    number: usize,
}

impl Parts<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        if self.number > 0 {
            self.out.push(',');
        }
        let mut part = IdForm::default();
        value.serialize(Renderer {
            out: self.out,
            form: &mut part,
            disambiguator: &mut *self.disambiguator,
            nested: true,
            mixed: self.mixed || is_any_value(std::any::type_name::<T>()),
        })?;
        if let Some(form) = &mut self.form {
            form.add_part(self.number, part);
        }
        self.number += 1;
        Ok(())
    }

    fn finish(self) -> Result<(), KeyError> {
        if let Some(form) = self.form {
            form.add(b')');
        }
        if self.brackets {
            self.out.push(')');
        }
        Ok(())
    }
}

macro_rules! parts {
    ($($trait:ident::$method:ident;)*) => {$(
        impl ser::$trait for Parts<'_> {
            type Ok = ();
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                value: &T,
            ) -> Result<(), KeyError> {
                self.part(value)
            }

            fn end(self) -> Result<(), KeyError> {
                self.finish()
            }
        }
    )*};
}

parts! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

/// A field left out by `skip_serializing_if` keeps its position, as an absent part. Otherwise two
/// structs that leave out different fields would share a key (serde#1732).
macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl ser::$trait for Parts<'_> {
            type Ok = ();
            type Error = KeyError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), KeyError> {
                self.part(value)
            }

            fn skip_field(&mut self, _: &'static str) -> Result<(), KeyError> {
                if crate::base::mutation::is_active("skipped-fields-keep-no-place") {
                    return Ok(());
                }
                self.part(&None::<()>)
            }

            fn end(self) -> Result<(), KeyError> {
                self.finish()
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    fn id<T: Serialize>(value: T) -> String {
        let mut out = String::new();
        render(&value, &mut out).expect("renders");
        out
    }

    fn form<T: Serialize>(value: T) -> IdForm {
        render(&value, &mut String::new()).expect("renders")
    }

    #[derive(Serialize)]
    struct UserId(i64);

    #[derive(Serialize)]
    enum Owner {
        Nobody,
        Team(u32),
    }

    #[test]
    fn golden() {
        assert_eq!(id(1), "1");
        assert_eq!(id(UserId(-1)), "-1");
        assert_eq!(
            (id(0u8), id(10i32), id(907u128)),
            ("0".into(), "10".into(), "907".into())
        );
        assert_eq!(id(u64::MAX), u64::MAX.to_string());
        assert_eq!(id(u128::MAX), u128::MAX.to_string());
        assert_eq!(
            (id(i64::MIN), id(i128::MIN)),
            (i64::MIN.to_string(), i128::MIN.to_string())
        );
        assert_eq!(id((7, 1)), "7,1");
        assert_eq!(id((7, "a,b")), "7,a%2Cb");
        assert_eq!(
            id("users:{1}*?[x]@~%"),
            "users%3A%7B1%7D%2A%3F%5Bx%5D%40%7E%25"
        );
        assert_eq!(id("é\u{a0}\n"), "é%C2%A0%0A");
        assert_eq!(id(Some("x")), "x");
        assert_eq!(id(None::<u8>), "~");
        assert_eq!(id(Some(None::<u8>)), "~~");
        assert_eq!(id(Owner::Nobody), "Nobody");
        assert_eq!(id(Owner::Team(3)), "Team(3)");
        assert_eq!(id((1, (2, 3))), "1,(2,3)");
        assert_eq!(id(["", ""]), "%,%");
    }

    #[test]
    fn ids_of_one_form_fit_and_others_do_not() {
        assert!(form(1i32).fits(form(UserId(7))));
        assert!(form("a").fits(form(String::from("b"))));
        assert!(form(None::<String>).fits(form("a")));
        assert!(!form(1).fits(form("1")));
        assert!(!form((1, 2)).fits(form("1,2")));
        assert!(!form((1, 2)).fits(form(1)));
        assert!(form(Owner::Nobody).fits(form(Owner::Team(3))));
        assert!(form(vec![1]).fits(form(vec![1, 2])));
        assert!(form((None::<u8>, 1)).fits(form((2, 1))));
        assert!(!form((None::<u8>, 1)).fits(form((None::<u8>, "1"))));
        assert!(!form((1, None::<u8>)).fits(form(("1", 2))));
        let single = [
            form(1),
            form("1"),
            form(true),
            form(1.0),
            form(()),
            form(vec![1]),
            form(Owner::Nobody),
            form((1, 2)),
        ];
        for (at, one) in single.iter().enumerate() {
            let others = &single[at + 1..];
            assert!(
                others
                    .iter()
                    .all(|other| one.hash as u16 != other.hash as u16)
            );
        }
    }

    #[test]
    fn in_a_list_a_text_is_told_from_what_it_looks_like() {
        for (looks_like, text) in [
            (id(vec![1]), id(vec!["1"])),
            (id(vec![-1]), id(vec!["-1"])),
            (id(vec![1.5]), id(vec!["1.5"])),
            (id(vec![f64::INFINITY]), id(vec!["inf"])),
            (id(vec![true]), id(vec!["true"])),
            (id(vec![()]), id(vec![Vec::<u8>::new()])),
        ] {
            assert_ne!(looks_like, text);
        }
        assert_eq!(id(vec!["a", "1"]), "(a,'1)");
        assert_eq!(id(vec!["'1"]), "(%271)");
        assert_eq!(id(("1", true)), "1,true", "a tuple's parts are in its form");
    }

    #[test]
    fn a_map_is_refused_with_the_way_out() {
        let error = render(
            &std::collections::BTreeMap::from([(1, 2)]),
            &mut String::new(),
        );
        assert!(error.is_err_and(|e| e.to_string().contains("`op`")));
    }

    proptest! {
        #[test]
        fn injective(a in any::<(String, Vec<String>, Option<String>)>(), b in any::<(String, Vec<String>, Option<String>)>()) {
            prop_assert_eq!(id(&a) == id(&b), a == b);
        }

        #[test]
        fn nothing_of_an_id_reads_as_punctuation(text in any::<String>()) {
            let rendered = id(&text);
            let punctuation = [':', '*', '?', '[', ']', '{', '}', ',', '@', '~', '(', ')', ' '];
            prop_assert!(!rendered.contains(punctuation));
            prop_assert!(!rendered.chars().any(char::is_control));
        }
    }
}
