use cache_runtime::{cached, invalidates};

#[cached(resource = "users")]
fn get(id: i64) -> Box<dyn Fn() -> Option<String>> {
    Box::new(move || Some(id.to_string()))
}

#[invalidates("users")]
fn wipe() -> impl Iterator<Item = i64> {
    [1].into_iter()
}

fn main() {}
