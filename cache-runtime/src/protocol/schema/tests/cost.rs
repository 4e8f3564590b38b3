//! How long it takes to find a shape. To measure, not to judge:
//! `cargo test --release -p cache-runtime --lib -- --ignored --nocapture the_cost_of_a_shape`.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::probe;

/// Ten fields.
#[derive(Deserialize)]
struct Flat {
    _a: u64,
    _b: String,
    _c: Option<String>,
    _d: bool,
    _e: i32,
    _f: f64,
    _g: Vec<String>,
    _h: Option<u32>,
    _i: String,
    _j: u8,
}

#[derive(Deserialize)]
enum State {
    _Open,
    _Paid { _at: u64 },
    _Sent { _at: u64, _by: Option<String> },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Payment {
    _Cash { _sum: u32 },
    _Card { _last: u16, _name: Option<String> },
    _Transfer { _iban: String, _bic: Option<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Contact {
    _Phone {
        _number: String,
    },
    _Mail {
        _address: String,
        _name: Option<String>,
    },
    _None,
}

/// Parts of each kind.
#[derive(Deserialize)]
struct Nested {
    _id: u64,
    _state: State,
    _payment: Payment,
    _contact: Contact,
    _lines: Vec<(u64, String, f64)>,
}

/// About a hundred fields, with parts of each kind in several places.
#[derive(Deserialize)]
struct Large {
    _id: u64,
    _one: Flat,
    _two: Flat,
    _three: Option<Flat>,
    _four: Vec<Flat>,
    _five: BTreeMap<String, Flat>,
    _six: Box<Flat>,
    _payment: Payment,
    _contact: Contact,
    _states: Vec<State>,
    _orders: Vec<Nested>,
    _others: BTreeMap<String, Nested>,
    _refund: Option<Payment>,
}

fn measure<T: DeserializeOwned + 'static>(name: &str) {
    let times = (0..30).map(|_| {
        let began = Instant::now();
        let _ = probe::run::<T>();
        began.elapsed()
    });
    let mut times: Vec<_> = times.collect();
    times.sort();
    eprintln!("{name}: {:?} at best, {:?} usually", times[0], times[15]);
}

#[test]
#[ignore = "measures"]
fn the_cost_of_a_shape() {
    measure::<Flat>("flat");
    measure::<Nested>("nested");
    measure::<Large>("large");
}
