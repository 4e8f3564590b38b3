use cache_runtime::cached;

/// `pages:first:<hash>`
#[cached(resource = "pages", ttl = "5m")]
pub async fn first<T: serde::Serialize, const N: usize>(all: &[T]) -> Option<usize> {
    all.len().checked_sub(N)
}
