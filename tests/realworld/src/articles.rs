//! Articles: as one, in lists, and their tags.
//!
//! What somebody sees of an article depends on its row, on the row of its author, on the favourites
//! of all, and on whether the viewer follows the author. So each entry has the viewer in its key,
//! and names what it was made of:
//!
//! - a write of any article, or of a favourite, invalidates what is derived from `articles`;
//! - a change of an author's row, what shows that author (`load.depends_on`);
//! - following somebody, what that follower sees (the tag `follower:{viewer}`).

use cache_runtime::{LoadContext, cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, Row as _};

use crate::Conduit;
use crate::error::{Error, taken};
use crate::users::{Profile, not_blank};

/// An article without its text, as a viewer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct Summary {
    pub slug: String,
    pub title: String,
    pub description: String,
    pub tag_list: Vec<String>,
    pub created_at: String,
    pub updated_at: String,
    pub favorited: bool,
    pub favorites_count: i64,
    pub author: Profile,
}

/// A whole article.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct Article {
    #[serde(flatten)]
    pub summary: Summary,
    pub body: String,
}

/// Some articles, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct Page {
    pub articles: Vec<Summary>,
    pub articles_count: i64,
}

/// Which articles are asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the parameters of the API")]
pub struct Filter {
    pub tag: Option<String>,
    /// By this user.
    pub author: Option<String>,
    /// A favourite of this user.
    pub favorited: Option<String>,
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the parameters of the API")]
pub struct Range {
    #[serde(default = "Range::limit")]
    pub limit: u8,
    #[serde(default)]
    pub offset: u32,
}

impl Range {
    fn limit() -> u8 {
        20
    }
}

/// A new article.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct NewArticle {
    pub title: String,
    pub description: String,
    pub body: String,
    #[serde(default)]
    pub tag_list: Vec<String>,
}

/// What an author changes. A field that is missing stays as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct ArticleChange {
    pub title: Option<String>,
    pub description: Option<String>,
    pub body: Option<String>,
}

/// An article, and the id of its author.
struct Authored {
    author_id: i64,
    article: Article,
}

impl FromRow<'_, PgRow> for Authored {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let summary = Summary {
            slug: row.try_get("slug")?,
            title: row.try_get("title")?,
            description: row.try_get("description")?,
            tag_list: row.try_get("tags")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            favorited: row.try_get("favorited")?,
            favorites_count: row.try_get("favorites_count")?,
            author: Profile::from_row(row)?,
        };
        let body = row.try_get("body")?;
        Ok(Self {
            author_id: row.try_get("author_id")?,
            article: Article { summary, body },
        })
    }
}

/// The viewer is `$1`.
const SELECT: &str = "SELECT a.author_id, a.slug, a.title, a.description, a.body, a.tags, \
    to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS created_at, \
    to_char(a.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS updated_at, \
    EXISTS (SELECT FROM favorites WHERE article_id = a.id AND user_id = $1) AS favorited, \
    (SELECT count(*) FROM favorites WHERE article_id = a.id) AS favorites_count, \
    u.username, u.bio, u.image, \
    EXISTS (SELECT FROM follows WHERE author_id = u.id AND follower_id = $1) AS following \
    FROM articles a JOIN users u ON u.id = a.author_id";

const FILTER: &str = " WHERE ($2::text IS NULL OR $2 = ANY (a.tags)) AND ($3::text IS NULL OR u.username = $3) \
    AND ($4::text IS NULL OR EXISTS (SELECT FROM favorites f JOIN users w ON w.id = f.user_id \
    WHERE f.article_id = a.id AND w.username = $4))";

const FOLLOWED: &str =
    " WHERE EXISTS (SELECT FROM follows WHERE follower_id = $1 AND author_id = a.author_id)";

const NEWEST_FIRST: &str = " ORDER BY a.created_at DESC, a.id DESC";

