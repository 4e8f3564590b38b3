use cache_runtime::cached;
/// `pages:first:<hash>`
pub async fn first<'a, T, const N: usize>(
    (a, mut b): (u8, u8),
    names: &'a [T],
    _: T,
) -> Option<u8>
where
    T: ToString + serde::Serialize,
{
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
        "macrotest005",
        "first",
    );
    let __cache_kind = ::cache_runtime::__private::Shape::<Option<u8>>::OF.kind();
    let __cache_read = ::cache_runtime::__private::Read::new(
        &__CACHE_SITE,
        ::cache_runtime::__private::global(),
        __cache_kind,
        |__cache_plan| {
            __cache_plan
                .resource("pages")
                .op("first")
                .type_param::<T>()
                .arg(&N)
                .arg(&a)
                .arg(&b)
                .arg(&names)
                .ttl(300u64)
                .cache_none(false)
        },
    );
    __cache_read
        .run(async move || {
            if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                .unreached()
            {
                return __cache_returned;
            }
            b += names.iter().take(N).map(T::to_string).count() as u8;
            a.checked_add(b)
        })
        .await
}
