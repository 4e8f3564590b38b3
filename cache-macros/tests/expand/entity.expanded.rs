use cache_runtime::cached;
struct Users;
impl Users {
    /// `users:1`
    pub async fn get(&self, id: i64) -> Result<Option<String>, std::fmt::Error> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::cached(
            "get",
            "users:{id: i64}, ttl 300",
            || (),
        );
        __crt::Shape::<Result<Option<String>, std::fmt::Error>>::OF
            .__form()
            .__read(&__CRT, "users", |__p| __p.id(&id).ttl(300u64))
            .run(move |__kind| async move {
                if __kind.unreached() {
                    return __kind.value();
                }
                Ok(Some(id.to_string()))
            })
            .await
    }
}
