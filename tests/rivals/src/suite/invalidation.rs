//! Forgetting a thousand entries of one resource among a million keys, and what another client
//! notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_tests::RedisServer;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use super::{Failed, Settings};
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::measure::{median, quantile};
use crate::progress::Step;
use crate::report::time;
use crate::rivals::Rival;
use crate::rivals::cached::Cached;
use crate::rivals::hand_written::{HandWritten, connect};
use crate::rivals::ours::Ours;

/// Entries of the resource.
const ENTRIES: i64 = 1_000;
/// Rows that are invalidated one by one in each round.
const ROWS_OF_ONE: i64 = 20;

/// A client that has nothing to do with any of it, and reads one key again and again.
struct Bystander {
    stop: Arc<AtomicBool>,
    waited: JoinHandle<Vec<f64>>,
}

impl Bystander {
    async fn start(port: u16) -> Self {
        let mut connection = connect(port).await;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let waited = tokio::spawn(async move {
            let mut waited = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                let _: Option<String> = get(&mut connection, "bystander").await;
                waited.push(start.elapsed().as_nanos() as f64);
                tokio::task::yield_now().await;
            }
            waited
        });
        Self { stop, waited }
    }

    async fn stop(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.waited.await.expect("the bystander lives")
    }
}

async fn get<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, key: &str) -> T {
    let answer = redis::cmd("GET").arg(key).query_async(connection).await;
    answer.expect("Redis answers")
}

/// Keys of other programs.
async fn fill(connection: &mut MultiplexedConnection, keys: u64) -> Result<(), Failed> {
    let script = redis::Script::new(
        "for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('SET', 'other:' .. n, ARGV[3]) end",
    );
    let chunk = 10_000;
    for from in (0..keys).step_by(chunk) {
        let (from, to) = (from, (from + chunk as u64).min(keys) - 1);
        let mut call = script.prepare_invoke();
        let call = call.arg(from).arg(to).arg("0123456789abcdef");
        let () = call.invoke_async(connection).await?;
    }
    Ok(())
}

