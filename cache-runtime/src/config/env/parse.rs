//! The values of variables, as text.

use std::time::Duration;

use crate::base::policy::{MAX_TTL, MOST_VALUE_BYTES};
use crate::config::{SHORTEST_STALENESS, terminated};

pub(super) const TRUE_OR_FALSE: &str = "true or false (1/0, yes/no, on/off)";
pub(super) const SECONDS: &str = "whole seconds, 1 or more, up to ten years";
pub(super) const SECONDS_OR_0: &str = "whole seconds, 0 for never, up to ten years";

/// Accepts `True`, `yes`, `ON`, `1` and their opposites, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub(super) fn seconds_or_0(text: &str) -> Option<Duration> {
    let time = Duration::from_secs(text.parse().ok()?);
    (time <= MAX_TTL).then_some(time)
}

pub(super) fn staleness(text: &str) -> Option<Duration> {
    let seconds = number_to(3600.0)(text)?;
    let staleness = Duration::from_secs_f64(seconds);
    (staleness >= SHORTEST_STALENESS).then_some(staleness)
}

pub(super) fn number_to(limit: f64) -> impl Fn(&str) -> Option<f64> {
    move |text| {
        text.parse()
            .ok()
            .filter(|number| (0.0..=limit).contains(number))
    }
}

pub(super) fn seconds(text: &str) -> Option<Duration> {
    let ttl = Duration::from_secs(text.parse().ok()?);
    (ttl > Duration::ZERO && ttl <= MAX_TTL).then_some(ttl)
}

pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    let ms = text.parse().ok().filter(|ms| (1..=60_000).contains(ms))?;
    Some(Duration::from_millis(ms))
}

pub(super) fn megabytes(text: &str) -> Option<u32> {
    text.parse().ok().filter(|mb| *mb <= 1 << 20)
}

pub(super) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

pub(super) fn namespace(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    // With one hash tag, a cluster keeps all keys in one slot.
    let plain = match text.split_once('{') {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (tag, after) = rest.split_once('}').filter(|(tag, _)| !tag.is_empty())?;
            format!("{before}{tag}{after}")
        }
    };
    plain.chars().all(fits).then(|| terminated(text))
}

/// `16k`; nothing in a program that can't compress.
pub(super) fn compressible(text: &str) -> Option<usize> {
    bytes(text).filter(|_| cfg!(feature = "zstd"))
}

/// `4096`, `16k`, `1m`: bytes, up to what a value may have.
pub(super) fn bytes(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, unit) = match text.strip_suffix('k') {
        Some(number) => (number, 1 << 10),
        None => match text.strip_suffix('m') {
            Some(number) => (number, 1 << 20),
            None => (text, 1),
        },
    };
    let number: usize = number.trim_end().parse().ok()?;
    let bytes = number.checked_mul(unit)?;
    (bytes <= MOST_VALUE_BYTES).then_some(bytes)
}
