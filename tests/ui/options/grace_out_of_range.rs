use cache_runtime::cached;

#[cached(resource = "prices", swr = 0)]
async fn swr(id: i64) -> u32 {
    id as u32
}

#[cached(resource = "prices", op = "early", early = -1.0)]
async fn early(id: i64) -> u32 {
    id as u32
}

#[cached(resource = "prices", op = "jitter", jitter = 10)]
async fn jitter(id: i64) -> u32 {
    id as u32
}

#[cached(resource = "prices", op = "context", context = "load")]
async fn context(id: i64) -> u32 {
    id as u32
}

fn main() {}
