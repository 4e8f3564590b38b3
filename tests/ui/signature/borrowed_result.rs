use cache_runtime::cached;

#[cached(resource = "users")]
async fn get(names: &[String], id: usize) -> Option<&str> {
    names.get(id).map(String::as_str)
}

fn main() {}
