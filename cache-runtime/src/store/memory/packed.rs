//! The header of an entry, as the store in memory keeps it.
//!
//! Most entries hold a value and no lease, and are not kept beyond the time that they are fresh.
//! The fields that only the others have are boxed. So a header takes 56 bytes in place of 96.

use crate::base::clock::Millis;
use crate::base::nonce::Nonce;
use crate::key::EntryKind;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Header, Stamp};
use crate::protocol::fingerprint::Fingerprint;

/// A header in less memory.
#[derive(Debug, Clone)]
pub(super) struct PackedHeader {
    /// Two halves, which need no alignment to 16 bytes.
    stamp: [u64; 2],
    fingerprint: Fingerprint,
    stored: Millis,
    fresh: Millis,
    rare: Option<Box<Rare>>,
    took: u32,
    pub(super) kind: EntryKind,
    pub(super) content: Content,
    codec: CodecId,
}

/// The fields that few headers have.
#[derive(Debug, Clone)]
struct Rare {
    token: Nonce,
    deadline: Millis,
    stale: Millis,
}

impl PackedHeader {
    pub(super) fn of(header: &Header) -> Self {
        let is_usual = header.token == Nonce::NONE
            && header.deadline == Millis(0)
            && header.stale == header.fresh;
        Self {
            stamp: [header.stamp.0 as u64, (header.stamp.0 >> 64) as u64],
            fingerprint: header.fingerprint,
            stored: header.stored,
            fresh: header.fresh,
            rare: (!is_usual).then(|| {
                Box::new(Rare {
                    token: header.token,
                    deadline: header.deadline,
                    stale: header.stale,
                })
            }),
            took: header.took,
            kind: header.kind,
            content: header.content,
            codec: header.codec,
        }
    }

    #[inline]
    pub(super) fn get(&self) -> Header {
        let [low, high] = self.stamp;
        let (token, deadline, stale) = match &self.rare {
            None => (Nonce::NONE, Millis(0), self.fresh),
            Some(rare) => (rare.token, rare.deadline, rare.stale),
        };
        Header {
            kind: self.kind,
            content: self.content,
            codec: self.codec,
            token,
            deadline,
            stamp: Stamp(u128::from(low) | u128::from(high) << 64),
            fingerprint: self.fingerprint,
            stored: self.stored,
            fresh: self.fresh,
            stale,
            took: self.took,
        }
    }

    pub(super) fn token(&self) -> Nonce {
        self.rare.as_ref().map_or(Nonce::NONE, |rare| rare.token)
    }

    pub(super) fn stored(&self) -> Millis {
        self.stored
    }

    /// When the entry ends. Of a lease alone `stale` is zero, and of an entry alone the deadline.
    pub(super) fn ends(&self) -> Millis {
        let rare = self.rare.as_ref();
        rare.map_or(self.fresh, |rare| rare.deadline.max(rare.stale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_same_in_less_memory() {
        assert_eq!(size_of::<PackedHeader>(), 56);
        let usual = Header {
            kind: EntryKind::Derived,
            content: Content::Value,
            codec: CodecId::MsgPack,
            token: Nonce::NONE,
            deadline: Millis(0),
            stamp: Stamp(Nonce::fresh().0),
            fingerprint: Fingerprint(7),
            stored: Millis(1),
            fresh: Millis(2),
            stale: Millis(2),
            took: 3,
        };
        let leased = Header {
            token: Nonce::fresh(),
            deadline: Millis(9),
            ..usual
        };
        let lease = Header {
            content: Content::Nothing,
            fresh: Millis(0),
            stale: Millis(0),
            ..leased
        };
        let kept = Header {
            stale: Millis(8),
            ..usual
        };
        for (header, ends) in [(usual, 2), (leased, 9), (lease, 9), (kept, 8)] {
            let packed = PackedHeader::of(&header);
            assert_eq!(packed.get(), header);
            assert_eq!(packed.token(), header.token);
            assert_eq!(packed.ends(), Millis(ends));
            assert_eq!(packed.rare.is_none(), header == usual);
        }
    }
}
