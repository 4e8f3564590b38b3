use cache_runtime::cached;
struct Users;
impl Users {
    /// `users:1`
    pub async fn get(&self, id: i64) -> Result<Option<String>, std::fmt::Error> {
        static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            "macrotest003",
            "get",
        );
        let __cache_kind = ::cache_runtime::__private::Shape::<
            Result<Option<String>, std::fmt::Error>,
        >::OF
            .kind();
        let __cache_read = ::cache_runtime::__private::Read::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::global(),
            __cache_kind,
            |__cache_plan| __cache_plan.resource("users").id(&id).ttl(300u64),
        );
        __cache_read
            .run(async move || {
                if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                    .unreached()
                {
                    return __cache_returned;
                }
                Ok(Some(id.to_string()))
            })
            .await
    }
}
