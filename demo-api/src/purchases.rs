//! Purchases: one transaction that writes two resources.

use cache_runtime::{Cache, invalidates};
use poem_openapi::Object;
use sqlx::{AnyConnection, AnyPool, Row};

use crate::error::{Invalid, ServiceError};
use crate::input::Fields;
use crate::products::Product;
use crate::resource::{Input, Resource};
use crate::sql::Value;
use crate::users::User;

/// A purchase of one product.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(example)]
pub struct Purchase {
    /// The id of the buyer, who becomes an active user.
    #[oai(validator(minimum(value = "1")))]
    pub user_id: i64,
    /// The id of the product.
    #[oai(validator(minimum(value = "1")))]
    pub product_id: i64,
    /// The quantity, 1 to 1,000, and at most the stock.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    pub quantity: i64,
}

impl poem_openapi::types::Example for Purchase {
    fn example() -> Self {
        Self {
            user_id: 1,
            product_id: 1,
            quantity: 2,
        }
    }
}

impl Input for Purchase {
    fn parse(fields: &mut Fields) -> Result<Self, Invalid> {
        Ok(Self {
            user_id: fields.integer("user_id", 1..=i64::MAX)?,
            product_id: fields.integer("product_id", 1..=i64::MAX)?,
            quantity: fields.integer("quantity", 1..=1_000)?,
        })
    }

    fn into_columns(self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// Buys and sells.
#[derive(Debug)]
pub struct PurchaseService {
    pool: AnyPool,
}

impl PurchaseService {
    /// A service on the given database.
    #[must_use]
    pub fn new(pool: AnyPool) -> Self {
        Self { pool }
    }

    /// Takes the products from the stock and makes the buyer an active user, or neither. Both are
    /// invalidated after the commit, and not if it is rolled back.
    ///
    /// # Errors
    /// When there is no such user or product, there are fewer of it, or the database fails.
    pub async fn buy(&self, cache: &Cache, purchase: Purchase) -> Result<(), ServiceError> {
        let Purchase {
            user_id,
            product_id,
            quantity,
        } = purchase;
        cache_runtime::sqlx::transaction(cache, &self.pool, async |tx| {
            self.activate(tx, user_id).await?;
            self.take(tx, product_id, quantity).await
        })
        .await
    }

    #[invalidates(User::RESOURCE, id = user_id, after_commit)]
    async fn activate(&self, tx: &mut AnyConnection, user_id: i64) -> Result<(), ServiceError> {
        let update = sqlx::query("UPDATE users SET active = $1 WHERE id = $2");
        let done = update.bind(true).bind(user_id).execute(tx).await?;
        match done.rows_affected() {
            0 => Err(not_found::<User>(user_id)),
            _ => Ok(()),
        }
    }

    #[invalidates(Product::RESOURCE, id = product_id, after_commit)]
    async fn take(
        &self,
        tx: &mut AnyConnection,
        product_id: i64,
        quantity: i64,
    ) -> Result<(), ServiceError> {
        let update =
            sqlx::query("UPDATE products SET stock = stock - $1 WHERE id = $2 RETURNING stock");
        let updated = update.bind(quantity).bind(product_id).fetch_all(tx).await?;
        let left = match updated.first() {
            Some(row) => row.try_get::<i64, _>("stock")?,
            None => return Err(not_found::<Product>(product_id)),
        };
        if left < 0 {
            let reason = format!("is more than the {} there are", left + quantity);
            return Err(Invalid::new("quantity", reason).into());
        }
        Ok(())
    }
}

fn not_found<R: Resource>(id: i64) -> ServiceError {
    ServiceError::NotFound {
        resource: R::RESOURCE,
        id,
    }
}
