use cache_runtime::invalidates;

#[invalidates("users")]
fn wipe() -> impl Iterator<Item = i64> {
    [1].into_iter()
}

fn main() {}
