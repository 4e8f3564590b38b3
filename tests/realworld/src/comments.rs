//! Comments on articles.

use cache_runtime::{cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use crate::Conduit;
use crate::error::Error;
use crate::users::{Profile, not_blank};

/// A comment, as a viewer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct Comment {
    pub id: i64,
    pub created_at: String,
    pub updated_at: String,
    pub body: String,
    pub author: Profile,
}

/// A comment, and the id of its author.
struct Authored {
    author_id: i64,
    comment: Comment,
}

impl FromRow<'_, PgRow> for Authored {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let comment = Comment {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            body: row.try_get("body")?,
            author: Profile::from_row(row)?,
        };
        Ok(Self {
            author_id: row.try_get("author_id")?,
            comment,
        })
    }
}

/// What somebody says about an article.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct NewComment {
    pub body: String,
}

impl Conduit {
    /// The comments on an article, as `viewer` sees them; `None` without such an article.
    ///
    /// Which article has that slug is a matter of `articles`, so every write of an article drops
    /// them, too.
    #[cached(
        resource = "comments", op = "list", depends("articles"),
        tags("comments:{slug}", "follower:{viewer}"), context = load
    )]
    pub async fn comments(
        &self,
        slug: &str,
        viewer: Option<i64>,
    ) -> Result<Option<Vec<Comment>>, Error> {
        let article = sqlx::query_scalar("SELECT id FROM articles WHERE slug = $1").bind(slug);
        let article: Option<i64> = article.fetch_optional(&self.pool).await?;
        let Some(article) = article else {
            return Ok(None);
        };
        let select = "SELECT c.id, c.body, c.author_id, \
            to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS created_at, \
            to_char(c.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS updated_at, \
            u.username, u.bio, u.image, \
            EXISTS (SELECT FROM follows WHERE author_id = u.id AND follower_id = $2) AS following \
            FROM comments c JOIN users u ON u.id = c.author_id WHERE c.article_id = $1 ORDER BY c.id";
        let rows = sqlx::query_as(select).bind(article).bind(viewer);
        let rows: Vec<Authored> = rows.fetch_all(&self.pool).await?;
        let mut authors: Vec<i64> = rows.iter().map(|row| row.author_id).collect();
        authors.sort_unstable();
        authors.dedup();
        for author in authors {
            load.depends_on("users", author);
        }
        Ok(Some(rows.into_iter().map(|row| row.comment).collect()))
    }

    /// Adds a comment; its id comes back.
    #[invalidates(tags("comments:{slug}"), rejected = Error::wrote_nothing)]
    pub async fn comment(
        &self,
        author: i64,
        slug: &str,
        comment: &NewComment,
    ) -> Result<i64, Error> {
        not_blank("body", &comment.body)?;
        let insert = "INSERT INTO comments (article_id, author_id, body) \
            SELECT id, $1, $3 FROM articles WHERE slug = $2 RETURNING id";
        let id = sqlx::query_scalar(insert)
            .bind(author)
            .bind(slug)
            .bind(&comment.body);
        let id = id.fetch_optional(&self.pool).await?;
        id.ok_or(Error::NotFound)
    }

    /// Removes a comment of `author` on the article of that slug.
    #[invalidates(tags("comments:{slug}"), rejected = Error::wrote_nothing)]
    pub async fn remove_comment(&self, author: i64, slug: &str, id: i64) -> Result<(), Error> {
        let select = "SELECT c.author_id FROM comments c JOIN articles a ON a.id = c.article_id \
            WHERE c.id = $1 AND a.slug = $2";
        let owner = sqlx::query_scalar(select).bind(id).bind(slug);
        let owner: Option<i64> = owner.fetch_optional(&self.pool).await?;
        match owner {
            None => return Err(Error::NotFound),
            Some(owner) if owner != author => return Err(Error::Forbidden),
            Some(_) => {}
        }
        let delete = sqlx::query("DELETE FROM comments WHERE id = $1").bind(id);
        delete.execute(&self.pool).await?;
        Ok(())
    }
}
