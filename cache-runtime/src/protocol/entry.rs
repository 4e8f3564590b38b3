//! The entry as the store keeps it: one line of fixed-width ASCII, then the payload.
//!
//! ```text
//! CRT1 e v j 00000000000000000000000000000000 0000000000000 9f…(32) 5b…(16) 1700000000000 1700000300000 1700000300000 0000012⏎
//! {"id":1,"name":"Ada"}
//! ```
//!
//! The fields are: magic and version, kind (`e`ntity, `d`erived), content (`v`alue, `n`othing
//! there, `-` lease only; `V` and `N` if the payload begins with a line of dependencies that the
//! load has named), codec (`j`SON, `m`sgpack, `p`ostcard), lease token, lease deadline, stamp, type
//! fingerprint, stored-at, fresh-until, stale-until, and the time that the load took. All times are
//! the server's, in milliseconds. Fixed widths let Lua scripts compare and replace single fields,
//! and `redis-cli GET users:1` stays readable. A value that does not start with the magic belongs
//! to another program.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::codec_id::CodecId;
use super::fingerprint::Fingerprint;
use crate::base::clock::{CLOCK_ERROR, Millis};
use crate::base::nonce::{Nonce, decimal64, hex64};
use crate::key::EntryKind;

/// The first bytes of every entry. The digit is the version of this format.
pub(crate) const MAGIC: &str = "CRT1";

/// The offset of each field in the header. The scripts of the Redis store count from one.
pub(crate) mod layout {
    use super::Nonce;

    pub(crate) const TIME_LEN: usize = 13;
    const TOOK_LEN: usize = 7;
    pub(crate) const FINGERPRINT_LEN: usize = 16;

    pub(crate) const KIND: usize = super::MAGIC.len() + 1;
    pub(crate) const CONTENT: usize = KIND + 2;
    pub(crate) const CODEC: usize = CONTENT + 2;
    pub(crate) const TOKEN: usize = CODEC + 2;
    pub(crate) const DEADLINE: usize = TOKEN + Nonce::TEXT_LEN + 1;
    pub(crate) const STAMP: usize = DEADLINE + TIME_LEN + 1;
    pub(crate) const FINGERPRINT: usize = STAMP + Nonce::TEXT_LEN + 1;
    pub(crate) const STORED: usize = FINGERPRINT + FINGERPRINT_LEN + 1;
    pub(crate) const FRESH: usize = STORED + TIME_LEN + 1;
    pub(crate) const STALE: usize = FRESH + TIME_LEN + 1;
    pub(crate) const TOOK: usize = STALE + TIME_LEN + 1;
    // It is read as one number.
    const _: () = assert!(FINGERPRINT_LEN == 16);

    /// The newline that ends the header.
    pub(crate) const END: usize = TOOK + TOOK_LEN;
    /// The header's length with its newline.
    pub(crate) const LEN: usize = END + 1;
}

/// The content of an entry besides its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// A value, encoded in the payload.
    Value,
    /// An absence (negative caching).
    Absence,
    /// Nothing yet: only a lease.
    Nothing,
    /// A value. The payload begins with a line that lists further dependencies, which the load has
    /// named: names of generations, separated by spaces.
    ListedValue,
    /// An absence with such a list.
    ListedAbsence,
}

impl Content {
    /// Whether the payload begins with a list.
    pub(crate) fn lists(self) -> bool {
        matches!(self, Self::ListedValue | Self::ListedAbsence)
    }

    /// The same with a list.
    pub(crate) fn listed(self) -> Self {
        match self {
            Self::Value => Self::ListedValue,
            Self::Absence => Self::ListedAbsence,
            other => other,
        }
    }

    /// The same, whether or not there is a list.
    #[inline]
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::ListedValue => Self::Value,
            Self::ListedAbsence => Self::Absence,
            other => other,
        }
    }
}

/// A hash of an entry's full key, the generations that it depends on, and the server that they came
/// from, as read before the function ran. An entry is served only while its stamp equals the one
/// computed now for its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(pub u128);

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The line in front of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Entity or derived. A sweep takes only the kinds that an invalidation concerns.
    pub kind: EntryKind,
    /// Value, absence, or a lease only.
    pub content: Content,
    /// The codec of the payload.
    pub codec: CodecId,
    /// The token of the lease; [`Nonce::NONE`] without one.
    pub token: Nonce,
    /// When the lease may be taken over.
    pub deadline: Millis,
    /// The stamp of the key and the generations, as read before the load.
    pub stamp: Stamp,
    /// The payload's type.
    pub fingerprint: Fingerprint,
    /// When the entry was stored, or the lease taken.
    pub stored: Millis,
    /// The time until which the content is fresh.
    pub fresh: Millis,
    /// The time until which the content may be served in place of a slow or failing load.
    pub stale: Millis,
    /// How long the load of the content took, in milliseconds.
    pub took: u32,
}

