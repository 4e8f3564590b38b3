//! With a cache, and without: the same calls have the same answers.
//!
//! Calls are random, by a seed. `DIFFERENTIAL_SEED` gives another one, `DIFFERENTIAL_SEQUENCES`
//! more of them:
//!
//! ```text
//! DIFFERENTIAL_SEQUENCES=40000 DIFFERENTIAL_SEED=7 cargo test --release --workspace --test differential -- --nocapture
//! ```

mod api;
mod calls;
mod functions;
mod losses;
mod subject;

fn seed() -> u64 {
    variable("DIFFERENTIAL_SEED").unwrap_or(1)
}

/// How many sequences there are, `usual` unless the environment says otherwise.
fn sequences(usual: usize) -> usize {
    let asked = variable("DIFFERENTIAL_SEQUENCES").map(usize::try_from);
    asked.and_then(Result::ok).unwrap_or(usual)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}
