use std::collections::HashMap;

use cache_runtime::cached;

/// `users:1`, `users:2`, ..
#[cached(resource = "users", batch = ids)]
async fn get_many(ids: &[i64]) -> Result<HashMap<i64, String>, std::fmt::Error> {
    Ok(ids.iter().map(|id| (*id, id.to_string())).collect())
}
