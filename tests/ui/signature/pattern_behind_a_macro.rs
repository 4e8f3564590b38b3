use cache_runtime::cached;

macro_rules! both {
    ($a:ident) => {
        ($a, _)
    };
}

#[cached(resource = "users")]
async fn get(both!(id): (i64, i64)) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
