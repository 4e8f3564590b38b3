//! Random calls of the demo's API.

use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

/// One request. Everything about it is decided before it is sent, so that it can be sent again
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// JSON in most cases, and broken JSON in some.
    pub(crate) body: Option<String>,
    /// What `If-None-Match` says.
    pub(crate) known: Known,
    /// Which process of several gets it, modulo their number.
    pub(crate) seat: usize,
}

/// What a client says that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// The tag of its last answer to the same path, if there was one.
    Last,
    /// `*`
    Anything,
    /// A tag that nobody has given out.
    Other,
}

impl Call {
    pub(crate) fn is_read(&self) -> bool {
        self.method == Method::GET || self.path.contains("/filter")
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if let Some(body) = &self.body {
            write!(f, " {body}")?;
        }
        if self.known != Known::Nothing {
            write!(f, " (knows: {:?})", self.known)?;
        }
        write!(f, " (process {})", self.seat)
    }
}

/// Which rows a client works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition {
    pub(crate) number: i64,
    pub(crate) of: i64,
}

impl Partition {
    /// All rows.
    pub(crate) const WHOLE: Self = Self { number: 0, of: 1 };

    fn is_whole(self) -> bool {
        self.of == 1
    }

    /// A row that is there at first: few, so that they are read again.
    fn seeded(self, rng: &mut Rng) -> i64 {
        1 + self.number + self.of * rng.i64(0..6)
    }

    /// Any row, be it one that has been added or that never was. What gets which id depends on who
    /// else adds rows, so only a client who is alone asks for added ones.
    fn id(self, first_new: i64, rng: &mut Rng) -> i64 {
        if self.is_whole() && rng.u32(..4) == 0 {
            first_new + rng.i64(0..8)
        } else {
            self.seeded(rng)
        }
    }

    fn email(self, rng: &mut Rng) -> String {
        let domain = ["example.test", "Example.TEST"][rng.usize(..2)];
        format!("u{}@partition{}.{domain}", rng.u32(..6), self.number)
    }

    fn shelf(self, rng: &mut Rng) -> String {
        format!("shelf-{}-{}", self.number, rng.u32(..3))
    }
}

const USERS: i64 = 1_001;
const PRODUCTS: i64 = 201;

/// A sequence of calls, most of them reads, some of which are asked again soon.
pub(crate) fn calls(partition: Partition, count: usize, rng: &mut Rng) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::with_capacity(count);
    while calls.len() < count {
        let again = rng.usize(1..6);
        let before = calls.len().checked_sub(again).map(|at| calls[at].clone());
        match before.filter(|before| before.is_read() && rng.u32(..5) < 2) {
            Some(mut before) => {
                before.seat = rng.usize(..2);
                calls.push(before);
            }
            None => calls.push(call(partition, rng)),
        }
    }
    calls
}

/// A call of any kind.
fn call(partition: Partition, rng: &mut Rng) -> Call {
    let is_users = rng.bool();
    let (resource, first_new) = if is_users {
        ("users", USERS)
    } else {
        ("products", PRODUCTS)
    };
    let (method, path, body) = match rng.u32(..100) {
        0..30 => get(format!("/{resource}/{}", partition.id(first_new, rng))),
        30..38 => get(format!(
            "/{resource}?ids={}",
            ids(partition, first_new, rng)
        )),
        38..46 if partition.is_whole() => get(page(resource, rng)),
        38..50 => filter(partition, is_users, "filter", rng),
        50..58 => filter(partition, is_users, "filter-paginated", rng),
        58..64 => post(format!("/{resource}"), input(partition, is_users, rng)),
        64..75 => {
            let path = format!("/{resource}/{}", partition.id(first_new, rng));
            (
                Method::PUT,
                path,
                Some(input(partition, is_users, rng).to_string()),
            )
        }
        75..78 => {
            let path = format!("/{resource}/{}", partition.id(first_new, rng));
            (Method::DELETE, path, None)
        }
        78..86 => post("/purchases".into(), purchase(partition, rng)),
        86..89 => {
            let path = ["/cache", "/cache/users", "/cache/products"][rng.usize(..3)];
            (Method::DELETE, path.into(), None)
        }
        89..92 => {
            let path = format!("/{resource}/{}", partition.seeded(rng));
            (Method::HEAD, path, None)
        }
        _ => nonsense(resource, rng),
    };
    let known = match rng.u32(..10) {
        0..3 => Known::Last,
        3 if rng.bool() => Known::Anything,
        3 => Known::Other,
        _ => Known::Nothing,
    };
    Call {
        method,
        path,
        body,
        known,
        seat: rng.usize(..2),
    }
}

type Parts = (Method, String, Option<String>);

fn get(path: String) -> Parts {
    (Method::GET, path, None)
}

fn post(path: String, body: Value) -> Parts {
    (Method::POST, path, Some(body.to_string()))
}

fn ids(partition: Partition, first_new: i64, rng: &mut Rng) -> String {
    let ids: Vec<String> = (0..rng.usize(1..6))
        .map(|_| partition.id(first_new, rng).to_string())
        .collect();
    ids.join(",")
}

