use cache_runtime::cached;

// As cache-runtime is without its feature `msgpack`.
mod without {
    pub mod __private {
        pub use cache_runtime::__private::*;
        pub mod codec {
            pub use cache_runtime::__private::codec::NotBuiltIn as msgpack;
        }
    }
}

#[cached(resource = "users", codec = "msgpack", crate = self::without)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
