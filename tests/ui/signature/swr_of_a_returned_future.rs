use std::future::Future;

use cache_runtime::cached;

#[cached(resource = "prices", swr = 60)]
fn price(id: i64) -> impl Future<Output = u32> {
    async move { id as u32 }
}

fn main() {}
