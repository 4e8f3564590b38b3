use cache_runtime::cache_defaults;

#[cache_defaults(resource = "users")]
async fn list() -> Vec<String> {
    Vec::new()
}

#[cache_defaults(resourse = "users")]
impl Users {}

struct Users;

fn main() {}
