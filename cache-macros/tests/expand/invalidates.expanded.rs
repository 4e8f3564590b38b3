use cache_runtime::invalidates;
/// `users:1`, everything derived from `users`, and all of `teams`.
pub(crate) async fn rename(id: i64, name: &str) -> Result<String, std::fmt::Error> {
    use ::cache_runtime::__private as __crt;
    static __CRT: __crt::Site = __crt::invalidates("rename", "users:{id: i64}, teams");
    __crt::Shape::<Result<String, std::fmt::Error>>::OF
        .__write(&__CRT, |__p| __p.resource("users").id(&id).resource("teams"))
        .run(move |__kind| async move {
            if __kind.unreached() {
                return __kind.value();
            }
            store(id, name).await
        })
        .await
}
async fn store(id: i64, name: &str) -> Result<String, std::fmt::Error> {
    Ok([&id.to_string(), name].concat())
}
