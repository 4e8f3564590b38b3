//! What is left of a process once the faults are over, compared with what it was before.

use std::time::Duration;

use cache_tests::Postgres;

use crate::app::Figures;
use crate::context::CONNECTIONS;
use crate::coordinator::App;
use crate::servers::Servers;

/// Within this time after the last fault everything is as before.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);
/// What a program may take more than before, besides a tenth: its history's buffer, and arenas of
/// its allocator.
const SLACK_KB: u64 = 4 << 10;

/// Figures of the whole, with nothing going on.
#[derive(Debug)]
pub(crate) struct Aftermath {
    apps: Vec<Option<Figures>>,
    redis_connections: usize,
    postgres_connections: usize,
}

/// What a report says of it.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) lines: Vec<String>,
    pub(crate) complaints: Vec<String>,
}

impl Aftermath {
    pub(crate) fn measure(
        apps: &[App],
        phase: &str,
        servers: &Servers,
        postgres: &Postgres,
        database: &str,
    ) -> Self {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        Self {
            apps: apps.iter().map(|app| app.figures(phase)).collect(),
            redis_connections: servers.connections(),
            postgres_connections: postgres.psql(database, sql).parse().unwrap_or_default(),
        }
    }

    /// Says what is not as before.
    pub(crate) fn compared_with(
        &self,
        before: &Self,
        recovered: Option<Duration>,
        evicted: u64,
    ) -> Comparison {
        let mut comparison = Comparison::default();
        let mut complain = |text: String| comparison.complaints.push(text);
        match recovered {
            Some(time) => comparison
                .lines
                .push(format!("recovered after {:.1} s", time.as_secs_f64())),
            None => complain(format!(
                "not recovered {} s after the last fault: {:?}",
                RECOVERY.as_secs(),
                self.apps
            )),
        }
        // A pool that has just lost a connection is one short.
        let usable = CONNECTIONS as usize * self.apps.len();
        let pairs = [
            (
                "connections to Redis",
                before.redis_connections,
                self.redis_connections,
            ),
            (
                "connections to PostgreSQL",
                before.postgres_connections.max(usable),
                self.postgres_connections,
            ),
        ];
        for (what, then, now) in pairs {
            comparison
                .lines
                .push(format!("{what}: {then} before, {now} after"));
            if now > then {
                complain(format!("{what}: {then} before, {now} after"));
            }
        }
        let figures = |figure: fn(&Figures) -> u64| {
            let of =
                |apps: &[Option<Figures>]| apps.iter().flatten().map(figure).collect::<Vec<u64>>();
            (of(&before.apps), of(&self.apps))
        };
        let rows = [
            ("runtime tasks", figures(|app| app.tasks as u64), 0),
            // A load that keeps its thread has the runtime start another, which stays for a while.
            ("threads", figures(|app| app.threads), 8),
            ("pending invalidations", figures(|app| app.pending), 0),
            ("panics", figures(|app| app.panics), 0),
            ("resident memory, kB", figures(|app| app.rss_kb), SLACK_KB),
        ];
        for (what, (then, now), slack) in rows {
            comparison
                .lines
                .push(format!("{what}: {then:?} before, {now:?} after"));
            // A process that was started since is compared with those that were there before.
            let most = then.iter().max().copied().unwrap_or_default();
            if now.iter().any(|now| *now > most + most / 10 + slack) {
                complain(format!("{what}: {then:?} before, {now:?} after"));
            }
        }
        comparison.lines.push(format!("keys evicted: {evicted}"));
        comparison
    }
}
