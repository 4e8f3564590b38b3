//! The benchmark suite, and the other caches it measures this one against.

pub mod chaos;
pub mod course;
pub mod data;
pub mod figures;
pub mod limits;
pub mod link;
pub mod machine;
pub mod measure;
pub mod plot;
pub mod profile;
pub mod progress;
pub mod report;
pub mod rivals;
pub mod suite;
pub mod worker;
