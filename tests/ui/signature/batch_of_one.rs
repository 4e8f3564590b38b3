use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(ids: i64) -> HashMap<i64, String> {
    HashMap::from([(ids, ids.to_string())])
}

fn main() {}
