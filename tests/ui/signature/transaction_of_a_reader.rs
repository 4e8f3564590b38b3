use cache_runtime::cached;

struct Transaction<'a>(&'a ());

#[cached(resource = "users", skip(tx))]
async fn get(tx: &mut Transaction<'_>, id: i64) -> Option<String> {
    let _ = tx;
    Some(id.to_string())
}

fn main() {}
