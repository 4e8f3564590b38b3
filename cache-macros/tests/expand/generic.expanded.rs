use cache_runtime::cached;
/// `pages:first:<hash>`
pub async fn first<T: serde::Serialize, const N: usize>(all: &[T]) -> Option<usize> {
    use ::cache_runtime::__private as __crt;
    #[used]
    #[unsafe(link_section = "linkme_SITES")]
    static __CRT: __crt::Site = __crt::cached("first", "pages:first, ttl 300");
    __crt::Shape::<Option<usize>>::OF
        .read(&__CRT, "pages")
        .plan(|__plan| __plan.type_param::<T>().arg(&N).arg(&all).ttl(300u64))
        .run(async move |__kind| {
            #[allow(clippy::diverging_sub_expression)]
            let _ = __kind.unreached() && return __kind.value();
            all.len().checked_sub(N)
        })
        .await
}
