//! The examples of the book and of the attributes' documentation, compiled and run as documentation
//! tests.
//!
//! One module for each page that has Rust code, so that a failure names its page. The attributes'
//! own crate can't run their examples without compiling the runtime a second time.

macro_rules! pages {
    ($folder:literal; $($page:ident: $file:literal;)*) => {$(
        #[doc = include_str!(concat!("../../", $folder, "/", $file))]
        mod $page {}
    )*};
}

pages! {
    "cache-macros/src/docs";
    cached_attribute: "cached.md";
    invalidates_attribute: "invalidates.md";
    cache_defaults_attribute: "cache_defaults.md";
}

pages! {
    "docs/book/src";
    introduction: "introduction.md";
    getting_started: "getting-started.md";
    cached: "cached.md";
    invalidates: "invalidates.md";
    keys: "keys.md";
    both_tiers: "both-tiers.md";
    transactions: "transactions.md";
    outbox: "outbox.md";
    batches: "batches.md";
    slow_sources: "slow-sources.md";
    by_hand: "by-hand.md";
    testing: "testing.md";
    configuration: "configuration.md";
    audit: "audit.md";
    switches: "switches.md";
}
