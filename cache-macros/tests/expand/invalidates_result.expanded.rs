use cache_runtime::invalidates;
struct Users;
impl Users {
    async fn create(&self, name: &str) -> Result<String, String> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::invalidates("create", "users:{result.len()}");
        __crt::Shape::<Result<String, String>>::OF
            .__write(&__CRT, |__p| __p.resource("users"))
            .result(move |__p, result| __p.resource("users").id(&result.len()))
            .run(move |__kind| async move {
                if __kind.unreached() {
                    return __kind.value();
                }
                Ok(name.to_owned())
            })
            .await
    }
}
