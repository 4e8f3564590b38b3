use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "prices", batch = ids, swr = 60)]
async fn prices(ids: &[i64]) -> HashMap<i64, u32> {
    ids.iter().map(|id| (*id, 1)).collect()
}

fn main() {}
