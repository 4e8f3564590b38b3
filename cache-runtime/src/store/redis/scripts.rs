//! What Redis does atomically: comparisons and the changes they allow, in Lua.
//!
//! Only Lua judges time, with the server's own clock. The scripts need Redis 5 or later, where a script that
//! asks for the time may write.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Script};

use super::limits::{INTENTS, READ_LIMIT};
use crate::base::nonce::Nonce;
use crate::protocol::entry::{MAGIC, layout};

/// Functions all scripts share. Lua counts from one, so a field that begins at `n` is `sub(n + 1, ..)`.
fn prelude() -> String {
    use layout::{DEADLINE, FINGERPRINT, FRESH, LEN, STALE, STAMP, STORED, TIME_LEN, TOKEN};
    format!(
        r"
local NO_TOKEN = '{none}'
local INTENTS = '{INTENTS}'
-- How long an intent lasts that does not say so, in ms.
local UNKNOWN = 600000

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function time(ms) return string.format('%0{TIME_LEN}.0f', ms) end

-- The header under a key; nil if there is nothing, false if it is somebody else's.
local function header(key)
  local h = redis.pcall('GETRANGE', key, 0, {last})
  if type(h) ~= 'string' then return false end
  if h == '' then
    if redis.call('EXISTS', key) == 1 then return false end
    return nil
  end
  if #h < {LEN} or h:sub(1, {magic_len}) ~= '{MAGIC} ' or h:sub({LEN}) ~= '\n' then return false end
  return h
end

-- Whether the key holds an entry of this framework, of whatever version: an older program must be able to
-- invalidate what a newer one has stored.
local function is_ours(key)
  local start = redis.pcall('GETRANGE', key, 0, {magic_len} - 1)
  return type(start) == 'string' and start:find('^{magic_name}%d ') ~= nil
end

-- Whether the key holds write intents in place of an entry.
local function is_intent(key) return redis.pcall('GETRANGE', key, 0, #INTENTS - 1) == INTENTS end

-- A whole value; without its content if it is longer than anything of ours, and nil for what is no string.
local function whole(key)
  local beyond = redis.pcall('GETRANGE', key, {READ_LIMIT}, {READ_LIMIT})
  if type(beyond) ~= 'string' then return nil end
  return beyond == '' and redis.call('GET', key) or ''
end

-- Whether a deadline lies further ahead than what lasts for `length` ever reaches: it is from before the clock was set back.
local function is_beyond(ends, t, length) return {is_beyond} end

-- The intents in a value that stand after `t`, without those named, and the last of their deadlines. With -1, all of them.
local function standing(value, t, without)
  local intents, last = {{}}, 0
  for name, at in value:gmatch(' (%x+)@(%d+)') do
    local ends, length = tonumber(at), tonumber(name:sub({name_end} + 1), 16) or UNKNOWN
    local is_over = t >= 0 and (ends <= t or is_beyond(ends, t, length))
    if not is_over and not without[name:sub(1, {name_end})] then
      intents[#intents + 1] = ' ' .. name .. '@' .. at
      if ends > last then last = ends end
    end
  end
  return table.concat(intents), last
end

-- A server that is over its memory limit and may not evict refuses SET, but not after a DEL.
local function put(key, value, ttl)
  redis.call('DEL', key)
  redis.call('SET', key, value, 'PX', ttl)
end

-- Puts intents in the place of an entry; without any, nothing. One that ends now is kept for as long as Redis can.
local function put_intents(key, intents, last, t)
  if intents == '' then redis.call('DEL', key) else put(key, INTENTS .. intents, math.max(last - t, 1)) end
end

local function token(h) return h:sub({token}, {token_end}) end
local function deadline(h) return tonumber(h:sub({deadline}, {deadline_end})) end
local function kind(h) return h:sub({kind}, {kind}) end
local function has_content(h) return h:sub({content}, {content}) ~= '-' end
local function stored(h) return tonumber(h:sub({stored}, {stored_end})) end

-- Whether two headers are the same but for the deadline, which the holder of a lease may have moved.
local function same(a, b)
  return a:sub(1, {DEADLINE}) == b:sub(1, {DEADLINE}) and a:sub({STAMP}) == b:sub({STAMP})
end

-- Whether two headers speak of the same generations and the same type.
local function same_value(a, b)
  return a:sub({stamp}, {stamp_end}) == b:sub({stamp}, {stamp_end})
    and a:sub({fingerprint}, {fingerprint_end}) == b:sub({fingerprint}, {fingerprint_end})
end

local function with_token(h, token) return h:sub(1, {TOKEN}) .. token .. h:sub({DEADLINE}) end
local function with_deadline(h, ms) return h:sub(1, {DEADLINE}) .. time(ms) .. h:sub({STAMP}) end
local function with_times(h, stored, fresh, stale)
  return h:sub(1, {STORED}) .. time(stored) .. ' ' .. time(fresh) .. ' ' .. time(stale) .. h:sub({stale_end} + 1)
end
",
        none = Nonce::NONE,
        name_end = Nonce::TEXT_LEN,
        is_beyond = match crate::base::mutation::is_active("future-deadlines-hold") {
            true => "false",
            false => "ends - t > length",
        },
        last = LEN - 1,
        magic_len = MAGIC.len() + 1,
        magic_name = &MAGIC[..MAGIC.len() - 1],
        token = TOKEN + 1,
        token_end = TOKEN + Nonce::TEXT_LEN,
        deadline = DEADLINE + 1,
        deadline_end = DEADLINE + TIME_LEN,
        kind = layout::KIND + 1,
        content = layout::CONTENT + 1,
        stored = STORED + 1,
        stored_end = FRESH - 1,
        stamp = STAMP + 1,
        stamp_end = FINGERPRINT - 1,
        fingerprint = FINGERPRINT + 1,
        fingerprint_end = STORED - 1,
        stale_end = STALE + TIME_LEN,
    )
}

fn script(body: &str) -> Lua {
    Lua::new(mutated(format!("{}{body}", prelude())))
}

/// How a server runs scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ScriptMode {
    /// By their hash (`EVALSHA`).
    #[default]
    ByHash,
    /// It refuses that, and takes their text each time (`EVAL`).
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

    /// Has the server know it by its hash.
    pub(super) async fn load(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<String, RedisError> {
        self.script.prepare_invoke().load_async(connection).await
    }

    /// Runs it.
    pub(super) async fn run<'k, T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        mode: ScriptMode,
        keys: impl IntoIterator<Item = &'k str>,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<T, RedisError> {
        if mode == ScriptMode::ByText {
            let keys: Vec<_> = keys.into_iter().collect();
            let command = self.command(mode, &keys, args);
            return command.query_async(connection).await;
        }
        let mut invocation = self.script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for arg in args {
            invocation.arg(arg);
        }
        invocation.invoke_async(connection).await
    }

    /// The command that runs it, for a pipeline; by hash it needs to be loaded.
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

/// The same with a technique taken out, where one is; see [`crate::base::mutation`].
fn mutated(mut script: String) -> String {
    let named = format!("not without[name:sub(1, {})]", Nonce::TEXT_LEN);
    for (mutation, with, without) in [
        (
            "foreign-overwritten",
            "return is_intent(key) and 'intended' or 'foreign'",
            "there = nil",
        ),
        ("intents-counted", named.as_str(), "next(without) == nil"),
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
    ] {
        if crate::base::mutation::is_active(mutation) {
            script = script.replace(with, without);
        }
    }
    script
}

/// All of them, to be loaded before a connection is used: a call that finds one missing pays for three commands.
pub(super) fn all() -> [&'static Lua; 11] {
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
    ]
}

/// `KEYS` generations; `ARGV` time to live in ms, then a nonce each. Creates those that are missing, replaces
/// what is none, and returns all of them.
pub(super) static ENSURE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
-- As `Generation::parse` reads it: a nonce, then nothing or intents, whose deadlines it can count.
local function is_generation(value)
  local function leave_out(ends) return #ends < 20 and '' or nil end
  local rest = value:sub(33):gsub(' %x+@(%d+)', leave_out)
  return #value >= 32 and not value:sub(1, 32):find('[^0-9a-f]') and rest == ''
end

local values = {}
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'NX', 'PX', ARGV[1])
  local value = whole(key)
  if value and not is_generation(value) then
    -- Nothing depends on it.
    value = ARGV[i + 1]
    redis.call('SET', key, value, 'PX', ARGV[1])
  end
  values[i] = value or ''
