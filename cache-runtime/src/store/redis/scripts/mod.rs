//! The operations that Redis has to run atomically, as Lua scripts: comparisons, and the changes
//! that they allow.
//!
//! Only the scripts compare times, with the server's own clock. They need Redis 5 or later, in
//! which a script that asks for the time may write.

pub(crate) mod lease_script;
pub(crate) mod steps;

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind};

use super::limits::{INTENTS, READ_LIMIT};
use crate::base::nonce::Nonce;
use crate::protocol::entry::{MAGIC, layout};
use crate::protocol::generation::Dependency;

/// The start of every script: the layout of an entry, and shared functions.
fn prelude() -> String {
    use layout::{
        CONTENT, DEADLINE, FINGERPRINT, FINGERPRINT_LEN, KIND, LEN, STALE, STAMP, STORED, TIME_LEN,
        TOKEN,
    };
    let numbers = [
        ("READ_LIMIT", READ_LIMIT),
        ("LEN", LEN),
        ("KIND", KIND),
        ("CONTENT", CONTENT),
        ("TOKEN", TOKEN),
        ("TOKEN_LEN", Nonce::TEXT_LEN),
        ("DEADLINE", DEADLINE),
        ("STAMP", STAMP),
        ("FINGERPRINT", FINGERPRINT),
        ("FINGERPRINT_LEN", FINGERPRINT_LEN),
        ("STORED", STORED),
        ("STALE", STALE),
        ("TIME_LEN", TIME_LEN),
    ];
    let no_token = Nonce::NONE.to_string();
    let texts = [
        ("MAGIC", MAGIC),
        ("INTENTS", INTENTS),
        ("NO_TOKEN", no_token.as_str()),
    ];
    let numbers = numbers.map(|(name, value)| format!("local {name} = {value}\n"));
    let texts = texts.map(|(name, value)| format!("local {name} = '{value}'\n"));
    let shared = include_str!("lua/prelude.lua");
    format!("{}{}{shared}", numbers.concat(), texts.concat())
}

fn script(body: &str) -> Lua {
    Lua::new(mutated(format!("{}{body}", prelude())))
}

/// How a server runs scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ScriptMode {
    /// By hash (`EVALSHA`).
    #[default]
    ByHash,
    /// The server refuses `EVALSHA`: the text is sent each time (`EVAL`).
    ByText,
}

/// A script.
pub(super) struct Lua {
    script: Script,
    text: String,
}

impl Lua {
    pub(super) fn new(text: String) -> Self {
        Self {
            script: Script::new(&text),
            text,
        }
    }

    /// Loads the script into the server, to call it by its hash.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedReturnType`] if another hash is returned, so the answer belongs to
    /// another command. The client's own `load_async` panics in a debug build then.
    pub(super) async fn load(
        &self,
        multiplexed: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        let hash: String = command.query_async(multiplexed).await?;
        if hash == self.script.get_hash() {
            return Ok(());
        }
        let kind = ErrorKind::UnexpectedReturnType;
        Err((kind, "SCRIPT LOAD was answered with another script's hash").into())
    }

    /// Runs it. If the server does not know it any more, loads it first.
    pub(super) async fn run<'k, T: FromRedisValue>(
        &self,
        multiplexed: &mut MultiplexedConnection,
        mode: ScriptMode,
        keys: impl IntoIterator<Item = &'k str>,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<T, RedisError> {
        let keys: Vec<_> = keys.into_iter().collect();
        let command = self.command(mode, &keys, args);
        match command.query_async(multiplexed).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load(multiplexed).await?;
                command.query_async(multiplexed).await
            }
            answer => answer,
        }
    }

    /// The command that runs it, for a pipeline. By hash, it has to be loaded already.
    pub(super) fn command(
        &self,
        mode: ScriptMode,
        keys: &[&str],
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Cmd {
        let mut command = match mode {
            ScriptMode::ByHash => redis::cmd("EVALSHA"),
            ScriptMode::ByText => redis::cmd("EVAL"),
        };
        command.arg(match mode {
            ScriptMode::ByHash => self.script.get_hash(),
            ScriptMode::ByText => self.text.as_str(),
        });
        command.arg(keys.len()).arg(keys);
        for arg in args {
            command.arg(arg);
        }
        command
    }
}

/// The same script with a technique taken out, if a mutation is active; see
/// [`crate::base::mutation`].
fn mutated(mut script: String) -> String {
    for (mutation, with, without) in [
        (
            "foreign-overwritten",
            "return is_intent(key) and 'intended' or 'foreign'",
            "there = nil",
        ),
        (
            "intents-counted",
            "not without[name:sub(1, TOKEN_LEN)]",
            "next(without) == nil",
        ),
        (
            "future-deadlines-hold",
            "return ends - t > length end",
            "return false end",
        ),
        (
            "bump-drops-intents",
            "value and standing(value, t, ended) or ''",
            "value == nil and ended or ''",
        ),
        (
            "fill-without-lease",
            "if not there or token(there) ~= own then return 0 end",
            "",
        ),
        (
            "intent-at-the-entity-only",
            "for i = 2 * rows + 1, #KEYS do announce(KEYS[i], ARGV[5 + i - rows]) end",
            "",
        ),
        (
            "leases-never-lapse",
            "token(there) ~= NO_TOKEN and (ends < t or is_beyond(ends, t, tonumber(length)))",
            "token(there) == ''",
        ),
        ("leases-never-lapse", "'PX', length)", "'PX', 3600000)"),
        (
            "refusals-taken-for-foreign",
            "then redis.call('GETRANGE', key, first, last) end",
            "then return text end",
        ),
    ] {
        if crate::base::mutation::is_active(mutation) {
            script = script.replace(with, without);
        }
    }
    script
}