/// The longest load time that a header can hold: close to three hours.
pub(crate) const MAX_TOOK: u32 = 9_999_999;

impl Header {
    /// How long the load took.
    pub(crate) fn took(&self) -> Duration {
        Duration::from_millis(self.took.into())
    }

    /// How long the content stays fresh, by the store's time. That time is estimated between
    /// answers, so the result is never longer than the full time to live.
    pub(crate) fn left(&self, now: Millis) -> Duration {
        self.fresh.since(now).min(self.fresh.since(self.stored))
    }

    /// The number of bytes before the payload.
    pub const LEN: usize = layout::LEN;

    /// The header in text, newline included.
    #[must_use]
    pub fn encode(&self) -> String {
        let kind = match self.kind {
            EntryKind::Entity => 'e',
            EntryKind::Derived => 'd',
        };
        let content = match self.content {
            Content::Value => 'v',
            Content::Absence => 'n',
            Content::ListedValue => 'V',
            Content::ListedAbsence => 'N',
            Content::Nothing => '-',
        };
        let codec = self.codec.letter();
        format!(
            "{MAGIC} {kind} {content} {codec} {} {:013} {:032x} {:016x} {:013} {:013} {:013} {:07}\n",
            self.token,
            self.deadline.0,
            self.stamp.0,
            self.fingerprint.0,
            self.stored.0,
            self.fresh.0,
            self.stale.0,
            self.took.min(MAX_TOOK),
        )
    }

    /// Splits an entry into header and payload; `None` if this version of this framework did not
    /// write it.
    #[must_use]
    pub fn parse(entry: &[u8]) -> Option<(Self, &[u8])> {
        use layout::*;

        let (header, payload) = entry.split_at_checked(LEN)?;
        let spaces = [
            KIND,
            CONTENT,
            CODEC,
            TOKEN,
            DEADLINE,
            STAMP,
            FINGERPRINT,
            STORED,
            FRESH,
            STALE,
            TOOK,
        ];
        if !header.starts_with(MAGIC.as_bytes())
            || header[END] != b'\n'
            || spaces.iter().any(|&field| header[field - 1] != b' ')
        {
            return None;
        }
        let header = Self {
            kind: match header[KIND] {
                b'e' => EntryKind::Entity,
                b'd' => EntryKind::Derived,
                _ => return None,
            },
            content: match header[CONTENT] {
                b'v' => Content::Value,
                b'n' => Content::Absence,
                b'V' => Content::ListedValue,
                b'N' => Content::ListedAbsence,
                b'-' => Content::Nothing,
                _ => return None,
            },
            codec: CodecId::of_letter(header[CODEC])?,
            token: Nonce::parse(&header[TOKEN..DEADLINE - 1])?,
            deadline: time(&header[DEADLINE..STAMP - 1])?,
            stamp: Stamp(Nonce::parse(&header[STAMP..FINGERPRINT - 1])?.0),
            fingerprint: Fingerprint(hex64(header[FINGERPRINT..].first_chunk()?)?),
            stored: time(&header[STORED..FRESH - 1])?,
            fresh: time(&header[FRESH..STALE - 1])?,
            stale: time(&header[STALE..TOOK - 1])?,
            took: u32::try_from(time(&header[TOOK..END])?.0).ok()?,
        };
        Some((header, payload))
    }

