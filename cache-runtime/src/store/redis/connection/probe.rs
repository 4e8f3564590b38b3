//! Finds out what a server can do, before a connection to it is used.
//!
//! Many servers and services speak Redis's protocol, and each leaves out different commands. A
//! server that can't keep the cache's promises is refused, and the error names the fix. If only a
//! part of the cache needs a missing command, the server is used without that part, and
//! [`Capabilities::missing`] reports it to the log and to
//! [`Cache::doctor`](crate::Cache::doctor).

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::super::reply::info_field;
use super::super::scripts::ScriptMode;

/// The capabilities of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capabilities {
    pub(crate) scripts: ScriptMode,
    /// One line for each missing capability: what does not work without it, and the fix.
    pub(crate) missing: Vec<String>,
}

/// The kind of server that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Standalone,
    /// A node of a cluster.
    Cluster,
    Sentinel,
}

impl Mode {
    /// Reads it from the answer to `INFO`.
    pub(crate) fn of(info: &str) -> Self {
        let mode = info_field(info, "redis_mode").or_else(|| info_field(info, "server_mode"));
        match mode {
            Some("sentinel") => Self::Sentinel,
            Some("cluster") => Self::Cluster,
            _ if info_field(info, "cluster_enabled") == Some("1") => Self::Cluster,
            _ => Self::Standalone,
        }
    }
}

/// Whether the server does not know the command, for instance because its operator has renamed it.
pub(crate) fn is_unknown_command(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.to_ascii_lowercase().contains("unknown command"))
}

/// Whether a server refused RESP3, and may still speak RESP2.
pub(crate) fn refuses_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || is_unknown_command(error)
        // Proxies such as twemproxy close the connection at a command that they don't know.
        || (error.is_connection_dropped() && !error.is_connection_refusal())
}

/// Whether a command that runs a script was refused, and not a command inside the script.
pub(crate) fn refuses_scripts(error: &RedisError) -> bool {
    let names_it = |detail: &str| {
        let detail = detail.to_ascii_lowercase();
        ["evalsha", "eval'", "script|load", "'script", "|load"]
            .iter()
            .any(|name| detail.contains(name))
    };
    let is_no_script = error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
    let is_refused = error.code() == Some("NOPERM") || is_unknown_command(error);
    is_no_script || (is_refused && error.detail().is_some_and(names_it))
}

/// Checks the commands that only parts of the cache need.
pub(crate) async fn examine(
    multiplexed: &mut MultiplexedConnection,
    scripts: ScriptMode,
    is_resp3: bool,
) -> Capabilities {
    let mut missing = Vec::new();
    if !is_resp3 {
        missing.push(
            "RESP3 (HELLO 3 is refused), so there are no local entries, and callers poll for the loads of other processes; use Redis or Valkey 6.2 or later, and don't rename HELLO".to_owned(),
        );
    }
    if scripts == ScriptMode::ByText {
        missing.push(
            "EVALSHA and SCRIPT LOAD, so each change is sent with the text of its script by EVAL, some 5 KB; permit or don't rename them".to_owned(),
        );
    }
    let mut scan = redis::cmd("SCAN");
    scan.arg("0").arg("COUNT").arg("1");
    if let Err(error) = scan.query_async::<Value>(multiplexed).await
        && (is_unknown_command(&error) || error.code() == Some("NOPERM"))
    {
        missing.push(
            "SCAN, so `clear_all`, `invalidate_pattern` and the removal of dead entries fail; permit it or don't rename it".to_owned(),
        );
    }
    Capabilities { scripts, missing }
}

/// The line for a server that refuses to track reads.
pub(crate) fn no_tracking(started: &Result<(), RedisError>) -> Option<String> {
    let error = started.as_ref().err()?;
    let is_refused = is_unknown_command(error) || error.code() == Some("NOPERM");
    is_refused.then(|| {
        "CLIENT TRACKING, so there are no local entries; permit it (+client|tracking)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> RedisError {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes())
            .and_then(Value::extract_error)
            .expect_err("an error was sent")
    }

    #[test]
    fn modes() {
        for (info, mode) in [
            (
                "redis_mode:standalone\r\ncluster_enabled:0\r\n",
                Mode::Standalone,
            ),
            ("redis_mode:sentinel\r\n", Mode::Sentinel),
            ("server_mode:sentinel\r\n", Mode::Sentinel),
            ("redis_mode:cluster\r\n", Mode::Cluster),
            ("cluster_enabled:1\r\n", Mode::Cluster),
            ("", Mode::Standalone),
        ] {
            assert_eq!(Mode::of(info), mode, "{info}");
        }
    }

    #[test]
    fn refusals_are_known_in_the_words_of_each_version() {
        for text in [
            "ERR unknown command `HELLO`, with args beginning with: `3`, ",
            "ERR unknown command 'HELLO', with args beginning with: '3' ",
            "NOPROTO unsupported protocol version",
        ] {
            assert!(refuses_resp3(&error(text)), "{text}");
        }
        assert!(!refuses_resp3(&error(
            "WRONGPASS invalid username-password pair"
        )));
        for text in [
            "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
            "NOPERM User app has no permissions to run the 'script|load' command",
            "ERR unknown command 'EVALSHA', with args beginning with: 'abc' ",
            "NOSCRIPT No matching script. Please use EVAL.",
        ] {
            assert!(refuses_scripts(&error(text)), "{text}");
        }
        for text in [
            "ERR The user executing the script can't run this command or subcommand script: 5fd0",
            "NOPERM No permissions to access a key",
            "OOM command not allowed",
        ] {
            assert!(!refuses_scripts(&error(text)), "{text}");
        }
    }
}
