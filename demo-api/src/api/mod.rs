//! The HTTP side: routes, documentation, errors, and the `Cache-Status` header.

mod cache;
mod cache_status;
mod crud;
mod error;
mod health;
mod json;
mod purchases;

use cache_runtime::poem::NotModified;
use poem::middleware::CatchPanic;
use poem::{Endpoint, EndpointExt, Response, Route};
use poem_openapi::{OpenApiService, Tags};
use sqlx::AnyPool;

use self::cache::CacheApi;
use self::crud::CrudApi;
use self::health::HealthApi;
use self::purchases::PurchasesApi;
use crate::products::Product;
use crate::resource::Resource;
use crate::users::User;

/// The headings of the API documentation.
#[derive(Debug, Tags)]
pub enum ApiTag {
    /// Every write makes the cache forget all of `users:*`.
    Users,
    /// An update makes the cache forget that product and everything derived from it.
    Products,
    /// One transaction that writes a user and a product.
    Purchases,
    /// What the cache holds, and how to make it forget.
    Cache,
    /// Whether the parts are there.
    Health,
}

/// The resources that `DELETE /cache/{resource}` knows.
pub(crate) const RESOURCES: [&str; 2] = [User::RESOURCE, Product::RESOURCE];

/// Everything that the server answers to.
pub fn routes(pool: AnyPool) -> impl Endpoint<Output = Response> + 'static {
    let api = OpenApiService::new(
        (
            CrudApi::<User>::new(pool.clone()),
            CrudApi::<Product>::new(pool.clone()),
            PurchasesApi::new(pool.clone()),
            CacheApi,
            HealthApi::new(pool),
        ),
        "Cached demo API",
        env!("CARGO_PKG_VERSION"),
    )
    .description("Reads say in their `Cache-Status` header whether the cache answered.");
    // The page carries Swagger UI inside, so it works offline too.
    Route::new()
        .nest("/docs", api.swagger_ui())
        .at("/openapi.json", api.spec_endpoint())
        .nest("/", api)
        .with(CatchPanic::new().with_handler(error::after_panic))
        .catch_all_error(error::to_response)
        .with(NotModified)
        .around(cache_status::add_header)
}
