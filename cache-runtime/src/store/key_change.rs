//! Notification of a key's next change.

use std::fmt;
use std::pin::Pin;

/// A notification of a key's next change.
pub struct KeyChange(Pin<Box<dyn Future<Output = ()> + Send>>);

impl KeyChange {
    /// A notification that arrives when the future is ready. It may arrive without a change. If it
    /// arrives late, the caller notices the change late.
    pub fn new(change: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(change))
    }

    /// Returns when the notification has arrived. It arrives once: later changes are not reported,
    /// and this must not be awaited again.
    ///
    /// # Cancel safety
    /// If dropped before it returns, the notification can still be awaited.
    pub async fn changed(&mut self) {
        self.0.as_mut().await;
    }
}

impl fmt::Debug for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Word")
    }
}
