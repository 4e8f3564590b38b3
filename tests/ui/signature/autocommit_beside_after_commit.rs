use cache_runtime::invalidates;

struct Connection;

#[invalidates("users", id = id, autocommit(connection), after_commit)]
async fn delete(connection: &mut Connection, id: i64) -> Result<(), String> {
    let _ = connection;
    Err(id.to_string())
}

fn main() {}
