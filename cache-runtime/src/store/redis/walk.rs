//! Walks over the keys of one server, and its `INFO`.

use std::time::Duration;

use super::connection::Connection;
use super::limits::{WAITED_WALK_STEP, WALK_STEP};
use super::reply::info_field;
use crate::base::error::Error;
use crate::store::ServerInfo;

/// The next step of a walk over the matching keys; `None` when it is over. A step may be empty.
pub(super) async fn scan(
    connection: &Connection,
    budget: Duration,
    walk: &mut Walk,
) -> Result<Option<Vec<String>>, Error> {
    let Some(cursor) = walk.cursor.take() else {
        return Ok(None);
    };
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor)
        .arg("MATCH")
        .arg(&walk.pattern)
        .arg("COUNT")
        .arg(walk.step);
    let (next, keys): (String, Vec<Vec<u8>>) = connection
        .ask(budget, async |multiplexed| {
            scan.query_async(multiplexed).await
        })
        .await?;
    walk.cursor = (next != "0").then_some(next);
    // A key that is not UTF-8 is not one of ours.
    Ok(Some(
        keys.into_iter()
            .filter_map(|key| String::from_utf8(key).ok())
            .collect(),
    ))
}

pub(super) async fn db_size(connection: &Connection, budget: Duration) -> Result<u64, Error> {
    connection
        .ask(budget, async |multiplexed| {
            redis::cmd("DBSIZE").query_async(multiplexed).await
        })
        .await
}

/// The facts about one server.
pub(super) async fn server_info_of(
    connection: &Connection,
    budget: Duration,
) -> Result<ServerInfo, Error> {
    let total_keys = db_size(connection, budget).await?;
    // If INFO is not permitted, they are unknown.
    let info: String = connection
        .ask(budget, async |multiplexed| {
            redis::cmd("INFO").query_async(multiplexed).await
        })
        .await
        .unwrap_or_default();
    let number = |name| info_field(&info, name).and_then(|value| value.parse().ok());
    Ok(ServerInfo {
        total_keys: Some(total_keys),
        used_memory: info_field(&info, "used_memory_human").map(str::to_owned),
        uptime_seconds: number("uptime_in_seconds"),
        connected_clients: number("connected_clients"),
        nodes: Vec::new(),
    })
}

/// A walk over the keyspace, in steps.
pub(super) struct Walk {
    pattern: String,
    /// Where the next step begins; `None` after the last.
    cursor: Option<String>,
    /// How many keys the server looks at in one step.
    step: usize,
}

impl Walk {
    pub(super) fn new(pattern: String, is_low_priority: bool) -> Self {
        Self {
            pattern,
            cursor: Some("0".into()),
            step: match is_low_priority {
                true => WALK_STEP,
                false => WAITED_WALK_STEP,
            },
        }
    }
}