end
return values
",
    )
});

/// `KEYS` entries; `ARGV` the leases' length in ms, then for each mode (`nothing`, `entry`, `past`, `leased`, `anything`),
/// the header seen and the lease's header. Returns for each nothing if granted, else the header that is there, `foreign` or
/// `intended`.
pub(super) static LEASE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, length = now(), ARGV[1]

local function lease(key, mode, seen, wanted)
  local there = header(key)
  if there == false then return is_intent(key) and 'intended' or 'foreign' end
  if there then
    local ends = deadline(there)
    local expired = token(there) ~= NO_TOKEN and (ends < t or is_beyond(ends, t, tonumber(length)))
    local gives_way = expired or mode == 'anything' or ((mode == 'entry' or mode == 'past') and same(there, seen))
    if not gives_way then return there end
    if (mode == 'past' or mode == 'leased') and has_content(there) and same_value(there, wanted) then
      local rest = redis.call('PTTL', key)
      redis.call('SETRANGE', key, 0, with_deadline(with_token(there, token(wanted)), t + length))
      if rest < tonumber(length) then redis.call('PEXPIRE', key, length) end
      return ''
    end
  end
  redis.call('SET', key, with_deadline(with_times(wanted, t, 0, 0), t + length), 'PX', length)
  return ''
