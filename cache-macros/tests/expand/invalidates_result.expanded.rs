use cache_runtime::invalidates;
struct Users;
impl Users {
    async fn create(&self, name: &str) -> Result<String, String> {
        use ::cache_runtime::__private as __cache;
        #[used]
        #[unsafe(link_section = "linkme_SITES")]
        static __CACHE_SITE: __cache::Site = __cache::invalidates(
            "create",
            "users:{result.len()}",
        );
        __cache::Shape::<Result<String, String>>::OF
            .write(&__CACHE_SITE, |__plan| __plan.resource("users"))
            .rejected(|e| e.is_empty())
            .result(move |__plan, result| __plan.resource("users").id(&result.len()))
            .run(async move |__kind| {
                let _ = __kind.unreached() && return __kind.value();
                Ok(name.to_owned())
            })
            .await
    }
}
