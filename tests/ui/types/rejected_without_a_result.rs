use cache_runtime::invalidates;

struct Renamed;

#[invalidates("users", rejected = |_| true)]
async fn rename(id: i64) -> Renamed {
    let _ = id;
    Renamed
}

fn main() {}
