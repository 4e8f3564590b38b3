//! Notification of a key's next change.

use std::fmt;
use std::pin::Pin;

/// Word of a key's next change.
pub struct Word(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Word {
    /// Word that comes when the future is over. It may come without a change, and late, but then it is heard late.
    pub fn new(change: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(change))
    }

    /// Returns when word has come. It comes once: what happens after that is heard by nobody, and this is not to be awaited again.
    ///
    /// # Cancel safety
    /// Dropped before it returns, word can still be heard.
    pub async fn heard(&mut self) {
        self.0.as_mut().await;
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Word")
    }
}
