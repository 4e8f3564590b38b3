use cache_runtime::{Encoded, Error, cached, invalidates};

#[derive(Clone)]
struct User;

#[cached(resource = "users")]
async fn get(id: i64) -> Result<Encoded<User>, Error> {
    todo!()
}

#[invalidates("users", id = id, required)]
async fn change(id: i64) -> u64 {
    1
}

fn main() {}
