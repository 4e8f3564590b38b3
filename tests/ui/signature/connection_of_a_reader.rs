use cache_runtime::cached;

struct PgConnection;

#[cached(resource = "users", skip(connection))]
async fn get(connection: &mut PgConnection, id: i64) -> Option<String> {
    let _ = connection;
    Some(id.to_string())
}

fn main() {}
