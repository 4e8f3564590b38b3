use cache_runtime::cached;

/// `pages:first:<hash>`
#[cached(resource = "pages")]
pub async fn first<T: serde::Serialize, const N: usize>(all: &[T]) -> Option<usize> {
    all.len().checked_sub(N)
}
