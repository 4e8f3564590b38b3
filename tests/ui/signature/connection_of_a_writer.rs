use cache_runtime::invalidates;

struct AsyncPgConnection;

#[invalidates("users", id = id)]
async fn delete(connection: &mut AsyncPgConnection, id: i64) -> Result<(), String> {
    let _ = connection;
    Err(id.to_string())
}

fn main() {}
