use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> HashMap<u32, String> {
    ids.iter().map(|id| (*id as u32, id.to_string())).collect()
}

fn main() {}
