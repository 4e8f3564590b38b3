//! A service in actix-web. `cargo run -p cache-runtime --features actix --example actix`, then
//!
//! ```text
//! curl -i -X PUT -d 'hello' localhost:3000/notes/1     # Cache-Invalidation: delivered
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; fwd=miss; stored; ..
//! curl -i localhost:3000/notes/1                       # Cache-Status: cache-runtime; hit; ..
//! ```

pub mod notes;

use actix_web::error::{ErrorInternalServerError, ErrorNotFound};
use actix_web::{App, HttpResponse, HttpServer, web};
use cache_runtime::actix::CacheMiddleware;
use cache_runtime::{CacheConfig, Encoded};

use self::notes::{Note, Notes};

/// The routes; each worker has them, and all have the same notes.
pub(crate) fn routes(notes: Notes) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config
            .app_data(web::Data::new(notes))
            .route("/notes", web::get().to(list))
            .route("/notes", web::head().to(list))
            .route("/notes/{id}", web::get().to(one))
            .route("/notes/{id}", web::put().to(write));
    }
}

async fn list(notes: web::Data<Notes>) -> actix_web::Result<Encoded<Vec<Note>>> {
    notes.list().await.map_err(ErrorInternalServerError)
}

async fn one(notes: web::Data<Notes>, id: web::Path<i64>) -> actix_web::Result<Encoded<Note>> {
    let note = notes.get(*id).await.map_err(ErrorInternalServerError)?;
    note.ok_or_else(|| ErrorNotFound("there is no such note"))
}

async fn write(notes: web::Data<Notes>, id: web::Path<i64>, text: String) -> HttpResponse {
    notes.write(*id, text).await;
    HttpResponse::NoContent().finish()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = CacheConfig::from_env()?.local_mb(16);
    actix_web::rt::System::new().block_on(async {
        let cache = cache_runtime::init(config).await;
        let notes = Notes::default();
        let server = HttpServer::new(move || {
            App::new()
                .wrap(CacheMiddleware::new())
                .configure(routes(notes.clone()))
        });
        server.bind("127.0.0.1:3000")?.run().await?;
        cache.shutdown().await;
        Ok(())
    })
}
