use std::collections::HashMap;

use cache_runtime::cached;

struct Ticket;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> Result<HashMap<i64, Ticket>, std::fmt::Error> {
    Ok(ids.iter().map(|id| (*id, Ticket)).collect())
}

fn main() {}
