use cache_runtime::cached;

#[cached(resource = "users")]
struct User {
    id: i64,
}

fn main() {}
