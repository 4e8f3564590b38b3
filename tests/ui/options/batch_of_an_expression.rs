use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = &ids[1..])]
async fn many(ids: &[i64]) -> HashMap<i64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
