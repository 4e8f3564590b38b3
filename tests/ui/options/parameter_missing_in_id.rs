use cache_runtime::cached;

#[cached(resource = "users", id = skip)]
async fn get(skip: u32, deleted: bool) -> String {
    format!("{skip} {deleted}")
}

fn main() {}
