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

/// Its values are written in another order each time, and its keys are values.
#[test]
fn maps_have_no_names() {
    use std::collections::HashMap;
    #[derive(Serialize, Deserialize)]
    struct T {
        #[serde(flatten)]
        rest: HashMap<String, u8>,
        of: HashMap<u8, String>,
    }
    assert_eq!(
        probe::run_and_write::<T>().hash,
        probe::run_and_write::<T>().hash
    );
}
