//! Answers from this process: from what a thread was last served, from local entries, and from a store in memory.

pub(crate) mod again;
pub(crate) mod local_entries;
pub(crate) mod local_lookup;
pub(crate) mod local_options;
pub(crate) mod shown;
pub(crate) mod thread_cache;
