//! Annotated functions that come out of `macro_rules!`, in all the ways names get there.

use cache_runtime::{Cache, cache_defaults, cached, invalidates};

macro_rules! reads {
    ($name:ident, $resource:literal, $ttl:expr, $id:ident: $ty:ty, $body:block) => {
        #[cached(resource = $resource, ttl = $ttl, skip(hidden))]
        pub async fn $name($id: $ty, hidden: &str) -> Option<String> {
            let _ = hidden;
            $body
        }
    };
}

macro_rules! service {
    ($service:ident, $resource:expr) => {
        pub struct $service;

        impl $service {
            const RESOURCE: &str = $resource;

            #[cached(resource = Self::RESOURCE)]
            pub async fn get(&self, id: i64) -> Option<i64> {
                Some(id)
            }

            #[invalidates(Self::RESOURCE, id = id, rejected = |e| e.is_empty())]
            pub async fn update(&self, id: i64) -> Result<i64, String> {
                self.get(id).await.ok_or_else(|| "gone".to_string())
            }

            #[invalidates(Self::RESOURCE, id = result)]
            pub async fn create(&self) -> Result<i64, String> {
                Ok(1)
            }
        }
    };
}

macro_rules! keyed {
    ($($arg:ident),*; $id:expr) => {
        #[cached(resource = "pairs", id = $id)]
        pub async fn pair($($arg: i64),*) -> Option<i64> {
            Some(0 $(+ $arg)*)
        }
    };
}

/// The `self` of the options is the macro's, and that of the methods is the caller's.
macro_rules! repository {
    ($repository:ident, $resource:literal, { $($method:tt)* }) => {
        pub struct $repository {
            pub cache: Cache,
            tenant: u32,
        }

        #[cache_defaults(resource = $resource, cache = self.cache)]
        impl $repository {
            #[cached(include(self.tenant), tags("tenant:{self.tenant}"))]
            $($method)*

            #[invalidates(tags("tenant:{self.tenant}"))]
            pub async fn forget(&self) {}
        }
    };
}

repository!(Articles, "articles", {
    pub async fn of_author(&self, author: i64) -> Vec<i64> {
        vec![author, self.tenant.into()]
    }
});

reads!(user, "users", 300, id: i64, { Some(id.to_string()) });
reads!(team, "teams", "5m", name: &str, { Some(name.to_owned()) });
service!(Users, "users");
service!(Teams, concat!("te", "ams"));
keyed!(a, b; (a, b));

pub fn main() {
    let uses = |articles: Articles| {
        drop(articles.of_author(1));
        drop(articles.forget());
    };
    let _ = uses;
    drop(user(1, ""));
    drop(team("x", ""));
    drop(Users.get(1));
    drop(Users.update(1));
    drop(Teams.create());
    drop(pair(1, 2));
}
