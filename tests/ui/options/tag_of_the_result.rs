use cache_runtime::invalidates;

#[invalidates("users", tags("team:{result}"))]
async fn create(name: String) -> Result<i64, String> {
    Err(name)
}

fn main() {}
