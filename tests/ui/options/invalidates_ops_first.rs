use cache_runtime::invalidates;

#[invalidates(ops("list"), "users")]
async fn reorder() {}

fn main() {}
