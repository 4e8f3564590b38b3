use cache_runtime::cached;
/// `pages:first:<hash>`
pub async fn first<T: serde::Serialize, const N: usize>(all: &[T]) -> Option<usize> {
    use ::cache_runtime::__private as __crt;
    static __CRT: __crt::Site = __crt::cached("first", "pages:first", || ());
    __crt::Shape::<Option<usize>>::OF
        .__form()
        .__read(
            &__CRT,
            "pages",
            |__p| __p.type_param::<T>().arg(&N).arg_of(__crt::argument(&*all).__known()),
        )
        .run(move |__kind| async move {
            if __kind.unreached() {
                return __kind.value();
            }
            all.len().checked_sub(N)
        })
        .await
}
