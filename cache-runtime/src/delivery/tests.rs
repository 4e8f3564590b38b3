use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::generation::Dep;

fn order(resource: &str) -> Order {
    Order {
        bumps: vec![Dep::new(format!("@gen:{resource}"))],
        ..Order::default()
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        queue: Mutex::new(Queue::new(100, clock::now())),
        wake: Notify::new(),
        is_distressed: AtomicBool::new(false),
    })
}

/// Writes down what a reader would have seen at the very moment at which a writer is told something.
struct Witness {
    shared: Arc<Shared>,
    saw_distress: Mutex<Option<bool>>,
}

impl Wake for Witness {
    fn wake(self: Arc<Self>) {
        let is_distressed = self.shared.is_distressed.load(Ordering::Acquire);
        *self.saw_distress.lock() = Some(is_distressed);
    }
}

#[test]
fn who_is_told_pending_reads_past_the_cache() {
    let shared = shared();
    let (sender, receipt) = oneshot::channel();
    shared.change(|queue| queue.enter(Some(order("users")), sender));
    let witness = Arc::new(Witness {
        shared: Arc::clone(&shared),
        saw_distress: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&witness));
    let mut receipt = pin!(receipt);
    let mut poll = || receipt.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll().is_pending());
    shared.change(|queue| queue.send(clock::now()));
    shared.take_back();
    assert_eq!(poll(), Poll::Ready(Ok(Acknowledgement::Pending)));
    assert_eq!(*witness.saw_distress.lock(), Some(true));
}
