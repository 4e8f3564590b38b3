use cache_runtime::cached;

#[cached(resource = "prices", timeout = "2s")]
async fn price(id: i64) -> u32 {
    id as u32
}

fn main() {}
