//! Traits that the user implements for all types may have methods that are named like those in generated code.

#![deny(warnings)]
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the names are there to be in the way")]

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;

use cache_runtime::{Cache, cached, invalidates};
use serde::{Deserialize, Serialize};

macro_rules! in_the_way {
    ($($name:ident)*) => {
        trait ByValue: Sized {
            $(fn $name(self) {})*
        }
        trait ByReference {
            $(fn $name(&self) {})*
        }
        trait ByMutableReference {
            $(fn $name(&mut self) {})*
        }
        impl<T> ByValue for T {}
        impl<T: ?Sized> ByReference for T {}
        impl<T: ?Sized> ByMutableReference for T {}
    };
}

in_the_way! {
    read read_in write write_in run run_owned run_sync run_detached unless context rejected result on_ok required
    id id_of ids arg arg_of op each each_of known type_param type_of typed typed_as untyped untyped_as
    resource tag text ttl none_ttl cache_none version codec shared local local_ttl strict in_process include_context
    max_loads memo when depends depends_row swr timeout stale_if_error early jitter audit crash_safe after_commit
    settled committed through unreached value future keep owned plan part start call body site
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Filter {
    team: Option<i64>,
}

#[derive(Clone)]
struct Users {
    cache: Cache,
    tenant: String,
}

impl Users {
    #[cached(resource = "users", ttl = 300, cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<String>, String> {
        Ok(Some(format!("{} {id}", self.tenant)))
    }

    #[cached(
        resource = "users", op = "list", include(self.tenant), tags("team:{team}", "all"), depends("teams"),
        none_ttl = 5, unless = |list| list.is_empty(), jitter = 0.1, cache = self.cache
    )]
    async fn list(&self, filter: Filter, team: Option<i64>) -> Vec<Filter> {
        let _ = team;
        vec![filter]
    }

    #[cached(resource = "users", op = "slow", swr = 60, timeout = 1, include(self.tenant), cache = self.cache)]
    async fn slow(&self, filter: &Filter) -> Option<Filter> {
        Some(filter.clone())
    }

    #[invalidates("users", id = (name, result), tags("team:{name}"), crash_safe, rejected = |e| e.is_empty(), cache = self.cache)]
    async fn update(&self, name: String) -> Result<i64, String> {
        if name.is_empty() { Err(name) } else { Ok(1) }
    }

    #[invalidates("users", ids = ids, "teams", on = ok)]
    async fn remove(&self, ids: Vec<i64>) -> Result<(), String> {
        drop(ids);
        Ok(())
    }
}

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> HashMap<i64, String> {
    ids.iter().map(|id| (*id, String::new())).collect()
}

#[cached(resource = "owned", batch = ids)]
async fn many_owned(ids: Vec<String>) -> Result<BTreeMap<String, Filter>, String> {
    Ok(ids
        .into_iter()
        .map(|id| (id, Filter { team: None }))
        .collect())
}

#[cached(resource = "users", op = "boxed")]
fn boxed<'a>(id: u8) -> Pin<Box<dyn Future<Output = u8> + Send + 'a>> {
    Box::pin(async move { id })
}

#[cached(resource = "users", op = "blocking")]
fn blocking(id: u8) -> u8 {
    id
}

pub fn main() {
    assert_eq!(blocking(2), 2);
}
