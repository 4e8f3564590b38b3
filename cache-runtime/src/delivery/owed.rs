//! An invalidation whose caller asks the store himself, since the store's answer says more than that it has taken place.

use super::{Delivery, Order, Receipt};

/// Dropped before it is settled, it is handed in: the caller has hung up, and nobody knows whether the store has heard of it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Owed<'d> {
    delivery: &'d Delivery,
    /// `None` for the whole namespace.
    order: Option<Order>,
    is_settled: bool,
}

impl Delivery {
    /// An invalidation that will take place whether or not its caller lives to see it.
    pub(crate) fn owe(&self, order: impl Into<Option<Order>>) -> Owed<'_> {
        Owed {
            delivery: self,
            order: order.into(),
            is_settled: false,
        }
    }
}

impl Owed<'_> {
    /// The store has acknowledged it.
    pub(crate) fn settle(mut self) {
        self.is_settled = true;
    }

    /// Hands it in now.
    pub(crate) fn hand_in(mut self) -> Receipt {
        self.is_settled = true;
        self.enter()
    }

    fn enter(&mut self) -> Receipt {
        match self.order.take() {
            Some(order) => self.delivery.enqueue(order),
            None => self.delivery.enqueue_namespace(),
        }
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            // Nobody waits for it.
            drop(self.enter());
        }
    }
}
