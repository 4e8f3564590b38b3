//! A framework that re-exports the crate under another name.

mod framework {
    pub mod caching {
        #[doc(hidden)]
        pub use cache_runtime::__private;
        pub use cache_runtime::*;
    }
}

use framework::caching as cache_of_ours;

#[cache_of_ours::cached(resource = "users", crate = cache_of_ours)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[cache_of_ours::invalidates("users", crate = crate::renamed::framework::caching)]
async fn update(id: i64) -> Result<i64, String> {
    Ok(id)
}

pub fn main() {
    drop(get(1));
    drop(update(1));
}
