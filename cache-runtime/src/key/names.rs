//! The rules for the names of resources and ops.

use super::bound::NAME_LIMIT;

/// Whether `name` is a resource name: `[a-z0-9_-]+`, short enough for a key.
pub(crate) fn is_resource(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// Whether `op` consists of segments `[a-z0-9_-]+` joined by `:`.
pub(crate) fn is_op(op: &str) -> bool {
    op.len() <= NAME_LIMIT && op.split(':').all(is_resource)
}
