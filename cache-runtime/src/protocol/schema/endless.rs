//! Ends the probe of a type that reads itself without end.
//!
//! An untagged enum with a variant `B(Box<Self>)` asks that variant for the value that it was given
//! itself. If no variant before it fits, this never ends, and exhausts the stack. The deserializer
//! is not asked meanwhile, since serde has buffered the value. But serde makes an error for each
//! variant that does not fit, so errors are counted between two requests.
//!
//! The probe runs on a thread of its own, whose stack holds more calls than it may count. There it
//! unwinds, and goes on with the next reading; where panics abort, the thread waits for ever, and
//! the shape is what it has found so far.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::shape::Schema;

/// A type that has not asked for anything for so many errors is given up.
const MOST_ERRORS: u32 = 2_000;

/// Memory that is not used is not taken.
#[cfg(target_pointer_width = "64")]
const STACK: usize = 128 << 20;
#[cfg(not(target_pointer_width = "64"))]
const STACK: usize = 16 << 20;

/// Above this, the errors were made inside each other, and not one after the other.
const DEEP: usize = 256 << 10;

thread_local! {
    static ERRORS: Cell<u32> = const { Cell::new(0) };
    /// Where the stack was at the last request.
    static BEGAN: Cell<usize> = const { Cell::new(0) };
    static PROBE: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// The probe of this thread.
struct Running {
    result: Sender<Schema>,
    /// The shape so far; needed only where panics abort.
    so_far: Option<Box<dyn Fn() -> Schema>>,
    unwinds: bool,
}

/// Thrown through the type's own code.
pub(super) struct GivenUp {
    pub(super) is_endless: bool,
}

impl GivenUp {
    /// `None` if the type's own code has panicked.
    pub(super) fn of(thrown: &(dyn Any + Send)) -> Option<&Self> {
        thrown.downcast_ref()
    }
}

fn stack() -> usize {
    let here = 0u8;
    std::ptr::from_ref(&here).addr()
}

/// The type has asked for a value.
pub(super) fn asked() {
    ERRORS.set(0);
    BEGAN.set(stack());
}

/// The type has made an error.
pub(super) fn failed() {
    let errors = ERRORS.get() + 1;
    ERRORS.set(errors);
    if errors >= MOST_ERRORS {
        ERRORS.set(0);
        let is_endless = BEGAN.get().abs_diff(stack()) > DEEP;
        give_up(GivenUp { is_endless });
    }
}

fn give_up(given_up: GivenUp) {
    let aborts = |it: &mut Running| !it.unwinds;
    let Some(running) = PROBE.with_borrow_mut(|probe| probe.take_if(aborts)) else {
        // No message: this is not a panic of the program's.
        std::panic::resume_unwind(Box::new(given_up));
    };
    let found = running.so_far.map_or(Schema::NONE, |so_far| so_far());
    let _ = running.result.send(Schema {
        is_endless: found.is_endless || given_up.is_endless,
        ..found
    });
    loop {
        thread::park();
    }
}

/// Says what the probe of this thread has found, whenever it is asked.
pub(super) fn finds(so_far: impl Fn() -> Schema + 'static) {
    PROBE.with_borrow_mut(|probe| {
        if let Some(probe) = probe {
            probe.so_far = Some(Box::new(so_far));
        }
    });
}

/// Runs a probe on a stack of its own. A type without a result has no shape.
pub(super) fn on_own_stack(
    unwinds: bool,
    probe: impl FnOnce() -> Schema + Send + 'static,
) -> Schema {
    let (result, found) = mpsc::channel();
    let run = move || {
        PROBE.set(Some(Running {
            result,
            so_far: None,
            unwinds,
        }));
        let schema = probe();
        if let Some(running) = PROBE.take() {
            let _ = running.result.send(schema);
        }
    };
    let thread = thread::Builder::new()
        .name("cache-shape".to_owned())
        .stack_size(STACK);
    match thread.spawn(run) {
        Ok(_) => found.recv().unwrap_or(Schema::NONE),
        Err(_) => Schema::NONE,
    }
}
