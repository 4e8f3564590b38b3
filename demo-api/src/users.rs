//! Users: every write invalidates all of `users:*`.

use poem_openapi::Object;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use crate::error::Invalid;
use crate::input::{Fields, NOT_BLANK};
use crate::resource::{Column, Input, Invalidation, Kind, Resource, Unique};
use crate::sql::{self, Value};
use crate::tag::ApiTag;

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Object)]
pub struct User {
    /// Given by the database.
    pub id: i64,
    /// The full name.
    pub name: String,
    /// Unique, whatever its case.
    pub email: String,
    /// In years.
    pub age: i64,
    /// Whether the account may be used.
    pub active: bool,
    /// When the user was created, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Resource for User {
    const RESOURCE: &'static str = "users";
    const TAG: ApiTag = ApiTag::Users;
    const INVALIDATION: Invalidation = Invalidation::Everything;
    const COLUMNS: &'static [Column] = &[
        Column::new("id", Kind::Integer),
        Column::new("name", Kind::Text),
        Column::new("email", Kind::Text),
        Column::new("age", Kind::Integer),
        Column::new("active", Kind::Boolean),
        Column::new("created_at", Kind::Time),
    ];
    const UNIQUE: &'static [Unique] = &[Unique {
        index: "users_email_key",
        field: "email",
    }];

    type Input = UserInput;

    fn id(&self) -> i64 {
        self.id
    }

    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            age: row.try_get("age")?,
            active: sql::get_bool(row, "active")?,
            created_at: sql::get_time(row, "created_at")?,
        })
    }
}

/// The body of a write of a user.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(example)]
pub struct UserInput {
    /// The full name, 1 to 100 characters.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub name: String,
    /// Like `ada@example.com`; no other user may have it.
    #[oai(validator(max_length = 254))]
    pub email: String,
    /// From 0 to 150.
    #[oai(validator(minimum(value = "0"), maximum(value = "150")))]
    pub age: i64,
    /// Whether the account may be used.
    #[oai(default = "active_by_default")]
    pub active: bool,
}

fn active_by_default() -> bool {
    true
}

impl poem_openapi::types::Example for UserInput {
    fn example() -> Self {
        Self {
            name: "Ada Lovelace".into(),
            email: "ada@example.com".into(),
            age: 36,
            active: true,
        }
    }
}

impl Input for UserInput {
    const PATTERNS: &'static [(&'static str, &'static str)] =
        &[("name", NOT_BLANK), ("email", EMAIL)];

    fn parse(fields: &mut Fields) -> Result<Self, Invalid> {
        Ok(Self {
            name: fields.text("name", 100)?,
            email: email(fields.text("email", 254)?)?,
            age: fields.integer("age", 0..=150)?,
            active: fields.boolean("active", active_by_default())?,
        })
    }

    fn into_columns(self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", Value::Text(self.name)),
            ("email", Value::Text(self.email)),
            ("age", Value::Integer(self.age)),
            ("active", Value::Boolean(self.active)),
        ]
    }
}

/// Matches what [`email`] accepts: one `@`, a dot after it, no white space or control character.
const EMAIL: &str = {
    macro_rules! but {
        ($not:literal) => {
            concat!(
                "[^",
                $not,
                r"\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
            )
        };
    }
    concat!("^", but!("@"), "@", but!("@."), r"(\.", but!("@."), ")+$")
};

/// Checks the shape only: whether an address exists, nobody knows before writing to it.
fn email(email: String) -> Result<String, Invalid> {
    let plausible = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.contains('@')
            && domain.split('.').count() >= 2
            && domain.split('.').all(|label| !label.is_empty())
    });
    if !plausible || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Invalid::new("email", "must look like name@example.com"));
    }
    Ok(email)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_has_a_name_an_at_and_a_dotted_domain() {
        for good in ["a@b.c", "ada.lovelace+x@mail.example.com", "ü@b.de"] {
            assert!(email(good.into()).is_ok(), "{good}");
        }
        for bad in [
            "", "a", "@b.c", "a@", "a@b", "a@b.", "a@.c", "a b@c.d", "a@b@c.d",
        ] {
            assert!(email(bad.into()).is_err(), "{bad}");
        }
    }
}
