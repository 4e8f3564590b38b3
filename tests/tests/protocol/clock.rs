//! The server's clock is set back by an hour: deadlines and times from before lie in its future
//! then, as they are written here.

use std::time::Duration;

use cache_runtime::{BypassReason, Cache, Status, observe};
use cache_tests::RedisServer;

use crate::over;
use crate::shop::{Gate, Shop};

const HOUR: u64 = 3_600_000;
/// Long enough that nothing is renewed meanwhile.
const LONG: Duration = Duration::from_secs(120);
const STORED: Status = Status::Miss {
    stored: true,
    joined: false,
};

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

/// An hour later, where it is a time at all.
fn later(time: &str) -> String {
    match time.parse::<u64>().expect("a time") {
        0 => time.to_owned(),
        time => format!("{:013}", time + HOUR),
    }
}

/// As the entry or lease under a key stands after the clock was set back.
fn set_back(server: &RedisServer, key: &str) {
    let value = server.cli(&["GET", key]);
    let (header, payload) = value.split_once('\n').unwrap_or((&value, ""));
    let fields = header.trim_end().split(' ').enumerate();
    let fields = fields.map(|(at, field)| match at {
        5 | 8..=10 => later(field),
        _ => field.to_owned(),
    });
    let header = fields.collect::<Vec<_>>().join(" ");
    server.cli(&["SET", key, &format!("{header}\n{payload}"), "PX", "4000000"]);
}

/// The same of the intents in a value.
fn set_intents_back(server: &RedisServer, key: &str) {
    let value = server.cli(&["GET", key]);
    let mut parts = value.trim_end().split('@');
    let mut moved = parts.next().expect("a part").to_owned();
    for part in parts {
        let end = part.find(' ').unwrap_or(part.len());
        let (deadline, rest) = part.split_at(end);
        moved += &format!("@{}{rest}", later(deadline));
    }
    assert!(moved.contains('@'), "an intent stands there: {moved}");
    server.cli(&["SET", key, &moved, "PX", "4000000"]);
}

#[tokio::test]
async fn an_entry_does_not_live_longer_by_what_the_clock_was_set_back() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    for (round, batch) in [false, true].into_iter().enumerate() {
        let name = format!("name {round}");
        let before = shop.name(1).await;
        shop.commit(1, &name);
        assert_eq!(shop.name(1).await, before);
        set_back(&server, "users:1");
        let read = match batch {
            true => status(shop.get_many(&[1])).await,
            false => status(shop.get(1)).await,
        };
        assert_eq!(read, STORED);
        assert_eq!(shop.name(1).await, name);
        assert!(is_hit(status(shop.get(1)).await));
    }
}

#[tokio::test]
async fn a_lease_blocks_its_key_no_longer_than_a_lease_lasts() {
    let server = RedisServer::start();
    let config = || over(&server).lease(LONG);
    let shop = Shop::new(&Cache::new(config()).await);
    let other = shop.node(&Cache::new(config()).await);
    shop.list(0, 1).await.expect("made the generations");
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.name(1).await });
    gate.arrival().await;
    set_back(&server, "users:1");
    assert_eq!(status(other.get(1)).await, STORED);
    other.commit(1, "new");
    other.rename(1, "newer").await.expect("written");
    gate.open();
    load.await.expect("ends");
    assert_eq!(other.name(1).await, "newer", "its fill is refused");
}

#[tokio::test]
async fn an_intent_blocks_its_keys_no_longer_than_it_lasts() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server).intent(LONG)).await);
    let other = shop.node(&Cache::new(over(&server)).await);
    other.list(0, 1).await.expect("made the generations");
    let gate = Gate::new();
    let held = shop.with_write_gate(&gate);
    let write = cache_tests::spawn(async move { held.rename_crash_safe(1, "new").await });
    gate.arrival().await;
    // It lasts for longer than one of this process would.
    for _ in 0..3 {
        assert_eq!(
            status(other.get(1)).await,
            Status::Bypass(BypassReason::WriteInProgress)
        );
        assert_eq!(
            status(other.list(0, 1)).await,
            Status::Bypass(BypassReason::WriteInProgress)
        );
    }
    set_intents_back(&server, "users:1");
    set_intents_back(&server, "@gen:users~derived");
    assert_eq!(status(other.get(1)).await, STORED);
    assert_eq!(status(other.list(0, 1)).await, STORED);
    gate.open();
    write.await.expect("ends").expect("written");
    assert_eq!(other.name(1).await, "new");
}

/// One that does not say how long it lasts, of a program of an earlier version.
#[tokio::test]
async fn an_intent_of_unknown_length_does_not_stand_for_an_hour() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    shop.list(0, 1).await.expect("made the generations");
    let now = server.cli(&["TIME"]);
    let seconds: u64 = now
        .lines()
        .next()
        .expect("seconds")
        .trim()
        .parse()
        .expect("a number");
    let nonce = "0123456789abcdef".repeat(2);
    for (ahead, expected) in [
        (60_000, Status::Bypass(BypassReason::WriteInProgress)),
        (HOUR, STORED),
    ] {
        let ends = seconds * 1_000 + ahead;
        server.cli(&["SET", "@gen:users", &format!("{nonce} {nonce}@{ends}")]);
        assert_eq!(status(shop.get(2)).await, expected, "{ahead}");
    }
}
