use cache_runtime::cached;

#[derive(Clone)]
struct Prices {
    source: String,
}

impl Prices {
    /// Served past its time while a new one is loaded.
    #[cached(resource = "prices", op = "in", swr = "5m", timeout = "2s")]
    async fn price(&self, market: &str, id: i64) -> Result<u32, String> {
        Ok((self.source.len() + market.len()) as u32 + id as u32)
    }

    /// The body says for how long.
    #[cached(resource = "prices", early, jitter = 0.1, context = load)]
    async fn rate(&self, id: i64) -> Result<u32, String> {
        load.ttl(60);
        Ok(id as u32)
    }
}
