use cache_runtime::cached;
struct Users;
impl Users {
    /// `users:1`
    pub async fn get(&self, id: i64) -> Result<Option<String>, std::fmt::Error> {
        use ::cache_runtime::__private as __cache;
        #[used]
        #[unsafe(link_section = "linkme_SITES")]
        static __CACHE_SITE: __cache::Site = __cache::cached(
            "get",
            "users:{id: i64}, ttl 300",
        );
        __cache::Shape::<Result<Option<String>, std::fmt::Error>>::OF
            .read(&__CACHE_SITE, "users")
            .plan(|__plan| __plan.id(&id).ttl(300u64))
            .run(async move |__kind| {
                let _ = __kind.unreached() && return __kind.value();
                Ok(Some(id.to_string()))
            })
            .await
    }
}
