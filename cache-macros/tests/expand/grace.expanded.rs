use cache_runtime::cached;
#[derive(Clone)]
struct Prices {
    source: String,
}
impl Prices {
    /// Served past its time while a new one is loaded.
    async fn price(&self, market: &str, id: i64) -> Result<u32, String> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::cached("price", "prices:in", || ());
        __crt::Shape::<Result<u32, String>>::OF
            .__form()
            .__read(
                &__CRT,
                "prices",
                |__p| __p.op("in").arg(&market).arg(&id).swr(300u64).timeout(2u64),
            )
            .run_detached(move |__kind| {
                let (__this, __market) = (__crt::owned(self), __crt::owned(market));
                async move {
                    let (__this, market): (&Self, &str) = (&__this, &__market);
                    let _ = (&__this, &market);
                    if __kind.unreached() {
                        return __kind.value();
                    }
                    Ok((__this.source.len() + market.len()) as u32 + id as u32)
                }
            })
            .await
    }
    /// The body says for how long.
    async fn rate(&self, id: i64) -> Result<u32, String> {
        use ::cache_runtime::__private as __crt;
        static __CRT: __crt::Site = __crt::cached("rate", "prices:{id: i64}", || ());
        let load = __crt::LoadContext::new();
        __crt::Shape::<Result<u32, String>>::OF
            .__form()
            .__read(&__CRT, "prices", |__p| __p.id(&id).early(1.0).jitter(0.1f64))
            .context(&load)
            .run(move |__kind| async move {
                if __kind.unreached() {
                    return __kind.value();
                }
                load.ttl(60);
                Ok(id as u32)
            })
            .await
    }
}
