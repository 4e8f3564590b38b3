//! No lint fires at what the attributes add, and those of the user's own code still do.

#![deny(
    warnings,
    missing_docs,
    unused,
    unused_qualifications,
    unreachable_pub,
    nonstandard_style
)]
#![deny(
    unreachable_code,
    unused_mut,
    unused_lifetimes,
    redundant_lifetimes,
    explicit_outlives_requirements
)]
#![deny(
    keyword_idents,
    unused_results,
    variant_size_differences,
    unused_import_braces,
    unit_bindings
)]
#![deny(
    elided_lifetimes_in_paths,
    single_use_lifetimes,
    trivial_casts,
    let_underscore_drop
)]
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

    #[cached(resource = "users", op = "returning", tags("a{id}"), when = id > 0, unless = |n| *n == 0)]
    async fn returning(&self, id: i64) -> i64 {
        return id;
    }

    #[cached(resource = "users", op = "qualified", ttl = std::time::Duration::from_secs(5))]
    async fn qualified<'a>(&'a self, id: &'a str) -> std::io::Result<Vec<u8>> {
        std::fs::read(id)
    }

    #[cached(resource = "users", op = "boxed", depends("teams"))]
    fn boxed<'a>(
        &'a self,
        id: &'a i64,
    ) -> std::pin::Pin<Box<dyn Future<Output = i64> + Send + 'a>> {
        if *id == 0 {
            return Box::pin(async { 0 });
        }
        Box::pin(async move { *id })
    }

    #[cached(resource = "users", op = "opaque", shared)]
    fn opaque(&self, mut id: i64) -> impl Future<Output = i64> + Send {
        id += 1;
        async move { id }
    }

    #[cached(resource = "users", batch = ids)]
    async fn many(&self, ids: &[i64]) -> std::collections::HashMap<i64, i64> {
        ids.iter().map(|id| (*id, *id)).collect()
    }

    /// The closure's parameter has the name of the function's.
    #[invalidates("users", ids = result.iter().map(|id| id + 1))]
    async fn renumber(&mut self, id: i64) -> Vec<i64> {
        vec![id]
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

/// Runs.
pub fn main() {
    let mut users = Users;
    drop(users.get(1, "", true));
    drop(users.update(String::new()));
    drop(users.renumber(1));
    drop(users.unfinished(1));
    drop(users.returning(1));
    drop(users.qualified(""));
    drop(users.boxed(&1));
    drop(users.opaque(1));
    drop(users.many(&[]));
    drop(users.unit());
    drop(users.inner_attribute());
    drop(users.outer_attribute());
}