end

local replies = {}
for i, key in ipairs(KEYS) do replies[i] = lease(key, ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]) end
return replies
",
    )
});

/// `KEYS` entries; `ARGV` length in ms, then a token each. Returns for each whether the lease was there.
pub(super) static RENEW: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, length, renewed = now(), ARGV[1], {}
for i, key in ipairs(KEYS) do
  local there = header(key)
  renewed[i] = 0
  if there and token(there) == ARGV[i + 1] then
    local rest = redis.call('PTTL', key)
    redis.call('SETRANGE', key, 0, with_deadline(there, t + length))
    if rest < tonumber(length) then redis.call('PEXPIRE', key, length) end
    renewed[i] = 1
  end
end
return renewed
",
    )
});

/// `KEYS` entry; `ARGV` token. Gives the lease back; content that was kept under it stays.
pub(super) static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local there = header(KEYS[1])
if not there or token(there) ~= ARGV[1] then return 0 end
if has_content(there) then
  redis.call('SETRANGE', KEYS[1], 0, with_token(there, NO_TOKEN))
else
  redis.call('DEL', KEYS[1])
end
return 1
",
    )
});

/// `KEYS` entries, then the generations of all of them; `ARGV` how many entries, the time to live of the generations in
/// ms, then for each token, header, payload, how long it is fresh and how long it is kept after that, in ms. Stores those
/// whose key still holds the lease; returns for each whether it did.
pub(super) static FILL: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, entries, ttl, stored, any = now(), tonumber(ARGV[1]), ARGV[2], {}, false

local function fill(key, own, header_of_it, payload, fresh_for, stale_for)
  local there = header(key)
  if not there or token(there) ~= own then return 0 end
  local fresh, stale = t + fresh_for, t + fresh_for + stale_for
  redis.call('SET', key, with_times(header_of_it, t, fresh, stale) .. payload, 'PX', stale - t)
  any = true
  return 1
end

for i = 1, entries do
  local at = 5 * i - 2
  stored[i] = fill(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
for i = entries + 1, any and #KEYS or 0 do
  local rest = redis.call('PTTL', KEYS[i])
  if rest >= 0 and rest < ttl / 2 then redis.call('PEXPIRE', KEYS[i], ttl) end
end
return stored
",
    )
});

/// `KEYS` generations; `ARGV` a time to live in ms. Extends those that have less than half of it left.
pub(super) static TOUCH: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
for _, key in ipairs(KEYS) do
  local rest = redis.call('PTTL', key)
  if rest >= 0 and rest < ARGV[1] / 2 then redis.call('PEXPIRE', key, ARGV[1]) end
end
return 1
",
    )
});

/// `KEYS` entries to remove, then generations; `ARGV` how many entries, the generations' time to live in ms, the tokens
/// of intents that end, a nonce each. Other intents that have not expired stay. Behind a `?` the nonce
/// is for a generation that is left alone where there is none. Returns the time, and how many entries there were.
pub(super) static INVALIDATE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, kills, removed, ended = now(), tonumber(ARGV[1]), 0, {}
for name in ARGV[3]:gmatch('%x+') do ended[name] = true end
for i = 1, kills do
  local there = header(KEYS[i])
  if is_intent(KEYS[i]) then
    local intents, last = standing(whole(KEYS[i]), t, ended)
    put_intents(KEYS[i], intents, last, t)
  elseif is_ours(KEYS[i]) then
    redis.call('DEL', KEYS[i])
    if not there or has_content(there) then removed = removed + 1 end
  end
