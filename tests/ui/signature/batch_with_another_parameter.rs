use std::collections::HashMap;

use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64], country: &str) -> HashMap<i64, String> {
    ids.iter().map(|id| (*id, country.to_owned())).collect()
}

fn main() {}
