use cache_runtime::cached;

struct Users;

#[cached(resource = "users")]
impl Users {
    async fn get(&self, id: i64) -> i64 {
        id
    }
}

fn main() {}
