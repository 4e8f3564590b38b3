//! Arguments of types that have the name of a standard type in the program's source.
//!
//! The macros examine no argument that is written `String` or `Option<u8>`, since types of the
//! standard library serialise all that they hold. But a program may have a `String` of its own. The
//! full name of a type shows it.

use super::facts::{Fact, Subject, fact, keep};
use super::node_type::is_trusted;
use super::{Argument, Plain, WrittenFor};

/// An argument whose type is not what its name in the source says, and has to be examined.
#[inline]
pub(crate) fn examined<T: ?Sized>(value: &T, form: WrittenFor) -> Option<Argument<'_, T>> {
    let name = std::any::type_name::<T>();
    if is_common(name) || crate::base::mutation::is_active("names-of-types-trusted") {
        return None;
    }
    let of = Subject::of::<T>(false, form);
    if fact(of) == Some(Fact::All) {
        return None;
    }
    if is_trusted(name) {
        keep(of, Fact::All);
        return None;
    }
    Some(Plain(value).__known())
}

/// Whether it is the name of the usual ids. The compiler answers this for each type, so that hits
/// don't pay for it.
#[inline(always)]
fn is_common(name: &str) -> bool {
    matches!(
        name,
        "alloc::string::String"
            | "&alloc::string::String"
            | "&&alloc::string::String"
            | "str"
            | "&str"
            | "&&str"
            | "bool"
            | "char"
            | "i8"
            | "i16"
            | "i32"
            | "i64"
            | "i128"
            | "isize"
            | "u8"
            | "u16"
            | "u32"
            | "u64"
            | "u128"
            | "usize"
            | "&i32"
            | "&i64"
            | "&u32"
            | "&u64"
            | "core::option::Option<i64>"
            | "core::option::Option<u64>"
            | "core::option::Option<alloc::string::String>"
            | "core::option::Option<&str>"
    )
}
