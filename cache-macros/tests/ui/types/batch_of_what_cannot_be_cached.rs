use std::collections::HashMap;

use cache_runtime::cached;

struct User;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> Result<HashMap<i64, User>, std::fmt::Error> {
    Ok(ids.iter().map(|id| (*id, User)).collect())
}

fn main() {}
