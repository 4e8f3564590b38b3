//! Users, their sessions, and who follows whom.

use cache_runtime::{cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use crate::Conduit;
use crate::error::{Error, taken};

/// A user, as only they see themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns")]
pub struct User {
    pub id: i64,
    pub username: String,
    pub email: String,
    pub bio: Option<String>,
    pub image: Option<String>,
}

/// A user, as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct Profile {
    pub username: String,
    pub bio: Option<String>,
    pub image: Option<String>,
    /// Whether the viewer follows them.
    pub following: bool,
}

impl FromRow<'_, PgRow> for User {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            username: row.try_get("username")?,
            email: row.try_get("email")?,
            bio: row.try_get("bio")?,
            image: row.try_get("image")?,
        })
    }
}

impl FromRow<'_, PgRow> for Profile {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            username: row.try_get("username")?,
            bio: row.try_get("bio")?,
            image: row.try_get("image")?,
            following: row.try_get("following")?,
        })
    }
}

/// What somebody may set of themselves. A field that is missing stays as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API")]
pub struct UserChange {
    pub username: Option<String>,
    pub email: Option<String>,
    pub password: Option<String>,
    pub bio: Option<String>,
    pub image: Option<String>,
}

macro_rules! columns {
    () => {
        "id, username, email, bio, image"
    };
}

impl Conduit {
    /// Whom a token belongs to. A token is a secret: it stays in this process.
    #[cached(resource = "sessions", key(token), in_process, cache_none = false)]
    pub async fn user_of(&self, token: &str) -> Result<Option<i64>, Error> {
        let select = "SELECT user_id FROM sessions WHERE token = $1";
        let user = sqlx::query_scalar(select).bind(token);
        Ok(user.fetch_optional(&self.pool).await?)
    }

    /// A user by id.
    #[cached(resource = "users")]
    pub async fn user(&self, id: i64) -> Result<Option<User>, Error> {
        let select = concat!("SELECT ", columns!(), " FROM users WHERE id = $1");
        Ok(sqlx::query_as(select)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// A user by name, as `viewer` sees them.
    #[cached(resource = "users", op = "profile", tags("follower:{viewer}"))]
    pub async fn profile(&self, name: &str, viewer: Option<i64>) -> Result<Option<Profile>, Error> {
        let select = "SELECT username, bio, image, EXISTS (SELECT FROM follows \
            WHERE author_id = users.id AND follower_id = $2) AS following FROM users WHERE username = $1";
        let profile = sqlx::query_as(select).bind(name).bind(viewer);
        Ok(profile.fetch_optional(&self.pool).await?)
    }

    /// A new user.
    #[invalidates("users", id = result.id, rejected = Error::wrote_nothing)]
    pub async fn register(
        &self,
        username: &str,
        email: &str,
        password: &str,
    ) -> Result<User, Error> {
        for (field, value) in [
            ("username", username),
            ("email", email),
            ("password", password),
        ] {
            not_blank(field, value)?;
        }
        let insert = concat!(
            "INSERT INTO users (username, email, password) VALUES ($1, $2, ",
            "crypt($3, gen_salt('bf', 6))) RETURNING ",
            columns!()
        );
        let user = sqlx::query_as(insert)
            .bind(username)
            .bind(email)
            .bind(password);
        user.fetch_one(&self.pool).await.map_err(taken)
    }

    /// The user with this email and password.
    pub async fn log_in(&self, email: &str, password: &str) -> Result<User, Error> {
        not_blank("email", email)?;
        not_blank("password", password)?;
        let select = concat!(
            "SELECT ",
            columns!(),
            " FROM users WHERE email = $1 AND password = crypt($2, password)"
        );
        let user = sqlx::query_as(select).bind(email).bind(password);
        let user = user.fetch_optional(&self.pool).await?;
        user.ok_or(Error::Invalid {
            field: "email or password",
            reason: "is invalid",
        })
    }

    /// A new token for a user. Nobody can have asked for it before, so there is nothing to
    /// invalidate.
    pub async fn open_session(&self, user: i64) -> Result<String, Error> {
        let insert = "INSERT INTO sessions (user_id) VALUES ($1) RETURNING token";
        Ok(sqlx::query_scalar(insert)
            .bind(user)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Changes a user: what they see of themselves, and every article and comment that shows them.
    #[invalidates("users", id = id, rejected = Error::wrote_nothing)]
    pub async fn change_user(&self, id: i64, change: &UserChange) -> Result<User, Error> {
        let named = [
            ("username", &change.username),
            ("email", &change.email),
            ("password", &change.password),
        ];
        for (field, value) in named {
            not_blank(field, value.as_deref().unwrap_or("unchanged"))?;
        }
        let update = concat!(
            "UPDATE users SET username = coalesce($2, username), email = coalesce($3, email), ",
            "password = coalesce(crypt($4, gen_salt('bf', 6)), password), bio = coalesce($5, bio), ",
            "image = coalesce($6, image) WHERE id = $1 RETURNING ",
            columns!()
        );
        let user = sqlx::query_as(update)
            .bind(id)
            .bind(&change.username)
            .bind(&change.email)
            .bind(&change.password)
            .bind(&change.bio)
            .bind(&change.image);
        let user = user.fetch_optional(&self.pool).await.map_err(taken)?;
        user.ok_or(Error::NotFound)
    }

    /// Follows somebody, or stops it. Only what this follower sees depends on it.
    #[invalidates(tags("follower:{follower}"), rejected = Error::wrote_nothing)]
    pub async fn follow(&self, follower: i64, name: &str, follows: bool) -> Result<(), Error> {
        let author: Option<i64> = sqlx::query_scalar("SELECT id FROM users WHERE username = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        let author = author.ok_or(Error::NotFound)?;
        let change = if follows {
            "INSERT INTO follows (follower_id, author_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM follows WHERE follower_id = $1 AND author_id = $2"
        };
        let change = sqlx::query(change).bind(follower).bind(author);
        change.execute(&self.pool).await?;
        Ok(())
    }
}

pub(crate) fn not_blank(field: &'static str, value: &str) -> Result<(), Error> {
    if value.trim().is_empty() {
        let reason = "can't be blank";
        return Err(Error::Invalid { field, reason });
    }
    Ok(())
}
