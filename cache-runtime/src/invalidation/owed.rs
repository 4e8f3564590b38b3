//! An invalidation that its caller sends to the store, because the caller needs the store's answer.
//! For example, `delete` returns whether there was an entry.

use std::time::Duration;

use super::{Acknowledgement, Delivery, Order, Receipt, Running};

/// Enqueues the invalidation when dropped while it is armed: the caller has hung up, and the
/// store may not have received the invalidation.
#[derive(Debug)]
#[must_use]
pub(crate) struct Owed<'d> {
    delivery: &'d Delivery,
    owes: Option<What>,
    /// Makes a shutdown wait for it, as for a write.
    _running: Running,
}

#[derive(Debug)]
enum What {
    Order(Order),
    /// The whole namespace.
    Everything,
}

impl Delivery {
    /// Guards an invalidation: it will take place even if its caller is dropped.
    pub(crate) fn owe(&self, order: Order) -> Owed<'_> {
        self.owes(What::Order(order))
    }

    /// Guards an invalidation of the whole namespace.
    pub(crate) fn owe_everything(&self) -> Owed<'_> {
        self.owes(What::Everything)
    }

    fn owes(&self, what: What) -> Owed<'_> {
        Owed {
            delivery: self,
            owes: Some(what),
            _running: self.begin(),
        }
    }
}

impl Owed<'_> {
    /// Disarms the guard, because the store has acknowledged the invalidation.
    pub(crate) fn settle(mut self) {
        self.owes = None;
    }

    /// Enqueues the invalidation now and waits for its acknowledgement.
    pub(crate) async fn acknowledged(mut self, patience: Duration) -> Acknowledgement {
        match self.enter() {
            Some(receipt) => receipt.acknowledged(patience).await,
            None => Acknowledgement::Delivered,
        }
    }

    fn enter(&mut self) -> Option<Receipt> {
        Some(match self.owes.take()? {
            What::Order(order) => self.delivery.enqueue(order),
            What::Everything => self.delivery.enqueue_namespace(),
        })
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if crate::base::mutation::is_active("removal-by-hand-lost-with-its-caller")
            || crate::base::mutation::is_active("clearing-lost-with-its-caller")
        {
            return;
        }
        // No caller waits for this receipt.
        drop(self.enter());
    }
}
