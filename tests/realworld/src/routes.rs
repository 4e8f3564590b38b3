//! The API over HTTP.

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use cache_runtime::tower::CacheLayer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::articles::{ArticleChange, Filter, NewArticle, Page, Range};
use crate::comments::NewComment;
use crate::error::Error;
use crate::users::{User, UserChange};
use crate::{Article, Conduit};

type Answer = Result<Json<Value>, Error>;

/// All routes, with what the cache did for each request in its headers.
pub fn app(conduit: Conduit) -> Router {
    let api = Router::new()
        .route("/users", post(register))
        .route("/users/login", post(log_in))
        .route("/user", get(current_user).put(change_user))
        .route("/profiles/{name}", get(profile))
        .route("/profiles/{name}/follow", post(follow).delete(unfollow))
        .route("/articles", get(articles).post(write))
        .route("/articles/feed", get(feed))
        .route("/articles/{slug}", get(article).put(rewrite).delete(remove))
        .route("/articles/{slug}/favorite", post(favor).delete(disfavor))
        .route("/articles/{slug}/comments", get(comments).post(comment))
        .route("/articles/{slug}/comments/{id}", delete(remove_comment))
        .route("/tags", get(tags));
    Router::new()
        .nest("/api", api)
        .layer(CacheLayer::new())
        .with_state(conduit)
}

/// Who asks, if they have logged in.
struct Viewer(Option<i64>);

/// Who asks; they have logged in.
struct LoggedIn(i64);

impl FromRequestParts<Conduit> for Viewer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, conduit: &Conduit) -> Result<Self, Error> {
        match token(parts) {
            None => Ok(Self(None)),
            Some(token) => Ok(Self(conduit.user_of(token).await?)),
        }
    }
}

impl FromRequestParts<Conduit> for LoggedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, conduit: &Conduit) -> Result<Self, Error> {
        let Viewer(user) = Viewer::from_request_parts(parts, conduit).await?;
        user.map(Self).ok_or(Error::Unauthorized)
    }
}

fn token(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    value
        .strip_prefix("Token ")
        .or_else(|| value.strip_prefix("Bearer "))
}

/// Bodies have one field, which names what they contain.
#[derive(Deserialize)]
struct UserBody<T> {
    user: T,
}

#[derive(Deserialize)]
struct ArticleBody<T> {
    article: T,
}

#[derive(Deserialize)]
struct CommentBody {
    comment: NewComment,
}

#[derive(Deserialize)]
struct Registration {
    username: String,
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct Login {
    email: String,
    password: String,
}

fn user_with(token: &str, user: &User) -> Json<Value> {
    Json(json!({ "user": {
        "email": user.email,
        "token": token,
        "username": user.username,
        "bio": user.bio,
        "image": user.image,
    } }))
}

async fn register(
    State(conduit): State<Conduit>,
    Json(UserBody { user }): Json<UserBody<Registration>>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let user = conduit
        .register(&user.username, &user.email, &user.password)
        .await?;
    let token = conduit.open_session(user.id).await?;
    Ok((StatusCode::CREATED, user_with(&token, &user)))
}

async fn log_in(
    State(conduit): State<Conduit>,
    Json(UserBody { user }): Json<UserBody<Login>>,
) -> Answer {
    let user = conduit.log_in(&user.email, &user.password).await?;
    let token = conduit.open_session(user.id).await?;
    Ok(user_with(&token, &user))
}

/// The token of a request that has logged in.
struct Token(String);

impl FromRequestParts<Conduit> for Token {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Conduit) -> Result<Self, Error> {
        let token = token(parts).ok_or(Error::Unauthorized)?;
        Ok(Self(token.to_owned()))
    }
}

async fn current_user(
    State(conduit): State<Conduit>,
    LoggedIn(id): LoggedIn,
    Token(token): Token,
) -> Answer {
    let user = conduit.user(id).await?.ok_or(Error::Unauthorized)?;
    Ok(user_with(&token, &user))
}

async fn change_user(
    State(conduit): State<Conduit>,
    LoggedIn(id): LoggedIn,
    Token(token): Token,
    Json(UserBody { user }): Json<UserBody<UserChange>>,
) -> Answer {
    let user = conduit.change_user(id, &user).await?;
    Ok(user_with(&token, &user))
}

async fn profile(
    State(conduit): State<Conduit>,
    Viewer(viewer): Viewer,
    Path(name): Path<String>,
) -> Answer {
    show_profile(&conduit, &name, viewer).await
}

