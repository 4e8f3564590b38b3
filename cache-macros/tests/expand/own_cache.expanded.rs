use cache_runtime::cached;
struct Users {
    cache: cache_runtime::Cache,
    tenant: i64,
}
impl Users {
    /// `users:7,1`
    async fn get(&self, user: &str) -> Option<String> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::cached(
            "get",
            "users:{(self.tenant, user)}",
            || (),
        );
        __crt::Shape::<Option<String>>::OF
            .__form()
            .__read_in(
                &self.cache,
                &__CRT,
                "users",
                |__p| __p.id_of(__crt::argument(&(&self.tenant, &user)).__known()),
            )
            .run(move |__kind| async move {
                if __kind.unreached() {
                    return __kind.value();
                }
                Some(user.to_owned())
            })
            .await
    }
}
