//! Generated code means the same whatever the names around it mean.

#![no_implicit_prelude]
#![deny(warnings)]
#![forbid(unsafe_code)]
#![allow(
    dead_code,
    non_camel_case_types,
    reason = "the names are there to be in the way"
)]

use ::cache_runtime::{cached, invalidates};
use ::std::string::{String as Text, ToString};

mod core {}
mod std {}
mod alloc {}
mod cache_runtime {}
mod serde {}
struct Result;
struct Option;
struct String;
struct Some;
struct None;
struct Ok;
struct Err;
struct Box;
struct Vec;
struct Site;
struct Read;
struct Write;
struct Shape;
trait Clone {}
trait Send {}
trait Future {}
trait AsRef {}
trait Into {}
mod linkme {}

const USERS: &str = "users";

struct Users {
    cache: ::cache_runtime::Cache,
}

impl ::std::convert::AsRef<Users> for Users {
    fn as_ref(&self) -> &Users {
        self
    }
}

impl Users {
    #[cached(resource = USERS, ttl = "1500ms", none_ttl = 5, version = 2, cache = self.cache)]
    async fn get(&self, id: i64) -> ::std::result::Result<::std::option::Option<Text>, Text> {
        let text = ToString::to_string(&id);
        ::std::result::Result::Ok(::std::option::Option::Some(text))
    }

    #[invalidates("users", id = (name, result), rejected = |e| e.is_empty())]
    async fn update(&self, name: Text) -> ::std::result::Result<i64, Text> {
        if name.is_empty() {
            return ::std::result::Result::Err(name);
        }
        let _ = self.get(1).await?;
        ::std::result::Result::Ok(1)
    }
}

#[cached(resource = "users", op = "boxed", tags("a{id}"), depends("teams"), when = id > 0, unless = |n| *n == 0)]
fn boxed(
    id: u8,
) -> ::std::pin::Pin<::std::boxed::Box<dyn ::std::future::Future<Output = u8> + ::std::marker::Send>>
{
    ::std::boxed::Box::pin(async move { id })
}

#[cached(resource = "users", batch = ids, codec = "json", version = 1)]
async fn many(ids: ::std::vec::Vec<i64>) -> ::std::collections::BTreeMap<i64, Text> {
    ::std::iter::Iterator::collect(::std::iter::Iterator::map(
        ::std::iter::IntoIterator::into_iter(ids),
        |id| (id, Text::new()),
    ))
}

#[invalidates(tags("a{id}"))]
fn opaque(id: u8) -> impl ::std::future::Future<Output = u8> + ::std::marker::Send {
    async move { id }
}

/// The user's names may even be those of the macro's locals.
#[cached(resource = "users")]
async fn locals(
    __cache_read: u8,
    __cache_plan: u8,
    __cache_returned: u8,
    body: u8,
    plan: u8,
) -> u8 {
    __cache_read + __cache_plan + __cache_returned + body + plan
}

#[invalidates("users", id = __cache_plan)]
async fn more_locals(__cache_write: u8, __cache_plan: u8, e: u8) -> u8 {
    __cache_write + __cache_plan + e
}

pub fn main() {
    let _ = boxed(1);
    let _ = many(::std::vec::Vec::new());
    let _ = opaque(1);
    let _ = locals(1, 2, 3, 4, 5);
    let _ = more_locals(1, 2, 3);
}
