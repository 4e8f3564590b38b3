use std::fmt::Display;

use cache_runtime::cached;

struct Prices;

impl Prices {
    #[cached(resource = "prices", op = "a", swr = 60)]
    async fn mutable(&mut self, id: i64) -> u32 {
        id as u32
    }

    #[cached(resource = "prices", op = "b", swr = 60, skip(list))]
    async fn pushed(&self, list: &mut Vec<i64>, id: i64) -> u32 {
        list.push(id);
        1
    }

    #[cached(resource = "prices", op = "c", swr = 60, key(id))]
    async fn shown(&self, shown: &dyn Display, id: i64) -> u32 {
        id as u32
    }

    #[cached(resource = "prices", op = "d", swr = 60)]
    async fn nested(&self, market: Option<&str>) -> u32 {
        market.map_or(0, |market| market.len() as u32)
    }
}

fn main() {}