/// All scripts. They are loaded before a connection is used, since a call whose script is missing
/// sends three commands.
pub(super) fn all() -> [&'static Lua; 12] {
    [
        &ENSURE,
        &LEASE,
        &RENEW,
        &RELEASE,
        &FILL,
        &TOUCH,
        &INVALIDATE,
        &INTEND,
        &PRUNE,
        &REMOVE,
        &SWITCH,
        &WAIT,
    ]
}

/// The next value of a generation, as [`INVALIDATE`] takes it. If nothing depends on a row, nothing
/// is written.
pub(super) fn fresh_nonce(dep: &Dependency) -> Vec<u8> {
    let mark = if dep.is_of_row() { "?" } else { "" };
    format!("{mark}{}", Nonce::fresh()).into_bytes()
}

/// `KEYS` generations; `ARGV` their TTL in ms, then a nonce each. Creates the missing ones,
/// replaces values that are no generation, and returns all of them.
pub(super) static ENSURE: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/ensure.lua")));

/// `KEYS` entries; `ARGV` the leases' length in ms, then for each entry the mode (`nothing`,
/// `entry`, `past`, `leased`, `anything`), the header that was read and the lease's header. Returns
/// for each entry nothing if the lease was granted, otherwise the header that is stored, `foreign`
/// or `intended`.
pub(super) static LEASE: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/lease.lua")));

/// `KEYS` entries; `ARGV` the length in ms, then a token each. Returns for each whether the lease
/// was found.
pub(super) static RENEW: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/renew.lua")));

/// `KEYS` an entry; `ARGV` a token. Gives the lease back; content that was kept under it stays.
pub(super) static RELEASE: LazyLock<Lua> =
    LazyLock::new(|| script(include_str!("lua/release.lua")));

/// `KEYS` entries, then the generations of all of them; `ARGV` the number of entries, the TTL of
/// the generations in ms, then for each entry five values: token, header, payload, the time for
/// which it is fresh and the time for which it is kept after that, both in ms. Stores the entries
/// whose key still holds the lease; returns for each whether it was stored.
pub(super) static FILL: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/fill.lua")));

/// `KEYS` generations; `ARGV` a TTL in ms. Extends those that have less than half of it left.
pub(super) static TOUCH: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/touch.lua")));

/// `KEYS` one that does not exist. Tries the commands that the scripts use on a key, and returns
/// each command that failed with its error. Each of them changes nothing while the key is missing.
pub(super) static TRY: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(include_str!("lua/try.lua").to_owned()));

/// `KEYS` entries to remove, then generations; `ARGV` the number of entries, the generations' TTL
/// in ms, the tokens of the intents to end, then a nonce for each generation. Other live intents
/// stay. A nonce after a `?` is for a generation that must not be created if it is missing. Returns
/// the time, and how many entries were removed.
pub(super) static INVALIDATE: LazyLock<Lua> =
    LazyLock::new(|| script(include_str!("lua/invalidate.lua")));

/// `KEYS` entries of rows, as many generations of their resources, then more generations; `ARGV`
/// the number of rows, the generations' TTL in ms, the token, the intent's length in ms, `intend`
/// or `renew`, then a nonce for each generation. Returns the time, and whether the intent was put
/// on a resource instead of a row.
pub(super) static INTEND: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/intend.lua")));

/// `KEYS` an entry, then generations; `ARGV` the generations' TTL in ms, then a nonce each. Removes
/// expired intents.
pub(super) static PRUNE: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/prune.lua")));

/// `KEYS` the list of reads that are switched off for all processes, one name per line; `ARGV` a
/// name, `1` to switch it on or `0` to switch it off, and the list as the caller knows it, for the
/// case that it was lost. Returns the list. It has no TTL: reads that an operator has switched off
/// stay off until somebody switches them on.
pub(super) static SWITCH: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/switch.lua")));

/// `KEYS` entries; `ARGV` `derived` or `all`, and stored-before in ms or an empty string. Removes
/// those entries of this framework that match; returns how many. An entry with a time in the future
/// was stored before the clock was set back.
pub(super) static REMOVE: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/remove.lua")));

/// `KEYS` the records of the caller's loads; `ARGV` the prefix of such keys, the token of the lease
/// that they wait for, for how long in ms, then their own tokens. Records that they wait for it.
/// Returns whether the load under that lease waits for one of them, directly or through others.
pub(super) static WAIT: LazyLock<Lua> = LazyLock::new(|| script(include_str!("lua/wait.lua")));
