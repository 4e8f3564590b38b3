//! Parts whose values serde buffers.

use super::*;

differ! {
    an_optional_field_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: u8, z: Option<u8> } } }
    the_name_of_an_optional_field_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: Option<u8> } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { z: Option<u8> } } }
    the_type_of_an_optional_field_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: Option<u8> } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B { y: Option<u16> } } }
    a_field_with_a_default_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { y: u8, #[serde(default)] z: bool } } }
    the_name_of_a_field_with_a_default_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { y: u8, #[serde(default)] x: bool } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { y: u8, #[serde(default)] z: bool } } }
    an_optional_field_of_the_struct_in_an_internally_tagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B(S) } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<String> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: u8 }, B(S) } }
    an_optional_field_of_a_boxed_internally_tagged_enum:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8 }, B { y: u8 } } #[derive(Deserialize)] pub(super) struct T { a: u8, b: String, c: super::Wrapped<u8>, d: Vec<Option<Box<E>>>, e: u8 } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8 }, B { y: u8, z: Option<u8> } } #[derive(Deserialize)] pub(super) struct T { a: u8, b: String, c: super::Wrapped<u8>, d: Vec<Option<Box<E>>>, e: u8 } }
    an_optional_field_in_a_list_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: Vec<S> } } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: Vec<S> } } }
    an_optional_field_in_an_optional_part_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: Option<Box<S>> } } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: Option<Box<S>> } } }
    an_optional_field_in_a_map_of_an_internally_tagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: std::collections::BTreeMap<String, S> } } }
        { #[derive(Deserialize)] pub(super) struct S { a: Option<u8>, b: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: std::collections::BTreeMap<String, S> } } }
    an_optional_field_of_a_variant_in_an_internally_tagged_variant:
        { #[derive(Deserialize)] pub(super) enum S { P, Q { a: u8 } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: S } } }
        { #[derive(Deserialize)] pub(super) enum S { P, Q { a: u8, b: Option<u8> } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: S } } }
    an_optional_field_of_a_tagged_enum_in_a_tagged_enum:
        { #[derive(Deserialize)] #[serde(tag = "k")] pub(super) enum S { P, Q { a: u8 } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: S } } }
        { #[derive(Deserialize)] #[serde(tag = "k")] pub(super) enum S { P, Q { a: u8, b: Option<u8> } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: S } } }
    an_optional_field_of_an_adjacent_enum_in_a_tagged_enum:
        { #[derive(Deserialize)] #[serde(tag = "k", content = "c")] pub(super) enum S { P, Q { a: u8 } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: S } } }
        { #[derive(Deserialize)] #[serde(tag = "k", content = "c")] pub(super) enum S { P, Q { a: u8, b: Option<u8> } } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { w: u8, x: S } } }
    an_optional_field_of_an_adjacently_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B { y: u8, z: Option<u8> } } }
    the_name_of_an_optional_field_of_an_adjacently_tagged_variant:
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B { y: Option<u8> } } }
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B { z: Option<u8> } } }
    an_optional_field_of_the_struct_in_an_adjacently_tagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: u8 } #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B(Option<Box<S>>) } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: u8, c: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { A { x: u8 }, B(Option<Box<S>>) } }
    an_optional_field_of_an_untagged_variant:
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: u8 }, B { y: u8, z: Option<u8> } } }
    the_name_of_an_optional_field_of_an_untagged_variant:
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: Option<u8> }, B { y: u8, v: Option<u8> } } }
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: Option<u8> }, B { y: u8, w: Option<u8> } } }
    an_optional_field_of_the_struct_in_an_untagged_variant:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(u8), B(Box<S>), C(Vec<S>) } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(u8), B(Box<S>), C(Vec<S>) } }
    the_order_of_untagged_variants:
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A { x: u8 }, B { x: u8, y: u8 } } }
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { B { x: u8, y: u8 }, A { x: u8 } } }
    an_optional_field_behind_a_flattened_one:
        { #[derive(Deserialize)] pub(super) struct I { x: u8 } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
        { #[derive(Deserialize)] pub(super) struct I { x: u8, y: Option<u32> } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
    an_optional_field_beside_a_flattened_one:
        { #[derive(Deserialize)] pub(super) struct I { x: u8 } #[derive(Deserialize)] pub(super) struct S { a: u8, #[serde(flatten)] i: I } #[derive(Deserialize)] pub(super) struct T { list: Vec<S> } }
        { #[derive(Deserialize)] pub(super) struct I { x: u8 } #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<String>, #[serde(flatten)] i: I } #[derive(Deserialize)] pub(super) struct T { list: Vec<S> } }
    an_optional_field_of_a_part_of_a_flattened_one:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] pub(super) struct I { x: Vec<S> } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] pub(super) struct I { x: Vec<S> } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] i: I } }
    an_optional_field_of_the_values_of_a_flattened_map:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] more: std::collections::HashMap<String, S> } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] pub(super) struct T { a: u8, #[serde(flatten)] more: std::collections::HashMap<String, S> } }
    an_optional_field_of_a_flattened_tagged_enum:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8 }, B { y: u8 } } #[derive(Deserialize)] pub(super) struct T { a: u64, #[serde(flatten)] e: E } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8 }, B { y: u8, z: Option<String> } } #[derive(Deserialize)] pub(super) struct T { a: u64, #[serde(flatten)] e: E } }
    a_variant_that_becomes_a_struct:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { z: Option<u8> } } }
    a_field_that_becomes_optional:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { z: bool } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A, B { z: Option<bool> } } }
    an_optional_field_where_others_are_denied:
        { #[derive(Deserialize)] #[serde(tag = "t", deny_unknown_fields)] pub(super) enum T { A { x: u8 }, B { y: u8 } } }
        { #[derive(Deserialize)] #[serde(tag = "t", deny_unknown_fields)] pub(super) enum T { A { x: u8 }, B { y: u8, z: Option<u8> } } }
    an_optional_field_of_a_variant_in_an_adjacently_tagged_variant:
        { #[derive(Deserialize)] pub(super) enum S { M, N { a: u8 } } #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { P(u8), Q(S), R(u8) } }
        { #[derive(Deserialize)] pub(super) enum S { M, N { a: u8, b: Option<u8> } } #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum T { P(u8), Q(S), R(u8) } }
    an_optional_field_behind_a_variant_that_takes_every_map:
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(String), B(std::collections::BTreeMap<String, String>), C { a: Option<u8> } } }
        { #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(String), B(std::collections::BTreeMap<String, String>), C { a: Option<u8>, b: Option<u8> } } }
    an_optional_field_in_the_second_part_of_a_tuple:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(u8), B(String, Box<S>) } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] #[serde(untagged)] pub(super) enum T { A(u8), B(String, Box<S>) } }
    an_optional_field_in_a_map_whose_keys_are_numbers:
        { #[derive(Deserialize)] pub(super) struct S { a: u8 } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: std::collections::BTreeMap<u32, S> } } }
        { #[derive(Deserialize)] pub(super) struct S { a: u8, b: Option<u8> } #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { A { x: std::collections::BTreeMap<u32, S> } } }
    an_optional_field_of_a_variant_that_contains_its_enum:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { Leaf { v: u8 }, Both { l: Box<T>, r: Box<T>, m: Vec<T> }, One { l: Option<Box<T>> } } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum T { Leaf { v: u8 }, Both { l: Box<T>, r: Box<T>, m: Vec<T> }, One { l: Option<Box<T>>, z: Option<u8> } } }
    an_optional_field_of_a_small_variant_of_a_flattened_enum:
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8 }, B { y: String } } #[derive(Deserialize)] pub(super) struct T { a: u64, ip: std::net::IpAddr, #[serde(flatten)] e: E } }
        { #[derive(Deserialize)] #[serde(tag = "t")] pub(super) enum E { A { x: u8, z: Option<u8> }, B { y: String } } #[derive(Deserialize)] pub(super) struct T { a: u64, ip: std::net::IpAddr, #[serde(flatten)] e: E } }
    an_optional_field_of_a_flattened_adjacently_tagged_enum:
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum E { A { x: u8 }, B { y: String } } #[derive(Deserialize)] pub(super) struct T { a: u64, #[serde(flatten)] e: E } }
        { #[derive(Deserialize)] #[serde(tag = "t", content = "c")] pub(super) enum E { A { x: u8, z: Option<u8> }, B { y: String } } #[derive(Deserialize)] pub(super) struct T { a: u64, #[serde(flatten)] e: E } }
}