fn page(resource: &str, rng: &mut Rng) -> String {
    match rng.u32(..4) {
        0 => format!("/{resource}"),
        1 => format!("/{resource}?limit={}", rng.u32(1..8)),
        2 => format!(
            "/{resource}?skip={}&limit={}",
            rng.u32(..3) * 3,
            rng.u32(1..4)
        ),
        // Where the added rows are.
        _ => format!("/{resource}?skip={}", [195, 995][rng.usize(..2)]),
    }
}

/// A filter over the rows of a partition. Rows that are added get their time from a clock, so they
/// are not ordered by it.
fn filter(partition: Partition, is_users: bool, path: &str, rng: &mut Rng) -> Parts {
    let mut conditions = vec![if is_users {
        match rng.u32(..4) {
            0 => {
                json!({"field": "email", "op": "ilike", "value": format!("%@partition{}.%", partition.number)})
            }
            1 => json!({"field": "age", "op": below_or_from(rng), "value": rng.u32(20..60)}),
            2 => json!({"field": "active", "op": "eq", "value": rng.bool()}),
            _ => json!({"or": [
                {"field": "name", "op": "like", "value": "A%"},
                {"field": "age", "op": "between", "value": [rng.u32(20..40), rng.u32(40..60)]},
            ]}),
        }
    } else {
        match rng.u32(..4) {
            0 => json!({"field": "category", "op": "eq", "value": partition.shelf(rng)}),
            1 => json!({"field": "stock", "op": below_or_from(rng), "value": rng.u32(..50)}),
            2 => json!({"field": "description", "op": "is_null", "value": rng.bool()}),
            _ => json!({"field": "price", "op": "in", "value": [0.1, 12.5, rng.u32(..4)]}),
        }
    }];
    let is_of_the_partition = rng.bool() || !partition.is_whole();
    if is_of_the_partition {
        let own: Vec<i64> = (0..6)
            .map(|n| 1 + partition.number + partition.of * n)
            .collect();
        conditions.push(json!({"field": "id", "op": "in", "value": own}));
    }
    let column = if is_users { "age" } else { "price" };
    let direction = ["asc", "desc"][rng.usize(..2)];
    let mut body = json!({"conditions": conditions, "limit": rng.u32(1..12)});
    if rng.bool() {
        body["order_by"] = json!([{"field": column, "direction": direction}]);
    }
    if rng.u32(..3) == 0 {
        body["skip"] = json!(rng.u32(..4));
    }
    let resource = if is_users { "users" } else { "products" };
    post(format!("/{resource}/{path}"), body)
}

fn input(partition: Partition, is_users: bool, rng: &mut Rng) -> Value {
    if is_users {
        let age = if rng.u32(..20) == 0 {
            json!(151)
        } else {
            json!(rng.u32(20..60))
        };
        json!({"name": name(rng), "email": partition.email(rng), "age": age, "active": rng.bool()})
    } else {
        let mut product = json!({
            "name": name(rng), "category": partition.shelf(rng), "stock": rng.u32(..40),
            "price": price(rng),
        });
        if rng.bool() {
            let text = ["", "Sturdy.", "\u{1F980} 100% \\"][rng.usize(..3)];
            product["description"] = json!(text);
        }
        product
    }
}

fn below_or_from(rng: &mut Rng) -> &'static str {
    ["lt", "gte"][rng.usize(..2)]
}

fn price(rng: &mut Rng) -> f64 {
    [0.1, 12.5, 1e6, 0.0, 3.0][rng.usize(..5)]
}

fn name(rng: &mut Rng) -> &'static str {
    ["Ada", "Åse \"Ø\"", "x\ny", "  z ", "Zoë\u{200d}"][rng.usize(..5)]
}

fn purchase(partition: Partition, rng: &mut Rng) -> Value {
    json!({
        "user_id": partition.seeded(rng),
        "product_id": partition.seeded(rng),
        // Too many now and then: then the whole transaction is undone.
        "quantity": if rng.u32(..4) == 0 { 900 } else { rng.u32(1..5) },
    })
}

/// What is refused, whatever the rows are.
fn nonsense(resource: &str, rng: &mut Rng) -> Parts {
    let path = |rest: &str| format!("/{resource}{rest}");
    match rng.u32(..14) {
        0 => get(path("/abc")),
        1 => get(path("/9223372036854775808")),
        2 => get(path("/-1")),
        3 => get(path("?limit=0")),
        4 => get(path("?skip=-1")),
        5 => get(path("?ids=1,x")),
        6 => get("/nowhere".into()),
        7 => (Method::PATCH, path("/1"), None),
        8 => (Method::POST, path(""), Some("{\"name\": ".into())),
        9 => (Method::POST, path(""), Some(String::new())),
        10 => post(path(""), json!([1])),
        11 => post(
            path("/filter"),
            json!({"conditions": [{"field": "no", "op": "eq", "value": 1}]}),
        ),
        12 => post(
            "/purchases".into(),
            json!({"user_id": 1, "product_id": 1, "quantity": 0}),
        ),
        _ => (Method::DELETE, "/cache/nothing".into(), None),
    }
}
