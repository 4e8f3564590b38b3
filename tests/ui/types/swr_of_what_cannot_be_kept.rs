use cache_runtime::cached;

struct Tariffs;

struct Market(u8);

impl Tariffs {
    #[cached(resource = "prices", op = "a", swr = 60)]
    async fn price(&self, id: i64) -> u32 {
        self.load(id)
    }

    fn load(&self, id: i64) -> u32 {
        id as u32
    }
}

#[cached(resource = "prices", op = "b", key(market.0), swr = 60)]
async fn in_market(market: &Market) -> u32 {
    market.0.into()
}

fn main() {}
