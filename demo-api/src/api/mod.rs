//! The HTTP side: routes, documentation, errors, and the headers that say what the cache did.

mod admin;
mod cache;
mod crud;
mod document;
mod error;
mod health;
mod json;
mod methods;
pub mod metrics;
mod purchases;

use std::sync::Arc;
use std::time::Duration;

use cache_runtime::poem::CacheMiddleware;
use poem::endpoint::make_sync;
use poem::middleware::CatchPanic;
use poem::web::Html;
use poem::{Endpoint, EndpointExt, Response, Route, get};
use poem_openapi::{ExtraHeader, OpenApiService};
use sqlx::AnyPool;

use self::cache::CacheApi;
use self::crud::CrudApi;
use self::health::HealthApi;
use self::json::BodyTimeout;
use self::methods::Methods;
use self::purchases::PurchasesApi;
use crate::access::CacheAccess;
use crate::products::Product;
use crate::users::User;

/// All routes of the server. `access` says who may change the cache by hand, and
/// `client_timeout` how long a client may take for the body of a request.
pub fn routes(
    pool: AnyPool,
    access: CacheAccess,
    client_timeout: Duration,
) -> impl Endpoint<Output = Response> + 'static {
    let page_of_cache = admin::page(access.clone());
    let api = OpenApiService::new(
        (
            CrudApi::<User>::new(pool.clone()),
            CrudApi::<Product>::new(pool.clone()),
            PurchasesApi::new(pool.clone()),
            CacheApi(access),
            HealthApi::new(pool),
        ),
        "Cached demo API",
        env!("CARGO_PKG_VERSION"),
    )
    .description(
        "Reads say in their `Cache-Status` header whether the cache answered, and writes in \
         `Cache-Invalidation` whether all processes know of them.",
    )
    .extra_response_header::<Option<String>, _>(
        ExtraHeader::new("Cache-Status").description("What the cache did, as in RFC 9211."),
    )
    .extra_response_header::<Option<String>, _>(
        ExtraHeader::new("Cache-Invalidation").description(
            "What became of the invalidations of a write: `delivered`, `pending` or `lost`.",
        ),
    );
    let written = api.spec();
    let document = document::complete(&written);
    let methods = Arc::new(Methods::new(
        &document,
        &["", "/docs", "/metrics", "/openapi.json"],
    ));
    let document = document.to_string();
    // The page carries Swagger UI inside, so it works offline too.
    let page = api.swagger_ui_html().replacen(&written, &document, 1);
    Route::new()
        .nest(
            "/docs",
            Route::new().at("/", get(make_sync(move |_| Html(page.clone())))),
        )
        .at(
            "/openapi.json",
            get(make_sync(move |_| {
                Response::builder()
                    .content_type("application/json")
                    .body(document.clone())
            })),
        )
        .at("/metrics", get(metrics::page))
        .nest("/cache/ui", page_of_cache)
        .nest("/", api)
        .data(BodyTimeout(client_timeout))
        .with(CatchPanic::new().with_handler(error::after_panic))
        .around(move |endpoint, request| Arc::clone(&methods).answer(endpoint, request))
        .with(CacheMiddleware::new())
}
