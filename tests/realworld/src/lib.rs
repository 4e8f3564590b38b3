//! A backend of the [RealWorld] API ("Conduit"): a blog with users who follow each other, articles,
//! tags, favourites, feeds and comments. In axum and SQLx on PostgreSQL; its reads are cached, and
//! most of them depend on who reads.
//!
//! [RealWorld]: https://github.com/gothinkster/realworld
//!
//! `users`, `articles` and `comments` are the services, which know nothing of HTTP. `routes` has
//! the API.

mod articles;
mod comments;
mod error;
mod routes;
mod users;

pub use articles::{Article, ArticleChange, Filter, NewArticle, Page, Range, Summary};
pub use comments::{Comment, NewComment};
pub use error::Error;
pub use routes::app;
pub use users::{Profile, User, UserChange};

use sqlx::PgPool;

/// The examples of the book's page on frameworks, which need axum with JSON.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/book/src/frameworks.md")]
mod book {}

/// Those of its page on the admin page, with axum and Poem.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/book/src/admin-page.md")]
mod admin_page {}

/// The services, over one database.
#[derive(Clone, Debug)]
pub struct Conduit {
    pool: PgPool,
}

impl Conduit {
    /// Connects, and makes the tables that are missing.
    pub async fn connect(url: &str) -> Result<Self, sqlx::Error> {
        let pool = PgPool::connect(url).await?;
        // Of several processes that start at once, one at a time makes them.
        let mut tx = pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(7261)")
            .execute(&mut *tx)
            .await?;
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Self { pool })
    }
}
