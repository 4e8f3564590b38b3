use std::collections::HashMap;
use cache_runtime::cached;
/// `users:1`, `users:2`, ..
async fn get_many(ids: &[i64]) -> Result<HashMap<i64, String>, std::fmt::Error> {
    use ::cache_runtime::__private as __crt;
    static __CRT: __crt::Site = __crt::cached(
        "get_many",
        "users:{ids: i64}, a batch",
        || (),
    );
    __crt::BatchShape::<Result<HashMap<i64, String>, std::fmt::Error>>::OF
        .__read(&__CRT, "users", &ids, |__p| __p.each(&ids))
        .run(async move |__kind, ids| {
            if __kind.unreached() {
                return __kind.value();
            }
            Ok(ids.iter().map(|id| (*id, id.to_string())).collect())
        })
        .await
}
