//! The protocol as state machines, all of whose states are visited.
//!
//! Each module says what it models, in which bounds, and what it leaves out. Each has the design,
//! of which a promise is checked in every state that can be reached, and variants that differ from
//! it in one thing, each of which the checker refutes: so the promise depends on that thing, and
//! the model would notice if it were lost. That what the promise is about can happen at all is
//! checked too.
//!
//! A step bears the name of the function of the runtime that it stands for. Nothing ties the two
//! together but names: whoever changes what one of these functions does, changes it here as well.
//! `--nocapture` shows how many states there are, and what refutes a variant.

mod check;
mod cluster;
mod local_tier;
mod nested;
mod nonce;
mod outbox;
mod protocol;
mod restart;
