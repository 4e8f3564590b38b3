use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = ids, op = "many", id = ids, include(self.0))]
async fn many(ids: &[i64]) -> HashMap<i64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

#[cached(resource = "users", batch = ids, key(ids))]
async fn more(ids: &[i64]) -> HashMap<i64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
