//! The first rows: realistic, and the same on every machine.

use sea_query::{Expr, Query};
use sqlx::AnyConnection;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::products::{Product, ProductInput};
use crate::resource::{Input, Resource};
use crate::sql::{self, Value, to_micros};
use crate::users::{User, UserInput};

const FIRST_NAMES: [&str; 40] = [
    "Ada",
    "Alan",
    "Amara",
    "Ana",
    "Arjun",
    "Barbara",
    "Bjarne",
    "Carlos",
    "Chen",
    "Clara",
    "Dennis",
    "Donald",
    "Edsger",
    "Elena",
    "Fatima",
    "Frances",
    "Grace",
    "Hana",
    "Ivan",
    "Jean",
    "John",
    "Karen",
    "Katherine",
    "Ken",
    "Kwame",
    "Leila",
    "Linus",
    "Lucia",
    "Margaret",
    "Mei",
    "Miguel",
    "Niklaus",
    "Nina",
    "Olga",
    "Priya",
    "Radia",
    "Sofia",
    "Tim",
    "Yuki",
    "Zahra",
];
const LAST_NAMES: [&str; 25] = [
    "Lovelace", "Turing", "Okafor", "Silva", "Patel", "Liskov", "Larsen", "Garcia", "Wei", "Novak",
    "Ritchie", "Knuth", "Dijkstra", "Petrova", "Haddad", "Allen", "Hopper", "Tanaka", "Horvat",
    "Bartik", "Johnson", "Mensah", "Torvalds", "Hamilton", "Wirth",
];
const MATERIALS: [&str; 10] = [
    "Oak", "Walnut", "Steel", "Copper", "Linen", "Wool", "Cotton", "Leather", "Ceramic", "Glass",
];
const THINGS: [(&str, &str, f64); 20] = [
    ("Desk", "furniture", 320.0),
    ("Chair", "furniture", 140.0),
    ("Shelf", "furniture", 95.0),
    ("Stool", "furniture", 60.0),
    ("Lamp", "lighting", 75.0),
    ("Lantern", "lighting", 40.0),
    ("Kettle", "kitchen", 55.0),
    ("Bowl", "kitchen", 18.0),
    ("Mug", "kitchen", 12.0),
    ("Tray", "kitchen", 25.0),
    ("Teapot", "kitchen", 48.0),
    ("Cushion", "textiles", 35.0),
    ("Blanket", "textiles", 85.0),
    ("Curtain", "textiles", 65.0),
    ("Notebook", "stationery", 15.0),
    ("Pen Case", "stationery", 22.0),
    ("Letter Box", "stationery", 38.0),
    ("Vase", "decoration", 42.0),
    ("Frame", "decoration", 28.0),
    ("Mirror", "decoration", 110.0),
];
/// Everything was created an odd while after this.
const START: OffsetDateTime = datetime!(2024-01-01 08:00 UTC);

pub(crate) async fn fill(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mut random = Random(2024);
    // All first names before the next last name, so that the first page shows forty different
    // people.
    let names = LAST_NAMES
        .iter()
        .flat_map(|last| FIRST_NAMES.iter().map(move |first| (first, last)));
    let users = names.map(|(first, last)| UserInput {
        name: format!("{first} {last}"),
        email: format!("{first}.{last}@example.com").to_ascii_lowercase(),
        age: 18 + random.below(63),
        active: random.below(10) > 0,
    });
    insert::<User>(connection, users, Duration::minutes(523)).await?;

    let mut random = Random(4202);
    let names = MATERIALS
        .iter()
        .flat_map(|material| THINGS.iter().map(move |thing| (material, thing)));
    let products = names.map(|(material, (thing, category, price))| ProductInput {
        name: format!("{material} {thing}"),
        category: (*category).to_owned(),
        description: (random.below(3) > 0)
            .then(|| format!("A {} in {}.", thing.to_lowercase(), material.to_lowercase())),
        price: price + f64::from(i32::try_from(random.below(40)).unwrap_or(0)) * 0.5,
        stock: random.below(120),
    });
    insert::<Product>(connection, products, Duration::minutes(2_617)).await
}

/// A hundred rows per statement: a thousand round trips would delay the first start.
async fn insert<R: Resource>(
    connection: &mut AnyConnection,
    rows: impl Iterator<Item = R::Input>,
    step: Duration,
) -> Result<(), sqlx::Error> {
    let mut created_at = START;
    let rows: Vec<Vec<(&str, Value)>> = rows
        .map(|row| {
            created_at += step;
            let mut columns = row.into_columns();
            columns.push(("created_at", Value::Integer(to_micros(created_at))));
            columns
        })
        .collect();
    for rows in rows.chunks(100) {
        let mut insert = Query::insert();
        insert.into_table(R::RESOURCE);
        insert.columns(rows[0].iter().map(|(name, _)| *name));
        for row in rows {
            insert.values_panic(row.iter().map(|(_, value)| Expr::from(value.clone())));
        }
        sql::execute(&mut *connection, &insert).await?;
    }
    Ok(())
}

/// Knuth's MMIX generator: the same numbers everywhere, and no dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The high bits are the good ones; 31 of them fit any integer.
        i64::from((self.0 >> 33) as u32) % bound
    }
}
