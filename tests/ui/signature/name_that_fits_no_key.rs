use cache_runtime::cached;

#[cached(resource = "users")]
#[allow(non_snake_case)]
async fn getAll() -> Vec<String> {
    Vec::new()
}

fn main() {}
