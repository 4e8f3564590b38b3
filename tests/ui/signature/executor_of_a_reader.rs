use cache_runtime::cached;

trait PgExecutor<'e> {}

#[cached(resource = "users", skip(executor))]
async fn get(executor: impl PgExecutor<'_>, id: i64) -> Option<String> {
    let _ = executor;
    Some(id.to_string())
}

fn main() {}
