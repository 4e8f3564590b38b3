//! `DATABASE_URL=postgres://.. cargo run -p cache-realworld`; `PORT` (3000), and the cache's own
//! variables.

#![allow(clippy::print_stdout, reason = "it says where it listens")]

use std::error::Error;

use cache_realworld::{Conduit, app};
use cache_runtime::CacheConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url =
        std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is the URL of a PostgreSQL")?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let cache = cache_runtime::init(CacheConfig::from_env()?).await;
    let conduit = Conduit::connect(&url).await?;
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("Listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(conduit))
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    cache.shutdown().await;
    Ok(())
}
