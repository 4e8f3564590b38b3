//! The arguments and answers of the scripts that lease and fill, which are the same on one server
//! and in a cluster.

use super::super::limits::SCRIPT_SETS_IT;
use super::super::reply::millis;
use crate::base::error::{Error, ErrorKind};
use crate::protocol::entry::Header;
use crate::store::{EntryRef, Expected, Fill, Filled, LeaseReply, LeaseRequest, Payload};

/// The arguments of [`LEASE`](super::LEASE) for one entry.
pub(crate) fn lease_args(entry_ref: &EntryRef, request: &LeaseRequest) -> [Vec<u8>; 3] {
    let (mode, expected) = match &request.expected {
        Expected::Nothing => ("nothing", String::new()),
        Expected::Entry(header) => ("entry", header.encode()),
        Expected::Past(header) => ("past", header.encode()),
        Expected::Leased => ("leased", String::new()),
        Expected::Anything => ("anything", String::new()),
    };
    let lease = request.header(entry_ref.kind, SCRIPT_SETS_IT);
    [
        mode.into(),
        expected.into_bytes(),
        lease.encode().into_bytes(),
    ]
}

/// Reads the answer of that script for one entry.
pub(crate) fn lease_reply(reply: &[u8]) -> LeaseReply {
    match reply {
        b"" => LeaseReply::Granted,
        b"intended" => LeaseReply::WriteInProgress,
        reply => Header::parse(reply)
            .map_or(LeaseReply::Foreign, |(header, _)| LeaseReply::Taken(header)),
    }
}

/// The arguments of [`FILL`](super::FILL) for one entry.
pub(crate) fn fill_args(entry_ref: &EntryRef, fill: Fill) -> Result<[Vec<u8>; 5], Error> {
    let header = fill.header(entry_ref.kind, SCRIPT_SETS_IT);
    let payload = match fill.payload {
        Payload::Encoded(bytes) => Vec::from(bytes),
        // For readers with `redis-cli`: an absence is shown as null.
        Payload::Empty => b"null".to_vec(),
        Payload::Decoded(_) => {
            return Err(Error::new(ErrorKind::Unstorable, "Redis keeps bytes only"));
        }
    };
    Ok([
        fill.token.to_string().into_bytes(),
        header.encode().into_bytes(),
        payload,
        millis(fill.fresh_for),
        millis(fill.stale_for),
    ])
}

/// The meaning of that script's answer for one entry.
pub(crate) fn filled(is_stored: bool) -> Filled {
    match is_stored {
        true => Filled::Stored,
        false => Filled::Refused,
    }
}
