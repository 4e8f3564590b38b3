use cache_runtime::cached;
struct Users {
    tenant: i64,
}
impl Users {
    /// `users:list:<hash>`
    pub async fn list(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::cached("list", "users:list", || ());
        __crt::Shape::<Vec<String>>::OF
            .__form()
            .__read(
                &__CRT,
                "users",
                |__p| {
                    __p
                        .arg(&skip)
                        .arg(&limit)
                        .arg_of(__crt::argument(&self.tenant).__known())
                },
            )
            .run(move |__kind| async move {
                if __kind.unreached() {
                    return __kind.value();
                }
                self.page(pool, skip, limit)
            })
            .await
    }
    fn page(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        let page = (skip..limit).map(|row| row.to_string());
        page.chain([pool.to_owned()]).collect()
    }
}
