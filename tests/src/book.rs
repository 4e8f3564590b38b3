//! The examples of the book, compiled and run as documentation tests.
//!
//! One module for each page that has Rust code, so that a failure names its page.

macro_rules! pages {
    ($($page:ident: $file:literal;)*) => {$(
        #[doc = include_str!(concat!("../../docs/book/src/", $file))]
        mod $page {}
    )*};
}

pages! {
    introduction: "introduction.md";
    getting_started: "getting-started.md";
    cached: "cached.md";
    invalidates: "invalidates.md";
    keys: "keys.md";
    transactions: "transactions.md";
    outbox: "outbox.md";
    batches: "batches.md";
    slow_sources: "slow-sources.md";
    by_hand: "by-hand.md";
    testing: "testing.md";
    configuration: "configuration.md";
}