async fn show_profile(conduit: &Conduit, name: &str, viewer: Option<i64>) -> Answer {
    let profile = conduit.profile(name, viewer).await?;
    let profile = profile.ok_or(Error::NotFound)?;
    Ok(Json(json!({ "profile": profile })))
}

async fn follow(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(name): Path<String>,
) -> Answer {
    conduit.follow(user, &name, true).await?;
    show_profile(&conduit, &name, Some(user)).await
}

async fn unfollow(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(name): Path<String>,
) -> Answer {
    conduit.follow(user, &name, false).await?;
    show_profile(&conduit, &name, Some(user)).await
}

/// A number that is too large for a list asks for as many as there may be.
#[derive(Deserialize)]
struct Paging {
    limit: Option<u64>,
    offset: Option<u64>,
}

impl Paging {
    const MOST: u8 = 100;

    fn range(&self) -> Range {
        let limit = self.limit.unwrap_or(20).min(u64::from(Self::MOST));
        Range {
            limit: u8::try_from(limit).unwrap_or(Self::MOST),
            offset: u32::try_from(self.offset.unwrap_or(0)).unwrap_or(u32::MAX),
        }
    }
}

async fn articles(
    State(conduit): State<Conduit>,
    Viewer(viewer): Viewer,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page>, Error> {
    Ok(Json(
        conduit.articles(&filter, paging.range(), viewer).await?,
    ))
}

async fn feed(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Query(paging): Query<Paging>,
) -> Result<Json<Page>, Error> {
    Ok(Json(conduit.feed(user, paging.range()).await?))
}

async fn article(
    State(conduit): State<Conduit>,
    Viewer(viewer): Viewer,
    Path(slug): Path<String>,
) -> Answer {
    show_article(&conduit, &slug, viewer).await
}

async fn show_article(conduit: &Conduit, slug: &str, viewer: Option<i64>) -> Answer {
    let article: Option<Article> = conduit.article(slug, viewer).await?;
    let article = article.ok_or(Error::NotFound)?;
    Ok(Json(json!({ "article": article })))
}

async fn write(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Json(ArticleBody { article }): Json<ArticleBody<NewArticle>>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let slug = conduit.write(user, &article).await?;
    let article = show_article(&conduit, &slug, Some(user)).await?;
    Ok((StatusCode::CREATED, article))
}

async fn rewrite(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(slug): Path<String>,
    Json(ArticleBody { article }): Json<ArticleBody<ArticleChange>>,
) -> Answer {
    let slug = conduit.rewrite(user, &slug, &article).await?;
    show_article(&conduit, &slug, Some(user)).await
}

async fn remove(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(slug): Path<String>,
) -> Result<StatusCode, Error> {
    conduit.remove(user, &slug).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn favor(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(slug): Path<String>,
) -> Answer {
    conduit.favor(user, &slug, true).await?;
    show_article(&conduit, &slug, Some(user)).await
}

async fn disfavor(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(slug): Path<String>,
) -> Answer {
    conduit.favor(user, &slug, false).await?;
    show_article(&conduit, &slug, Some(user)).await
}

async fn comments(
    State(conduit): State<Conduit>,
    Viewer(viewer): Viewer,
    Path(slug): Path<String>,
) -> Answer {
    let comments = conduit.comments(&slug, viewer).await?;
    let comments = comments.ok_or(Error::NotFound)?;
    Ok(Json(json!({ "comments": comments })))
}

async fn comment(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path(slug): Path<String>,
    Json(CommentBody { comment }): Json<CommentBody>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let id = conduit.comment(user, &slug, &comment).await?;
    let comments = conduit.comments(&slug, Some(user)).await?;
    let mut comments = comments.unwrap_or_default().into_iter();
    let comment = comments.find(|comment| comment.id == id);
    let comment = comment.ok_or(Error::NotFound)?;
    Ok((StatusCode::CREATED, Json(json!({ "comment": comment }))))
}

async fn remove_comment(
    State(conduit): State<Conduit>,
    LoggedIn(user): LoggedIn,
    Path((slug, id)): Path<(String, i64)>,
) -> Result<StatusCode, Error> {
    conduit.remove_comment(user, &slug, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tags(State(conduit): State<Conduit>) -> Answer {
    Ok(Json(json!({ "tags": conduit.tags().await? })))
}
