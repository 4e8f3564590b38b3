use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::*;

fn of<T: DeserializeOwned + 'static>() -> Schema {
    find_of_read::<T>().0
}

fn hash<T: DeserializeOwned + 'static>() -> u64 {
    of::<T>().hash
}

/// The same name in two modules: two versions of one type.
macro_rules! differ {
    ($($name:ident: { $($before:tt)* } { $($after:tt)* })*) => {$(
        #[test]
        fn $name() {
            #[allow(dead_code, reason = "only their shape matters")]
            mod before {
                use serde::Deserialize;
                #[derive(Deserialize)]
                pub(super) enum Kind { Unit, Text(String), Both { one: u8, two: Option<u8> } }
                $($before)*
            }
            #[allow(dead_code, reason = "only their shape matters")]
            mod after {
                use serde::Deserialize;
                #[derive(Deserialize)]
                pub(super) enum Kind { Unit, Text(String), Both { one: u8, two: Option<u16> } }
                $($after)*
            }
            assert_ne!(hash::<before::T>(), hash::<after::T>());
            assert_eq!(hash::<before::T>(), probe::run::<before::T>().hash, "each time the same");
        }
    )*};
}

mod buffered;
mod cost;
mod flattened;

differ! {
    an_added_field:
        { #[derive(Deserialize)] pub(super) struct T { a: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { a: u8, b: Option<u8> } }
    a_renamed_field:
        { #[derive(Deserialize)] pub(super) struct T { a: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { #[serde(rename = "b")] a: u8 } }
    fields_in_another_order:
        { #[derive(Deserialize)] pub(super) struct T { a: u8, b: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { b: u8, a: u8 } }
    variants_in_another_order:
        { #[derive(Deserialize)] pub(super) enum T { A, B } }
        { #[derive(Deserialize)] pub(super) enum T { B, A } }
    fields_of_a_variant_in_another_order:
        { #[derive(Deserialize)] pub(super) enum T { A { x: u8, y: u8 } } }
        { #[derive(Deserialize)] pub(super) enum T { A { y: u8, x: u8 } } }
    another_number:
        { #[derive(Deserialize)] pub(super) struct T { a: Vec<i32> } }
        { #[derive(Deserialize)] pub(super) struct T { a: Vec<i64> } }
    an_added_variant:
        { #[derive(Deserialize)] pub(super) enum T { A, B } }
        { #[derive(Deserialize)] pub(super) enum T { A, B, C } }
    a_variant_deep_inside:
        { #[derive(Deserialize)] pub(super) struct T { a: Vec<Option<Kind>>, b: Kind } }
        { #[derive(Deserialize)] pub(super) struct T { a: Vec<Option<Kind>>, b: Kind } }
    a_field_behind_what_is_validated:
        { #[derive(Deserialize)] pub(super) struct T { a: std::net::IpAddr, b: Vec<super::Never>, c: (super::Never, u8), d: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { a: std::net::IpAddr, b: Vec<super::Never>, c: (super::Never, u8), d: u16 } }
    a_field_with_another_name_as_well:
        { #[derive(Deserialize)] pub(super) struct T { #[serde(alias = "x", alias = "y")] a: u8, b: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { #[serde(alias = "x", alias = "y")] a: u8, b: u16 } }
    inside_of_itself:
        { #[derive(Deserialize)] pub(super) struct T { next: Option<Box<T>>, list: Vec<T>, a: u8 } }
        { #[derive(Deserialize)] pub(super) struct T { next: Option<Box<T>>, list: Vec<T>, a: u16 } }
    a_tree_of_variants:
        { #[derive(Deserialize)] pub(super) enum T { Sum(Box<T>, Box<T>), Not(Box<T>), Leaf { a: u8 }, Pair(Box<T>, u8) } }
        { #[derive(Deserialize)] pub(super) enum T { Sum(Box<T>, Box<T>), Not(Box<T>), Leaf { a: u8 }, Pair(Box<T>, u16) } }
    a_flattened_field:
        { #[derive(Deserialize)] pub(super) struct I { x: u8, y: u8 } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
        { #[derive(Deserialize)] pub(super) struct I { x: u8, z: u8 } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
    the_type_of_a_flattened_field:
        { #[derive(Deserialize)] pub(super) struct I { x: String, y: u8 } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
        { #[derive(Deserialize)] pub(super) struct I { x: String, y: String } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
    an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, C { y: u8 } } }
    an_adjacently_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B(String) } }
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B(u8) } }
    an_untagged_variant:
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: u8 }, B { z: u8 } } }
    a_default_that_is_a_field_no_more:
        { #[derive(Deserialize)] #[serde(default)] #[derive(Default)] pub(super) struct T { a: u8, b: u8 } }
        { #[derive(Deserialize)] #[serde(default)] #[derive(Default)] pub(super) struct T { a: u8, #[serde(skip)] b: u8 } }
    a_transparent_type:
        { #[derive(Deserialize)] #[serde(transparent)] pub(super) struct T { a: u8 } }
        { #[derive(Deserialize)] #[serde(transparent)] pub(super) struct T { a: u16 } }
    the_values_of_a_map:
        { pub(super) type T = std::collections::HashMap<String, super::Wrapped<u8>>; }
        { pub(super) type T = std::collections::HashMap<String, super::Wrapped<u16>>; }
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape matters")]
struct Wrapped<T> {
    a: T,
}

/// Refuses each text.
struct Never;

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?;
        Err(serde::de::Error::custom("never"))
    }
}

struct Panics<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Panics<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::deserialize(from)?;
        panic!("on purpose")
    }
}

#[test]
fn only_what_takes_anything_guesses() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Untagged {
        A(u8),
    }
    assert!(of::<Vec<Untagged>>().guesses);
    assert!(of::<serde_json::Value>().guesses);
    assert!(!of::<HashMap<String, BTreeMap<u8, Vec<Option<f64>>>>>().guesses);
    assert!(!of::<Result<(u8, std::time::SystemTime), std::time::Duration>>().guesses);
}

#[test]
fn a_type_that_panics_has_a_shape() {
    assert_eq!(hash::<Panics<u8>>(), probe::run::<Panics<u8>>().hash);
    assert_ne!(hash::<Panics<u8>>(), hash::<Panics<u16>>());
}

/// Types that contain themselves in ways that a probe does not see as such.
#[allow(dead_code, reason = "only their shape matters")]
mod endless {
    use super::*;

    /// For a value that is no list, serde asks `B` for the same value without end.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Tree {
        A(Vec<Tree>),
        B(Box<Tree>),
        C { x: Option<Box<Tree>> },
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Left {
        A(Vec<Right>),
        B(Box<Right>),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Right {
        A(u8),
        B(Box<Left>),
    }

    #[derive(Deserialize)]
    pub(super) struct Newtype(Option<Box<Newtype>>);

    #[derive(Deserialize)]
    pub(super) struct Alone(Box<Alone>);

    #[derive(Deserialize)]
    #[serde(transparent)]
    pub(super) struct Thin {
        of: Option<Box<Thin>>,
    }

    #[derive(Deserialize)]
    pub(super) struct Pair(Option<Box<Pair>>, Option<Box<Pair>>);

    #[derive(Deserialize)]
    pub(super) struct Wide {
        a: Vec<Tree>,
        b: Newtype,
        c: Option<Box<Wide>>,
        d: Left,
    }

    /// Reads itself without asking for anything.
    pub(super) struct Itself;

    impl<'de> Deserialize<'de> for Itself {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let value = serde_json::Value::deserialize(from)?;
            inside(&value).map_err(serde::de::Error::custom)
        }
    }

    fn inside(value: &serde_json::Value) -> Result<Itself, serde_json::Error> {
        match u8::deserialize(value) {
            Ok(_) => Ok(Itself),
            Err(error) if value.is_null() => Err(error),
            Err(_) => inside(&serde_json::Value::Null),
        }
    }
}

macro_rules! ends {
    ($($type:ty)*) => {$(
        assert_eq!(hash::<$type>(), probe::run::<$type>().hash, stringify!($type));
        assert_ne!(hash::<$type>(), Schema::NONE.hash, stringify!($type));
    )*};
}

#[test]
fn a_type_that_contains_itself_has_a_shape() {
    use endless::*;
    ends!(Newtype Alone Thin Pair Itself);
}

#[test]
fn a_probe_without_end_is_given_up() {
    use endless::*;
    ends!(Tree Left Right Vec<Tree> Wide);
    // The thread that asks is not the one that is given up.
    assert!(of::<Vec<Tree>>().guesses);
}

/// Where panics abort, a type that is given up has the shape of what was found before.
#[test]
fn a_probe_that_is_given_up_has_a_shape_without_unwinding() {
    use endless::*;

    /// Tries many forms of a value, and makes an error for each.
    struct Tries;

    impl<'de> Deserialize<'de> for Tries {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let value = serde_json::Value::deserialize(from)?;
            let tried = (0..3_000).map(|_| u8::deserialize(&value).map_err(D::Error::custom));
            tried.fold(None, |_, it| Some(it)).transpose()?;
            Ok(Self)
        }
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct One {
        id: u8,
        of: Tries,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Two {
        id: u16,
        of: Tries,
    }
    let [one, two] = [
        probe::run_without_unwinding::<One>(),
        probe::run_without_unwinding::<Two>(),
    ];
    assert_ne!(one.hash, two.hash);
    assert!(!one.is_endless);
    assert_eq!(one, probe::run_without_unwinding::<One>());
    assert!(probe::run_without_unwinding::<Vec<Tree>>().is_endless);
    assert_eq!(probe::run_without_unwinding::<Newtype>(), of::<Newtype>());
}

#[test]
fn golden() {
    // Every process and build finds the same shape. A change here makes all entries misses once.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct User {
        id: i64,
        name: Option<String>,
        tags: Vec<Tag>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Tag {
        Plain,
        Of(u8),
    }
    assert_eq!(format!("{:016x}", hash::<User>()), "0a0580f541c183b1");
}
