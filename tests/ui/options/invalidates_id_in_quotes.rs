use cache_runtime::invalidates;

#[invalidates("users", id = "#id", "teams", id = "#result.team")]
async fn remove(id: i64) -> Member {
    Member { team: id }
}

struct Member {
    team: i64,
}

fn main() {}
