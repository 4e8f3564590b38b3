use cache_runtime::invalidates;
pub(crate) async fn rename(
    id: i64,
    mut name: String,
) -> Result<String, std::fmt::Error> {
    static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
        "macrotest007",
        "rename",
    );
    let __cache_kind = ::cache_runtime::__private::Shape::<
        Result<String, std::fmt::Error>,
    >::OF
        .kind();
    let __cache_write = ::cache_runtime::__private::Write::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::global(),
            __cache_kind,
            |__cache_plan| __cache_plan.resource("users").id(&id).resource("teams"),
        )
        .on_ok();
    __cache_write
        .run(async move || {
            if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                .unreached()
            {
                return __cache_returned;
            }
            name.push_str(&id.to_string());
            Ok(name)
        })
        .await
}
