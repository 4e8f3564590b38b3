use cache_runtime::cached;

#[cached(resource = "users", strict, local_ttl = 5)]
async fn by_id(id: i64) -> Option<String> {
    let _ = id;
    None
}

#[cached(resource = "users", op = "name", local = false, local_ttl = 5)]
async fn name(id: i64) -> Option<String> {
    let _ = id;
    None
}

#[cached(resource = "users", op = "mail", strict, local = true)]
async fn mail(id: i64) -> Option<String> {
    let _ = id;
    None
}

fn main() {}
