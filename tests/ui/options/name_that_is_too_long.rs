use cache_runtime::cached;

#[cached(
    resource = "a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-",
    op = "a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-a-resource-"
)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
