use cache_runtime::cached;

#[cached(resource = "users")]
async fn get(id: i64) -> ! {
    panic!("{id}")
}

fn main() {}
