use cache_runtime::invalidates;
struct Users;
impl Users {
    async fn create(&self, name: &str) -> Result<String, String> {
        use ::cache_runtime::__private as __rt;
        #[used]
        #[unsafe(link_section = "linkme_SITES")]
        static __SITE: __rt::Site = __rt::invalidates("create", "users:{result.len()}");
        __rt::Shape::<Result<String, String>>::OF
            .write(&__SITE, |__p| __p.resource("users"))
            .result(move |__p, result| __p.resource("users").id(&result.len()))
            .run(async move |__kind| {
                #[allow(clippy::diverging_sub_expression)]
                let _ = __kind.unreached() && return __kind.value();
                Ok(name.to_owned())
            })
            .await
    }
}