    /// Whether the entry has a lease.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.token != Nonce::NONE
    }

    /// Whether the lease may still be held, as far as this process knows the store's clock. A
    /// deadline further ahead than a lease lasts was set before that clock was set back.
    pub(crate) fn is_held(&self, now: Millis, length: Duration) -> bool {
        self.is_leased() && now <= self.deadline && self.deadline <= now.after(length + CLOCK_ERROR)
    }

    /// Whether the entry was stored before the store's clock was set back. Then it is unknown until
    /// when the entry may be served.
    #[inline]
    pub(crate) fn is_ahead_of(&self, now: Millis) -> bool {
        self.stored.0 > now.0.saturating_add(CLOCK_ERROR.as_millis() as u64)
            && !crate::base::mutation::is_active(
                "entries-live-longer-by-what-the-clock-is-set-back",
            )
    }

    /// The header of the content under a lease that was taken by force: it counts as expired now,
    /// and may be served in place of a slow or failing load for as long as if it had.
    pub(crate) fn expired(self, now: Millis) -> Self {
        if self.fresh <= now {
            return self;
        }
        Self {
            fresh: now,
            stale: now.after(self.stale.since(self.fresh)),
            ..self
        }
    }

    /// The content that a lease keeps, because it may still be served; `None` if there is none.
    pub(crate) fn kept_by(
        self,
        stamp: Stamp,
        fingerprint: Fingerprint,
        is_by_force: bool,
        now: Millis,
    ) -> Option<Self> {
        let stays = self.stays_under(stamp, fingerprint);
        if !is_by_force {
            return stays.then_some(self);
        }
        let expired = self.expired(now);
        let is_kept =
            now < expired.stale && !crate::base::mutation::is_active("force-keeps-nothing");
        (stays && is_kept).then_some(expired)
    }

    /// Whether a lease on `stamp` and `fingerprint` keeps the content, because it may still be
    /// served.
    pub(crate) fn stays_under(&self, stamp: Stamp, fingerprint: Fingerprint) -> bool {
        self.content != Content::Nothing && self.stamp == stamp && self.fingerprint == fingerprint
    }
}

/// The line in front of a payload, and the rest: the names of dependencies with a space in between.
pub(crate) fn split_list(payload: &Bytes) -> Option<(&str, Bytes)> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let list = std::str::from_utf8(payload.get(..end)?).ok()?;
    Some((list, payload.slice(end + 1..)))
}

#[inline]
fn time(digits: &[u8]) -> Option<Millis> {
    decimal64(digits).map(Millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: std::ops::Range<u64> = 0..10_000_000_000_000;

    prop_compose! {
        fn header()(
            entity: bool, content in 0..5, token: u128, deadline in TIMES, stamp: u128,
            fingerprint: u64, codec in 0..3, stored in TIMES, fresh in TIMES, stale in TIMES,
            took in 0..=MAX_TOOK,
        ) -> Header {
            Header {
                kind: if entity { EntryKind::Entity } else { EntryKind::Derived },
                content: [
                    Content::Value, Content::Absence, Content::Nothing,
                    Content::ListedValue, Content::ListedAbsence,
                ][content as usize],
                codec: [CodecId::Json, CodecId::MsgPack, CodecId::Postcard][codec as usize],
                token: Nonce(token),
                deadline: Millis(deadline),
                stamp: Stamp(stamp),
                fingerprint: Fingerprint(fingerprint),
                stored: Millis(stored),
                fresh: Millis(fresh),
                stale: Millis(stale),
                took,
            }
        }
    }

    #[test]
    fn golden() {
        // All running processes share this format: a change here needs a new version in the magic.
        let header = Header {
            kind: EntryKind::Entity,
            content: Content::Value,
            codec: CodecId::Json,
            token: Nonce::NONE,
            deadline: Millis(0),
            stamp: Stamp(0xabc),
            fingerprint: Fingerprint(0xdef),
            stored: Millis(1_700_000_000_000),
            fresh: Millis(1_700_000_300_000),
            stale: Millis(1_700_000_300_000),
            took: 12,
        };
        assert_eq!(
            header.encode(),
            "CRT1 e v j 00000000000000000000000000000000 0000000000000 00000000000000000000000000000abc \
             0000000000000def 1700000000000 1700000300000 1700000300000 0000012\n"
        );
        assert_eq!(header.encode().len(), layout::LEN);
    }

    proptest! {
        #[test]
        fn headers_read_back(header in header(), payload in any::<Vec<u8>>()) {
            let mut entry = header.encode().into_bytes();
            entry.extend_from_slice(&payload);
            prop_assert_eq!(Header::parse(&entry), Some((header, payload.as_slice())));
        }

        #[test]
        fn a_damaged_header_reads_as_another_or_as_none(header in header(), at in 0..layout::LEN, byte: u8) {
            let mut entry = header.encode().into_bytes();
            entry[at] = byte;
            if let Some((read, _)) = Header::parse(&entry) {
                prop_assert_eq!(read.encode().into_bytes(), entry);
            }
        }

        #[test]
        fn anything_else_is_not_ours(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(Header::parse(&bytes), None);
        }
    }
}
