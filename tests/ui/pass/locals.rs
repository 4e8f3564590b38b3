//! Parameters, constants and functions of the user's may be named like what the macros write.

#![deny(warnings)]
#![forbid(unsafe_code)]
#![allow(non_snake_case, reason = "the names are those of the macro")]

use std::collections::HashMap;

use cache_runtime::{Cache, cached, invalidates};

mod __rt {
    pub const fn one() -> u8 {
        1
    }
}

const __SITE: u8 = __rt::one();

#[cached(resource = "users", include(__SITE), ttl = u64::from(*__plan), when = *__rt > 0)]
async fn named_like_locals(__plan: &u8, __rt: &u8, __body: u8, plan: u8, kind: u8) -> u8 {
    let __SITE_of_mine = __SITE + __rt::one();
    *__plan + *__rt + __body + plan + kind + __SITE_of_mine
}

#[invalidates("users", id = (__plan, __rt, plan, result), rejected = |__plan| *__plan == 0)]
async fn named_like_locals_of_a_write(__plan: u8, __rt: u8, plan: u8, kind: u8) -> Result<u8, u8> {
    if kind == 0 {
        Err(__plan)
    } else {
        Ok(__rt + plan)
    }
}

mod parameters {
    #[cache_runtime::cached(resource = "users", op = "parameters")]
    pub async fn named_like_items(__SITE: u8, __rt: u8, __private: u8, cache: u8) -> u8 {
        let sum = |__SITE: u8| __SITE + __private;
        sum(__SITE) + __rt + cache
    }
}

#[cached(resource = "users", batch = __kind_of, unless = |__kind| __kind.is_empty())]
async fn many(__kind_of: &[i64]) -> HashMap<i64, String> {
    __kind_of
        .iter()
        .map(|__plan| (*__plan, String::new()))
        .collect()
}

/// A body with annotated functions of its own, one of which has the name of the function around it.
#[cached(resource = "users", op = "outer")]
async fn outer(id: i64) -> i64 {
    #[cached(resource = "users", op = "inner")]
    async fn outer(id: i64) -> i64 {
        #[invalidates("users", id = id)]
        async fn outer(id: i64) -> i64 {
            id + 1
        }
        outer(id).await
    }

    struct Local;
    impl Local {
        #[cached(resource = "users", op = "local")]
        async fn get(&self, id: i64) -> i64 {
            outer(id).await
        }
    }
    Local.get(id).await
}

/// The attribute on top of itself.
#[cached(resource = "users", op = "both", cache = cache, skip(cache))]
#[cached(resource = "users", op = "other", cache = cache, skip(cache))]
#[invalidates("teams", cache = cache)]
async fn stacked(cache: &Cache, id: i64) -> i64 {
    id
}

#[invalidates("teams", cache = cache)]
#[invalidates("users", id = result, cache = cache)]
async fn stacked_writes(cache: &Cache, id: i64) -> i64 {
    id
}

pub fn main() {
    drop(named_like_locals(&1, &2, 3, 4, 5));
    drop(named_like_locals_of_a_write(1, 2, 3, 4));
    drop(many(&[]));
    drop(parameters::named_like_items(1, 2, 3, 4));
    drop(outer(1));
    let _ = (stacked, stacked_writes);
}
