use cache_runtime::cached;
struct Users;
impl Users {
    /// `users:1`
    pub async fn get(&self, id: i64) -> Result<Option<String>, std::fmt::Error> {
        static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            "macrotest003",
            "get",
            ::core::panic::Location::caller().file(),
            ::core::panic::Location::caller().line(),
        );
        let __cache_read = ::cache_runtime::__private::Read::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::global(),
            |__cache_plan| __cache_plan.resource("users").id(&id).ttl(300u64),
        );
        __cache_read
            .run(
                ::cache_runtime::__private::Shape::<
                    Result<Option<String>, std::fmt::Error>,
                >::OF
                    .kind(),
                async move || {
                    if let ::core::option::Option::Some(__cache_returned) = ::core::option::Option::None::<
                        Result<Option<String>, std::fmt::Error>,
                    > {
                        return __cache_returned;
                    }
                    Ok(Some(id.to_string()))
                },
            )
            .await
    }
}
