//! What an error says of the connection.

use crate::base::error::{Error, ErrorKind};

/// Whether each is to try alone.
pub fn is_forbidden(error: &Error) -> bool {
    error.kind() == ErrorKind::Store
}
