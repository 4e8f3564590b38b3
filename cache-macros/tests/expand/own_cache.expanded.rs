use cache_runtime::cached;
struct Users {
    cache: cache_runtime::Cache,
    tenant: i64,
}
impl Users {
    const RESOURCE: &str = "users";
    /// `users:7,1`
    async fn get(&self, user: &str) -> Option<String> {
        static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            "macrotest011",
            "get",
        );
        let __cache_kind = ::cache_runtime::__private::Shape::<Option<String>>::OF
            .kind();
        let __cache_read = ::cache_runtime::__private::Read::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::own(&self.cache),
            __cache_kind,
            |__cache_plan| {
                __cache_plan
                    .resource(Self::RESOURCE)
                    .id(&(&self.tenant, &user))
                    .none_ttl(::core::time::Duration::from_millis(500u64))
                    .version(2u32)
            },
        );
        __cache_read
            .run(async move || {
                if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                    .unreached()
                {
                    return __cache_returned;
                }
                Some(user.to_owned())
            })
            .await
    }
}
