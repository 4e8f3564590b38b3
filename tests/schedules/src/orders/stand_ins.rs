//! What the sources that are tried name of others, as far as it matters to them.

#![allow(dead_code, reason = "named by what is not tried")]

pub mod clock {
    pub use crate::sync::time::Instant;

    #[derive(Debug, Clone, Copy)]
    pub struct Millis(pub u64);

    pub fn now() -> Instant {
        Instant::now()
    }
}

pub mod nonce {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Nonce(pub u128);
}

pub mod entry {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Fingerprint(pub u64);
}

pub mod generation {
    use std::sync::Arc;

    #[derive(Debug)]
    pub struct Dep(String);

    impl Dep {
        pub fn new(key: String) -> Arc<Self> {
            Arc::new(Self(key))
        }

        pub fn key(&self) -> &str {
            &self.0
        }
    }
}

pub mod store {
    use std::sync::Arc;

    use super::generation::Dep;

    #[derive(Debug)]
    pub struct Probe {
        pub key: String,
        pub deps: Arc<[Arc<Dep>]>,
    }

    /// The key under which it was read, and which version of it.
    #[derive(Debug, PartialEq)]
    pub struct Look {
        pub key: String,
        pub version: usize,
    }
}
