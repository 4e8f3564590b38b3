use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> Vec<String> {
    ids.iter().map(i64::to_string).collect()
}

#[cached(resource = "users", batch = ids)]
async fn first(ids: Vec<i64>) -> Option<String> {
    ids.first().map(i64::to_string)
}

fn main() {}
