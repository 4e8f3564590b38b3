use std::sync::Arc;

use cache_runtime::cached;

struct Parcel {
    id: i64,
}

#[cached(resource = "users")]
async fn get(id: i64) -> Option<Arc<Parcel>> {
    Some(Arc::new(Parcel { id }))
}

#[cached(resource = "users", op = "list")]
async fn list(id: i64) -> Vec<Parcel> {
    vec![Parcel { id }]
}

fn main() {}
