use cache_runtime::cached;
struct Users {
    tenant: i64,
}
impl Users {
    /// `users:list:by-age:<hash>`
    pub async fn list(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
            "macrotest001",
            "list",
        );
        let __cache_kind = ::cache_runtime::__private::Shape::<Vec<String>>::OF.kind();
        let __cache_read = ::cache_runtime::__private::Read::new(
            &__CACHE_SITE,
            ::cache_runtime::__private::global(),
            __cache_kind,
            |__cache_plan| {
                __cache_plan
                    .resource("users")
                    .op("list:by-age")
                    .arg(&skip)
                    .arg(&limit)
                    .arg(&self.tenant)
            },
        );
        __cache_read
            .run(async move || {
                if let ::core::option::Option::Some(__cache_returned) = __cache_kind
                    .unreached()
                {
                    return __cache_returned;
                }
                ::alloc::boxed::box_assume_init_into_vec_unsafe(
                    ::alloc::intrinsics::write_box_via_move(
                        ::alloc::boxed::Box::new_uninit(),
                        [
                            ::alloc::__export::must_use({
                                ::alloc::fmt::format(
                                    format_args!("{0} {1} {2}", pool, skip, limit),
                                )
                            }),
                        ],
                    ),
                )
            })
            .await
    }
}
