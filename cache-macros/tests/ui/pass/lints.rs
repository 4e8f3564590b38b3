//! No lint fires at what the attributes add, and those of the user's own code still do.

#![deny(warnings, missing_docs, unused, unused_qualifications, unreachable_pub, nonstandard_style)]
#![deny(elided_lifetimes_in_paths, single_use_lifetimes, trivial_casts, let_underscore_drop)]
#![forbid(unsafe_code)]

use cache_runtime::{cached, invalidates};

struct Users;

impl Users {
    /// Read.
    #[cached(resource = "users", skip(_hint))]
    #[must_use = "a read without a reader"]
    async fn get(&self, mut id: i64, _hint: &str, _: bool) -> Option<i64> {
        id += 1;
        Some(id)
    }

    /// Written.
    #[invalidates("users", id = (name, result))]
    async fn update(&mut self, name: String) -> Result<i64, String> {
        if name.is_empty() {
            return Err(name);
        }
        Ok(1)
    }

    #[cached(resource = "users")]
    async fn unfinished(&self, _id: i64) -> Option<i64> {
        todo!()
    }

    #[invalidates("users")]
    async fn unit(&self) {}

    #[cached(resource = "users", op = "silent")]
    async fn inner_attribute(&self) -> u8 {
        #![allow(unused_variables)]
        let unused = 1;
        2
    }

    #[cached(resource = "users", op = "expected")]
    #[expect(unused_variables, reason = "the lint still sees the body")]
    async fn outer_attribute(&self) -> u8 {
        let unused = 1;
        2
    }

    #[allow(dead_code)]
    #[cached(resource = "users", op = "deprecated")]
    #[deprecated]
    async fn old(&self) -> u8 {
        2
    }
}

fn main() {
    let mut users = Users;
    drop(users.get(1, "", true));
    drop(users.update(String::new()));
    drop(users.unfinished(1));
    drop(users.unit());
    drop(users.inner_attribute());
    drop(users.outer_attribute());
}
