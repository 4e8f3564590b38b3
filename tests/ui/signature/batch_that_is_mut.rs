use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(mut ids: Vec<i64>) -> HashMap<i64, String> {
    ids.sort();
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
