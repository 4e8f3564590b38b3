use cache_runtime::invalidates;
struct Users;
impl Users {
    async fn create(&self, team: String, name: &str) -> Result<String, String> {
        static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            "macrotest009",
            "create",
        );
        let __cache_kind = ::cache_runtime::__private::Shape::<
            Result<String, String>,
        >::OF
            .kind();
        let __cache_write = ::cache_runtime::__private::Write::new(
                &__CACHE_SITE,
                ::cache_runtime::__private::global(),
                __cache_kind,
                |__cache_plan| __cache_plan.resource("users"),
            )
            .rejected(|e| e.is_empty())
            .result({
                let team = ::core::clone::Clone::clone(&team);
                move |__cache_plan, result| {
                    __cache_plan.resource("users").id(&(&team, result.len()))
                }
            });
        __cache_write
            .run(async move || {
                if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                    .unreached()
                {
                    return __cache_returned;
                }
                if name.is_empty() {
                    return Err(team);
                }
                Ok(name.to_owned())
            })
            .await
    }
}
