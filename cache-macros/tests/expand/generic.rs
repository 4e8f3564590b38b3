use cache_runtime::cached;

/// `pages:first:<hash>`
#[cached(resource = "pages", ttl = "5m", cache_none = false)]
pub async fn first<'a, T, const N: usize>((a, mut b): (u8, u8), names: &'a [T], _: T) -> Option<u8>
where
    T: ToString + serde::Serialize,
{
    b += names.iter().take(N).map(T::to_string).count() as u8;
    a.checked_add(b)
}
