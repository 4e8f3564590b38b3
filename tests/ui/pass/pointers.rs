//! Pointers that share a text or a list are values, too.

use std::sync::Arc;

use cache_runtime::cached;

#[cached(resource = "names")]
async fn name(id: i64) -> Arc<str> {
    id.to_string().into()
}

#[cached(resource = "names", op = "all")]
async fn names(of: Arc<str>) -> Result<Option<Arc<[Arc<str>]>>, std::fmt::Error> {
    Ok(Some([of].into()))
}

pub fn main() {
    drop(name(1));
    drop(names("a".into()));
}
