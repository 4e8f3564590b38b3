//! Fields that only a value of the type shows, when it is written.

use super::*;

macro_rules! differ_when_written {
    ($($name:ident: { $($before:item)* } { $($after:item)* })*) => {$(
        #[test]
        fn $name() {
            mod before {
                use super::*;
                $(#[derive(Serialize, Deserialize)] $before)*
            }
            mod after {
                use super::*;
                $(#[derive(Serialize, Deserialize)] $after)*
            }
            let same = probe::run_and_write::<before::T>();
            assert_eq!(find::<before::T>().0, same, "each time the same");
            assert_eq!(size_of::<before::T>(), size_of::<after::T>());
            assert_ne!(find::<before::T>().0.hash, find::<after::T>().0.hash);
        }
    )*};
}

differ_when_written! {
    an_optional_field_behind_flatten:
        { pub(super) struct T { a: u32, #[serde(flatten)] s: S } pub(super) struct S { id: u32, tags: Vec<String> } }
        { pub(super) struct T { a: u32, #[serde(flatten)] s: S } pub(super) struct S { id: u32, tags: Vec<String>, b: Option<u8> } }
    the_name_of_an_optional_field_behind_flatten:
        { pub(super) struct T { a: u32, #[serde(flatten)] s: S } pub(super) struct S { b: Option<u8> } }
        { pub(super) struct T { a: u32, #[serde(flatten)] s: S } pub(super) struct S { c: Option<u8> } }
    a_field_with_a_default_behind_flatten_in_a_list:
        { pub(super) struct T { all: Vec<F> } pub(super) struct F { a: u64, #[serde(flatten)] s: S } pub(super) struct S { id: u32 } }
        { pub(super) struct T { all: Vec<F> } pub(super) struct F { a: u64, #[serde(flatten)] s: S } pub(super) struct S { id: u32, #[serde(default)] on: bool } }
}

/// The keys of a map are values, and are written in another order each time.
#[test]
fn keys_of_a_map_are_no_names() {
    use std::sync::atomic::{AtomicU8, Ordering};

    #[derive(Serialize, Deserialize)]
    struct T {
        #[serde(flatten)]
        rest: HashMap<String, u8>,
        #[serde(default = "other_keys")]
        of: HashMap<u8, String>,
    }
    fn other_keys() -> HashMap<u8, String> {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let key = || LAST.fetch_add(1, Ordering::Relaxed);
        (0..2).map(|_| (key(), String::new())).collect()
    }
    let shape = probe::run_and_write::<T>();
    assert_ne!(shape, probe::run::<T>(), "names are part of the shape");
    assert_eq!(shape, probe::run_and_write::<T>());
}

/// A made-up value may break a rule that the type's `Serialize` relies on.
#[test]
fn a_serialize_that_panics_hides_no_variant() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct T<X> {
        #[serde(flatten)]
        s: S,
        kind: Kind<X>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct S {
        id: u8,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Kind<X> {
        A,
        B,
        C,
        D,
        E,
        // The last one that is read.
        F(X),
    }
    impl<X> Serialize for T<X> {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("on purpose")
        }
    }
    assert_ne!(find::<T<u8>>().0.hash, find::<T<i8>>().0.hash);
}
