//! A service in Poem. `cargo run -p cache-runtime --features poem --example poem`, then
//!
//! ```text
//! curl -i -X PUT -d 'hello' localhost:3000/notes/1     # Cache-Invalidation: delivered
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; fwd=miss; stored; ..
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; hit; ..
//! ```

mod notes;

use cache_runtime::poem::CacheMiddleware;
use cache_runtime::{CacheConfig, Encoded};
use poem::error::{InternalServerError, NotFoundError};
use poem::http::StatusCode;
use poem::listener::TcpListener;
use poem::web::{Data, Path};
use poem::{Endpoint, EndpointExt, Response, Route, Server, get, handler};

use self::notes::{Note, Notes};

/// The routes, with what the cache adds to them.
pub fn app(middleware: CacheMiddleware) -> impl Endpoint<Output = Response> {
    Route::new()
        .at("/notes", get(list).head(list))
        .at("/notes/:id", get(one).put(write))
        .data(Notes::default())
        .with(middleware)
}

#[handler]
async fn list(notes: Data<&Notes>) -> poem::Result<Encoded<Vec<Note>>> {
    notes.list().await.map_err(InternalServerError)
}

#[handler]
async fn one(notes: Data<&Notes>, id: Path<i64>) -> poem::Result<Encoded<Note>> {
    let note = notes.get(*id).await.map_err(InternalServerError)?;
    note.ok_or_else(|| NotFoundError.into())
}

#[handler]
async fn write(notes: Data<&Notes>, id: Path<i64>, text: String) -> StatusCode {
    notes.write(*id, text).await;
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = cache_runtime::init(CacheConfig::from_env()?.local_mb(16)).await;
    let server = Server::new(TcpListener::bind("127.0.0.1:3000"));
    server.run(app(CacheMiddleware::new())).await?;
    cache.shutdown().await;
    Ok(())
}
