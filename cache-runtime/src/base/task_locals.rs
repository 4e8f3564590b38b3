//! Task-locals on a thread that ends.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::LocalKey;

/// Whether a value can be set now. While a thread ends it drops its values one by one, in no
/// certain order. To set one that is gone already is a panic, and in a destructor that aborts the
/// program. Tokio tells nobody whether it is gone, but drops a future without its value then.
pub(crate) fn can_be_set<T: 'static>(key: &'static LocalKey<T>, value: T) -> bool {
    let is_set = Cell::new(false);
    {
        let looks = Looks {
            key,
            is_set: &is_set,
        };
        let _dropped_at_once = pin!(key.scope(value, looks));
    }
    is_set.get()
}

/// A future that looks whether the value is there while it is dropped.
struct Looks<'a, T: 'static> {
    key: &'static LocalKey<T>,
    is_set: &'a Cell<bool>,
}

impl<T> Drop for Looks<'_, T> {
    fn drop(&mut self) {
        self.is_set.set(self.key.try_with(|_| ()).is_ok());
    }
}

impl<T> Future for Looks<'_, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;

    tokio::task_local! {
        static VALUE: Rc<u8>;
    }

    /// Tells while its thread ends whether the value can be set.
    struct Tells(mpsc::Sender<bool>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(can_be_set(&VALUE, Rc::new(1)));
        }
    }

    thread_local! {
        static FIRST: RefCell<Option<Tells>> = const { RefCell::new(None) };
        static SECOND: RefCell<Option<Tells>> = const { RefCell::new(None) };
    }

    #[test]
    fn a_value_can_be_set_until_it_is_gone() {
        let (sender, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            FIRST.set(Some(Tells(sender.clone())));
            assert!(can_be_set(&VALUE, Rc::new(0)));
            SECOND.set(Some(Tells(sender)));
        });
        thread.join().expect("ended");
        let mut told: Vec<_> = told.iter().collect();
        told.sort_unstable();
        // One of the two is dropped after the value.
        assert_eq!(told, [false, true]);
    }
}