impl Conduit {
    /// One article, as `viewer` sees it.
    #[cached(resource = "articles", op = "view", tags("follower:{viewer}"), context = load)]
    pub async fn article(&self, slug: &str, viewer: Option<i64>) -> Result<Option<Article>, Error> {
        let select = format!("{SELECT} WHERE a.slug = $2");
        let row = sqlx::query_as(AssertSqlSafe(select))
            .bind(viewer)
            .bind(slug);
        let row: Option<Authored> = row.fetch_optional(&self.pool).await?;
        if let Some(row) = &row {
            load.depends_on("users", row.author_id);
        }
        Ok(row.map(|row| row.article))
    }

    /// Articles, the newest first. A filter by name depends on whoever has that name, or takes it.
    pub async fn articles(
        &self,
        filter: &Filter,
        range: Range,
        viewer: Option<i64>,
    ) -> Result<Page, Error> {
        if filter.author.is_some() || filter.favorited.is_some() {
            self.articles_by_name(filter, range, viewer).await
        } else {
            self.articles_by_tag(filter.tag.as_deref(), range, viewer)
                .await
        }
    }

    #[cached(
        resource = "articles",
        op = "list:name",
        depends("users"),
        tags("follower:{viewer}")
    )]
    async fn articles_by_name(
        &self,
        filter: &Filter,
        range: Range,
        viewer: Option<i64>,
    ) -> Result<Page, Error> {
        Ok(page(self.select(filter, range, viewer).await?))
    }

    #[cached(resource = "articles", op = "list", tags("follower:{viewer}"), context = load)]
    async fn articles_by_tag(
        &self,
        tag: Option<&str>,
        range: Range,
        viewer: Option<i64>,
    ) -> Result<Page, Error> {
        let filter = Filter {
            tag: tag.map(str::to_owned),
            ..Filter::default()
        };
        let found = self.select(&filter, range, viewer).await?;
        name_authors(&load, &found.0);
        Ok(page(found))
    }

    async fn select(
        &self,
        filter: &Filter,
        range: Range,
        viewer: Option<i64>,
    ) -> Result<(Vec<Authored>, i64), Error> {
        let rows = format!("{SELECT}{FILTER}{NEWEST_FIRST} LIMIT $5 OFFSET $6");
        let rows = sqlx::query_as(AssertSqlSafe(rows))
            .bind(viewer)
            .bind(&filter.tag)
            .bind(&filter.author)
            .bind(&filter.favorited)
            .bind(i64::from(range.limit))
            .bind(i64::from(range.offset));
        let rows = rows.fetch_all(&self.pool).await?;
        // `$1` is named so that the other parameters keep their numbers.
        let count = "SELECT count(*) FROM articles a JOIN users u ON u.id = a.author_id";
        let count = format!("{count}{FILTER} AND ($1::bigint IS NULL OR true)");
        let count = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(viewer)
            .bind(&filter.tag)
            .bind(&filter.author)
            .bind(&filter.favorited);
        Ok((rows, count.fetch_one(&self.pool).await?))
    }

    /// The articles of those whom `viewer` follows, the newest first.
    #[cached(resource = "articles", op = "feed", tags("follower:{viewer}"), context = load)]
    pub async fn feed(&self, viewer: i64, range: Range) -> Result<Page, Error> {
        let rows = format!("{SELECT}{FOLLOWED}{NEWEST_FIRST} LIMIT $2 OFFSET $3");
        let rows = sqlx::query_as(AssertSqlSafe(rows))
            .bind(viewer)
            .bind(i64::from(range.limit))
            .bind(i64::from(range.offset));
        let rows: Vec<Authored> = rows.fetch_all(&self.pool).await?;
        let count = format!("SELECT count(*) FROM articles a{FOLLOWED}");
        let count = sqlx::query_scalar(AssertSqlSafe(count)).bind(viewer);
        let count = count.fetch_one(&self.pool).await?;
        name_authors(&load, &rows);
        Ok(page((rows, count)))
    }

    /// All tags that articles have.
    #[cached(resource = "articles", op = "tags")]
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let select = "SELECT DISTINCT unnest(tags) AS tag FROM articles ORDER BY tag";
        Ok(sqlx::query_scalar(select).fetch_all(&self.pool).await?)
    }

    /// The id of an article, and of its author.
    async fn article_and_author(&self, slug: &str) -> Result<(i64, i64), Error> {
        let select = "SELECT id, author_id FROM articles WHERE slug = $1";
        let found = sqlx::query_as(select).bind(slug);
        let found = found.fetch_optional(&self.pool).await?;
        found.ok_or(Error::NotFound)
    }

    /// A new article, with its tags in order; its slug is what comes back.
    #[invalidates("articles", rejected = Error::wrote_nothing)]
    pub async fn write(&self, author: i64, article: &NewArticle) -> Result<String, Error> {
        not_blank("title", &article.title)?;
        not_blank("description", &article.description)?;
        not_blank("body", &article.body)?;
        let mut tags = article.tag_list.clone();
        tags.sort_unstable();
        tags.dedup();
        let insert = "INSERT INTO articles (slug, title, description, body, tags, author_id) \
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING slug";
        let slug = sqlx::query_scalar(insert)
            .bind(slug_of(&article.title))
            .bind(&article.title)
            .bind(&article.description)
            .bind(&article.body)
            .bind(tags)
            .bind(author);
        slug.fetch_one(&self.pool).await.map_err(taken)
    }

    /// Changes an article of `author`; its slug, which follows the title, comes back.
    #[invalidates("articles", rejected = Error::wrote_nothing)]
    pub async fn rewrite(
        &self,
        author: i64,
        slug: &str,
        change: &ArticleChange,
    ) -> Result<String, Error> {
        for (field, value) in [
            ("title", &change.title),
            ("description", &change.description),
            ("body", &change.body),
        ] {
            not_blank(field, value.as_deref().unwrap_or("unchanged"))?;
        }
        let (id, owner) = self.article_and_author(slug).await?;
        if owner != author {
            return Err(Error::Forbidden);
        }
        let update = "UPDATE articles SET slug = coalesce($2, slug), title = coalesce($3, title), \
            description = coalesce($4, description), body = coalesce($5, body), updated_at = now() \
            WHERE id = $1 RETURNING slug";
        let slug = sqlx::query_scalar(update)
            .bind(id)
            .bind(change.title.as_deref().map(slug_of))
            .bind(&change.title)
            .bind(&change.description)
            .bind(&change.body);
        let slug = slug.fetch_optional(&self.pool).await.map_err(taken)?;
        slug.ok_or(Error::NotFound)
    }

    /// Removes an article of `author`, with its comments.
    #[invalidates("articles", rejected = Error::wrote_nothing)]
    pub async fn remove(&self, author: i64, slug: &str) -> Result<(), Error> {
        let (id, owner) = self.article_and_author(slug).await?;
        if owner != author {
            return Err(Error::Forbidden);
        }
        let delete = sqlx::query("DELETE FROM articles WHERE id = $1").bind(id);
        delete.execute(&self.pool).await?;
        Ok(())
    }

    /// Makes an article a favourite of `user`, or no longer. All who look at it see the new count.
    #[invalidates("articles", ops("view", "list", "list:name", "feed"), rejected = Error::wrote_nothing)]
    pub async fn favor(&self, user: i64, slug: &str, favors: bool) -> Result<(), Error> {
        let (id, _) = self.article_and_author(slug).await?;
        let change = if favors {
            "INSERT INTO favorites (user_id, article_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM favorites WHERE user_id = $1 AND article_id = $2"
        };
        let change = sqlx::query(change).bind(user).bind(id);
        change.execute(&self.pool).await?;
        Ok(())
    }
}

/// A list shows its authors. There are fewer of them than a load can name: see [`Range`].
fn name_authors(load: &LoadContext, rows: &[Authored]) {
    for row in rows {
        load.depends_on("users", row.author_id);
    }
}

fn page((rows, articles_count): (Vec<Authored>, i64)) -> Page {
    let articles = rows.into_iter().map(|row| row.article.summary);
    Page {
        articles: articles.collect(),
        articles_count,
    }
}

/// The words of a title, in lower case, with hyphens between them.
fn slug_of(title: &str) -> String {
    let words = title.split(|c: char| !c.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("-")
}