/// The usual ways to do it by hand.
async fn scan_and_unlink(connection: &mut MultiplexedConnection) -> Result<(), Failed> {
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg("hand:users:*")
            .arg("COUNT")
            .arg(1_000)
            .query_async(connection)
            .await?;
        if !keys.is_empty() {
            let () = redis::cmd("UNLINK")
                .arg(keys)
                .query_async(connection)
                .await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

async fn keys_in_lua(connection: &mut MultiplexedConnection) -> Result<(), Failed> {
    let script = redis::Script::new(
        "for _, key in ipairs(redis.call('KEYS', 'hand:users:*')) do redis.call('UNLINK', key) end",
    );
    Ok(script.invoke_async(connection).await?)
}

/// What one way took while nobody else did anything, and what it cost others, over all rounds.
#[derive(Default)]
struct Taken {
    calls: Vec<f64>,
    /// The longest command of each round, by the server's own clock; nothing if all were short.
    commands: Vec<f64>,
    /// The longest wait of the bystander in each round.
    longest: Vec<f64>,
    waited: Vec<f64>,
    /// How long the bystander was there in the last round.
    window: Duration,
}

impl Taken {
    /// Twice: the bystander would take its share of the processors from what is timed.
    async fn round<T>(
        &mut self,
        port: u16,
        warm: impl AsyncFn(),
        mut call: impl AsyncFnMut() -> Result<T, Failed>,
        afterwards: impl AsyncFn(),
    ) -> Result<(), Failed> {
        let mut server = connect(port).await;
        warm().await;
        let () = slowlog(&mut server, &["RESET"]).await?;
        let start = Instant::now();
        call().await?;
        self.calls.push(start.elapsed().as_nanos() as f64);
        afterwards().await;
        self.commands.push(longest_command(&mut server).await?);

        warm().await;
        let bystander = Bystander::start(port).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        call().await?;
        afterwards().await;
        self.window = start.elapsed();
        let waited = bystander.stop().await;
        self.longest
            .push(waited.iter().copied().fold(0.0, f64::max));
        self.waited.extend(waited);
        Ok(())
    }

    fn row(self, name: &str, first: f64) -> Row {
        let p50 = median(self.calls.clone());
        let command = median(self.commands);
        Row {
            p50: Some(p50),
            p99: Some(quantile(self.calls, 0.99)),
            p50_ratio: Some(p50 / first),
            ..Row::named(name)
        }
        .with(
            "longest command",
            if command > 0.0 {
                time(command)
            } else {
                format!("under {}", time(SLOW.as_nanos() as f64))
            },
        )
        .with("bystander, p99", time(quantile(self.waited, 0.99)))
        .with("bystander, longest of a round", time(median(self.longest)))
    }
}

/// Commands that take the server longer are in its log.
const SLOW: Duration = Duration::from_micros(20);

async fn slowlog<T: redis::FromRedisValue>(
    server: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<T, Failed> {
    let mut slowlog = redis::cmd("SLOWLOG");
    Ok(slowlog.arg(words).query_async(server).await?)
}

/// In nanoseconds.
async fn longest_command(server: &mut MultiplexedConnection) -> Result<f64, Failed> {
    let entries: Vec<Vec<redis::Value>> = slowlog(server, &["GET", "-1"]).await?;
    let micros = entries.iter().filter_map(|entry| match entry.get(2) {
        Some(redis::Value::Int(micros)) => Some(*micros as f64),
        _ => None,
    });
    Ok(micros.fold(0.0, f64::max) * 1e3)
}

async fn warm<R: Rival>(rival: &R) {
    for id in 0..ENTRIES {
        rival.user(id).await.expect("a row");
    }
}

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let server = RedisServer::start();
    let port = server.port();
    let mut connection = connect(port).await;
    let slow = SLOW.as_micros().to_string();
    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", &slow]);
    server.cli(&["CONFIG", "SET", "slowlog-max-len", "20000"]);
    // Above a million keys our sweep leaves dead entries to their time to live; this is just below.
    let others = settings.pick(100_000, 995_000);
    step.say(&format!("writing {others} keys"));
    fill(&mut connection, others).await?;

    let ours = Ours::start(port).await;
    let hand_written = HandWritten::start(port).await;
    let cached = Cached::start(port).await;
    let [mut own, mut scanned, mut scripted, mut cleared, mut nothing] =
        [(); 5].map(|()| Taken::default());
    let (mut rows, mut pings) = (Vec::new(), Vec::new());
    let rounds = settings.pick(3, 11);
    for number in 1..=rounds {
        step.say(&format!("round {number} of {rounds}"));
        let invalidate = async || Ok(ours.0.cache.invalidate_all("users").await);
        own.round(
            port,
            async || warm(&ours).await,
            invalidate,
            async || {
                swept(port).await;
            },
        )
        .await?;

        // How long the bystander waits when nobody does anything, in the same time: the longer it
        // looks, the longer is the longest wait that it sees.
        let window = own.window;
        let idle = async || tokio::time::sleep(window).await;
        let mut server = connect(port).await;
        let ping = async || Ok(redis::cmd("PING").exec_async(&mut server).await?);
        nothing
            .round(port, async || warm(&ours).await, ping, idle)
            .await?;
        warm(&ours).await;

        // In turn, since what is asked for first wakes the server.
        for id in 0..ROWS_OF_ONE {
            let start = Instant::now();
            let _ = ours.0.cache.invalidate("users", &id).await;
            rows.push(start.elapsed().as_nanos() as f64);
            let start = Instant::now();
            redis::cmd("PING").exec_async(&mut server).await?;
            pings.push(start.elapsed().as_nanos() as f64);
        }

        let by_hand = async || warm(&hand_written).await;
        let mut other = connection.clone();
        let scan = async || scan_and_unlink(&mut other).await;
        scanned.round(port, by_hand, scan, async || {}).await?;

        let keys = async || keys_in_lua(&mut other).await;
        scripted.round(port, by_hand, keys, async || {}).await?;

        let clear = async || Ok(cached.clear_users().await?);
        let filled = async || warm(&cached).await;
        cleared.round(port, filled, clear, async || {}).await?;
    }

    let million = format!(
        "Whole resource, 1,000 entries among {} keys",
        crate::report::count(others as f64)
    );
    let idle = median(nothing.longest.clone());
    // Round by round, since what else the machine does changes from one to the next.
    let rounds = own.longest.iter().zip(&nothing.longest);
    let delayed = median(rounds.map(|(busy, idle)| busy - idle).collect()).max(0.0) / 1e6;
    let command = median(own.commands.clone()) / 1e6;
    let took = median(own.calls.clone());
    let each = own.calls.iter().zip(&nothing.calls);
    let by_pings = median(each.map(|(own, ping)| own / ping).collect());
    let (row, ping) = (median(rows.clone()), median(pings));
    let mut findings = Findings::default();
    findings.goals.extend([
        Goal::measured(
            &format!("{million}: invalidation against `PING`"),
            Bound::AtMost(1.4),
            "×",
            by_pings,
        ),
        Goal::measured(
            "One row: invalidation against `PING`",
            Bound::AtMost(1.4),
            "×",
            row / ping,
        ),
        Goal::measured(
            "Another client's longest wait during the sweep, over that of an idle server",
            Bound::AtMost(1.0),
            "ms",
            delayed,
        ),
        Goal::reported(
            "Longest command of invalidation and sweep, by the server's clock",
            "ms",
            command,
        ),
    ]);
    findings.tables.push(Table {
        title: "Whole-resource invalidation".into(),
        text: format!(
            "{million}. The bystander reads one key of its own on another connection, also while our sweep unlinks the dead \
             entries afterwards. After that it does so for as long while nobody does anything: its longest wait is {} then, \
             and what a sweep adds is the median of the differences of rounds. One command and its answer, to compare with the \
             invalidation, is a `PING` after the same reads. The longest command is what the server says in its `SLOWLOG`.",
            time(idle)
        ),
        rows: vec![
            own.row("this project, a new generation", took),
            Row {
                p50: Some(row),
                p99: Some(quantile(rows, 0.99)),
                p50_ratio: Some(row / took),
                ..Row::named("this project, one row")
            },
            nothing.row("`PING`, and nothing after it", took),
            scanned.row("SCAN and UNLINK", took),
            scripted.row("KEYS and UNLINK in Lua", took),
            cleared.row("cached, clear", took),
        ],
    });
    Ok(findings)
}

/// Once our sweep has unlinked what is dead.
async fn swept(port: u16) {
    let mut connection = connect(port).await;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let found: Vec<bool> = redis::pipe()
            .exists("users:1")
            .exists(format!("users:{}", ENTRIES - 1))
            .query_async(&mut connection)
            .await
            .expect("Redis answers");
        if found == [false, false] {
            // Both may go before the walk is over.
            tokio::time::sleep(Duration::from_millis(300)).await;
            return;
        }
    }
}
