//! The server of a store, as spans name it.

/// The fields of OpenTelemetry's database spans that say which server was asked. Empty where the
/// store is in memory, or one of the program's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoreServer {
    /// `redis` or `memcached`
    pub(crate) system: Option<&'static str>,
    pub(crate) host: Option<Box<str>>,
    pub(crate) port: Option<u16>,
    /// The number of the database, as a text.
    pub(crate) namespace: Option<Box<str>>,
}
