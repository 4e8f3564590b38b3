//! A service in axum. `cargo run -p cache-runtime --features axum --example axum`, then
//!
//! ```text
//! curl -i -X PUT -d 'hello' localhost:3000/notes/1     # Cache-Invalidation: delivered
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; fwd=miss; stored; ..
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; hit; ..
//! ```

mod notes;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use cache_runtime::tower::CacheLayer;
use cache_runtime::{CacheConfig, Encoded, Error};

use self::notes::{Note, Notes};

/// The routes, with what the cache adds to them.
pub fn app(layer: CacheLayer) -> Router {
    Router::new()
        .route("/notes", get(list))
        .route("/notes/{id}", get(one).put(write))
        .layer(layer)
        .with_state(Notes::default())
}

async fn list(State(notes): State<Notes>) -> Result<Encoded<Vec<Note>>, StatusCode> {
    notes.list().await.map_err(failed)
}

async fn one(State(notes): State<Notes>, Path(id): Path<i64>) -> Result<Encoded<Note>, StatusCode> {
    let note = notes.get(id).await.map_err(failed)?;
    note.ok_or(StatusCode::NOT_FOUND)
}

async fn write(State(notes): State<Notes>, Path(id): Path<i64>, text: String) -> StatusCode {
    notes.write(id, text).await;
    StatusCode::NO_CONTENT
}

fn failed(_: Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = cache_runtime::init(CacheConfig::from_env()?.local_mb(16)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app(CacheLayer::new())).await?;
    cache.shutdown().await;
    Ok(())
}
