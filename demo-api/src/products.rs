//! Products: an update or a delete invalidates that row, every list and every filter, and leaves
//! the other rows cached.

use poem_openapi::Object;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use crate::error::Invalid;
use crate::input::{Fields, MAX_TEXT, NOT_BLANK};
use crate::resource::{Column, Input, Invalidation, Kind, Resource, Unique};
use crate::sql::{self, Value};
use crate::tag::ApiTag;

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Object)]
pub struct Product {
    /// Given by the database.
    pub id: i64,
    /// The name.
    pub name: String,
    /// The category.
    pub category: String,
    /// The description, if there is one.
    pub description: Option<String>,
    /// In the shop's currency.
    pub price: f64,
    /// How many are in stock.
    pub stock: i64,
    /// When the product was created, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Resource for Product {
    const RESOURCE: &'static str = "products";
    const TAG: ApiTag = ApiTag::Products;
    const INVALIDATION: Invalidation = Invalidation::Row;
    const COLUMNS: &'static [Column] = &[
        Column::new("id", Kind::Integer),
        Column::new("name", Kind::Text),
        Column::new("category", Kind::Text),
        Column::new("description", Kind::Text),
        Column::new("price", Kind::Number),
        Column::new("stock", Kind::Integer),
        Column::new("created_at", Kind::Time),
    ];
    const UNIQUE: &'static [Unique] = &[];

    type Input = ProductInput;

    fn id(&self) -> i64 {
        self.id
    }

    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            category: row.try_get("category")?,
            description: row.try_get("description")?,
            price: row.try_get("price")?,
            stock: row.try_get("stock")?,
            created_at: sql::get_time(row, "created_at")?,
        })
    }
}

/// The body of a write of a product.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(example)]
pub struct ProductInput {
    /// The name, 1 to 100 characters.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub name: String,
    /// The category, 1 to 50 characters.
    #[oai(validator(min_length = 1, max_length = 50))]
    pub category: String,
    /// At most 2,000 characters; may be left out.
    #[oai(validator(max_length = 2000))]
    pub description: Option<String>,
    /// From 0 to a million.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000")))]
    pub price: f64,
    /// From 0 to a million.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000")))]
    pub stock: i64,
}

impl poem_openapi::types::Example for ProductInput {
    fn example() -> Self {
        Self {
            name: "Walnut Desk".into(),
            category: "furniture".into(),
            description: None,
            price: 349.5,
            stock: 12,
        }
    }
}

impl Input for ProductInput {
    const PATTERNS: &'static [(&'static str, &'static str)] = &[
        ("name", NOT_BLANK),
        ("category", NOT_BLANK),
        ("description", NOT_BLANK),
    ];

    fn parse(fields: &mut Fields) -> Result<Self, Invalid> {
        Ok(Self {
            name: fields.text("name", 100)?,
            category: fields.text("category", 50)?,
            description: fields.optional_text("description", MAX_TEXT)?,
            price: fields.number("price", 0.0..=1e6)?,
            stock: fields.integer("stock", 0..=1_000_000)?,
        })
    }

    fn into_columns(self) -> Vec<(&'static str, Value)> {
        vec![
            ("name", Value::Text(self.name)),
            ("category", Value::Text(self.category)),
            (
                "description",
                self.description.map_or(Value::NoText, Value::Text),
            ),
            ("price", Value::Number(self.price)),
            ("stock", Value::Integer(self.stock)),
        ]
    }
}
