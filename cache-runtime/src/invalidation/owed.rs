//! An invalidation whose caller asks the store himself, since the store's answer says more than that it has taken place.

use std::time::Duration;

use super::{Acknowledgement, Delivery, Order, Receipt, Running};

/// Dropped before it is settled, it is handed in: the caller has hung up, and nobody knows whether the store has heard of it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Owed<'d> {
    delivery: &'d Delivery,
    owes: Option<What>,
    /// A shutdown waits for it, as for a write.
    _running: Running,
}

#[derive(Debug)]
enum What {
    Order(Order),
    /// All of the namespace.
    Everything,
}

impl Delivery {
    /// An invalidation that will take place whether or not its caller lives to see it.
    pub(crate) fn owe(&self, order: Order) -> Owed<'_> {
        self.owes(What::Order(order))
    }

    /// The same of all of the namespace.
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
    /// The store has acknowledged it.
    pub(crate) fn settle(mut self) {
        self.owes = None;
    }

    /// Hands it in now, and says what becomes of it.
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
        // Nobody waits for it.
        drop(self.enter());
    }
}
