use cache_runtime::{cached, invalidates};

#[cached(resource = "users", tags("team:{tem}", "all"))]
async fn get(id: i64, team: i64) -> String {
    format!("{id} {team}")
}

#[invalidates("users", id = id, tags("team:{tem}"))]
async fn change(id: i64, team: i64) {}

fn main() {}
