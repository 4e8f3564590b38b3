use cache_runtime::invalidates;

enum DbError {
    Conflict,
}

#[invalidates("users", rejected = |e| matches!(e, DbError::Conflict))]
async fn remove(id: i64) -> bool {
    id > 0
}

fn main() {}