end
for i = kills + 1, #KEYS do
  local nonce = ARGV[3 + i - kills]
  if nonce:sub(1, 1) ~= '?' then
    -- It is replaced, be there one or not.
  elseif redis.call('EXISTS', KEYS[i]) == 1 then
    nonce = nonce:sub(2)
  else
    nonce = nil
  end
  if nonce then
    local value = whole(KEYS[i])
    local intents = value and standing(value, t, ended) or ''
    put(KEYS[i], nonce .. intents, ARGV[2])
  end
end
return {t, removed}
",
    )
});

/// `KEYS` entries of rows, as many generations of their resources, then more generations; `ARGV` how many rows, the
/// generations' time to live in ms, the token, the intent's length in ms, `intend` or `renew`, a nonce for each generation.
/// Returns the time, and whether the intent stands on a resource in place of a row.
pub(super) static INTEND: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, rows, own, on_whole = now(), tonumber(ARGV[1]), ARGV[3], 0
local ends = t + ARGV[4]
local mark = ' ' .. own .. string.format('%08x', ARGV[4]) .. '@' .. time(ends)

-- The intents of others, and whether the own one stands and is only to be renewed: then nothing else changes.
local function others(value)
  local renews = ARGV[5] == 'renew' and value:find(' ' .. own, 1, true) ~= nil
  local intents, last = standing(value, renews and -1 or t, {[own] = true})
  return intents, math.max(last, ends), renews
end

local function announce(key, nonce)
  local value = whole(key) or ''
  local intents, _, renews = others(value)
  if renews and not value:sub(1, 32):find('[^0-9a-f]') then nonce = value:sub(1, 32) end
  put(key, nonce .. intents .. mark, ARGV[2])
end

for i = 1, rows do
  if header(KEYS[i]) == false and not is_ours(KEYS[i]) then
    -- In a cluster the resource's generation lies elsewhere, and is announced by a step of its own.
    if KEYS[rows + i] then announce(KEYS[rows + i], ARGV[5 + i]) end
    on_whole = 1
  else
    local intents, last = others(is_intent(KEYS[i]) and whole(KEYS[i]) or '')
    put_intents(KEYS[i], intents .. mark, last, t)
  end
end
for i = 2 * rows + 1, #KEYS do announce(KEYS[i], ARGV[5 + i - rows]) end
return {t, on_whole}
",
    )
});

/// `KEYS` an entry, then generations; `ARGV` the generations' time to live in ms, a nonce each. Ends intents whose time
/// is over.
pub(super) static PRUNE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t = now()
if is_intent(KEYS[1]) then
  local intents, last = standing(whole(KEYS[1]), t, {})
  put_intents(KEYS[1], intents, last, t)
end
for i = 2, #KEYS do
  local value = whole(KEYS[i])
  local intents = value and standing(value, t, {})
  if intents and value:sub(33) ~= intents then put(KEYS[i], ARGV[i] .. intents, ARGV[1]) end
end
return 1
",
    )
});

/// `KEYS` the list of what is switched off for all processes, one name a line; `ARGV` a name, and
/// `1` to switch it on or `0` to switch it off. Returns the list. It has no time to live: what an
/// operator has switched off stays off until somebody switches it on.
pub(super) static SWITCH: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local names, list = {}, redis.call('GET', KEYS[1]) or ''
for name in list:gmatch('[^\n]+') do
  if name ~= ARGV[1] then names[#names + 1] = name end
end
if ARGV[2] == '0' then names[#names + 1] = ARGV[1] end
table.sort(names)
list = table.concat(names, '\n')
if list == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], list) end
return list
",
    )
});

/// `KEYS` entries; `ARGV` `derived` or `all`, stored-before in ms or an empty string. Removes those of this
/// framework that fit; returns how many. One that was stored later than now was stored before the clock was set back.
pub(super) static REMOVE: LazyLock<Lua> = LazyLock::new(|| {
    script(
        r"
local t, before, removed = now(), tonumber(ARGV[2]), 0
local function remove(key)
  local there = header(key)
  if there then
    if (ARGV[1] == 'all' or kind(there) == 'd') and (not before or stored(there) < before or stored(there) > t) then
      redis.call('UNLINK', key)
      if has_content(there) then removed = removed + 1 end
    end
  elseif is_intent(key) then
    -- A write that is under way is not over because somebody tidies up.
  elseif ARGV[1] == 'all' and not before then
    redis.call('UNLINK', key)
    removed = removed + 1
  end
end

for _, key in ipairs(KEYS) do
  -- First, since without a namespace most keys may be those of others.
  if is_ours(key) then remove(key) end
end
return removed
",
    )
});
