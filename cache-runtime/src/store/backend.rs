//! The trait that every backend implements.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::connection::ConnectionWatch;
use super::survey::{Inquiry, Survey};
use super::word::Word;
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::circuit::Circuit;
use crate::protocol::generation::Dep;
use crate::protocol::messages::{
    Fill, Filled, Form, Intended, Intent, Invalidated, Invalidation, LeaseReply, LeaseRequest,
    Look, Matching, PartlyInvalidated, Probe, See, ServerFacts, StoreUsage,
};

/// A place where entries and generations are kept.
///
/// All verbs are bounded in time by the store itself. They are safe to drop at any point: what was sent may
/// still take place.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The store's name, as it stands in logs, metrics and `Cache-Status`.
    fn name(&self) -> &'static str;

    /// In which form values are kept.
    fn form(&self) -> Form;

    /// Whether the values are kept in this process, so that to ask for one never waits for anything outside of it.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Whether the store is asked now; the answer costs nothing.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }

    /// How often the circuit has opened: an opening may be over before anybody asks for the circuit.
    fn openings(&self) -> u64 {
        0
    }

    /// Why the store is not asked now, in words; `None` while it is, and where there is no more to say.
    fn reason(&self) -> Option<String> {
        None
    }

    /// What is known of the store's connection, if it makes one by itself: then writes wait for a fresh one, for as long as
    /// [`ConnectionWatch`] says. `None` where there is nothing to wait for.
    fn connection(&self) -> Option<ConnectionWatch> {
        None
    }

    /// Shows what [`look`](Store::look) would see now, if there is an entry with the stamp of the generations, no intent, and
    /// to find out takes no longer than a call without the cache: before a call waits for anything, it glances. To show
    /// nothing says nothing.
    ///
    /// `see` is to be called once at most. A value that is [`Encoded`](Payload::Encoded) is passed over, since decoding it takes
    /// time: the call looks then.
    fn glance(&self, key: &str, deps: &[Arc<Dep>], see: See<'_>) {
        let _ = (key, deps, see);
    }

    /// Reads an entry and the generations it depends on, in any order. A generation that is missing is
    /// created, so that the stamp is always whole. Entry and generations come from one server.
    async fn look(&self, probe: &Probe) -> Result<Look, Error>;

    /// Reads many entries and the generations they depend on: all of them the same ones. As if each were
    /// [looked](Store::look) at, in fewer round trips.
    async fn look_many(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let mut looks = Vec::with_capacity(probes.len());
        for probe in probes {
            looks.push(self.look(probe).await?);
        }
        Ok(looks)
    }

    /// Takes the entry's place for a load, by compare-and-set. An expired lease always gives way.
    async fn lease(&self, probe: &Probe, request: &LeaseRequest) -> Result<LeaseReply, Error>;

    /// Takes the places of many entries, as if each were [leased](Store::lease), in fewer round trips. After an error some
    /// of them may be leased.
    async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for (probe, request) in requests {
            replies.push(self.lease(probe, request).await?);
        }
        Ok(replies)
    }

    /// Asks for word of a key's next change, for one who waits for another process: whoever looks after this has answered
    /// misses no change. `None` where the store sends no word; the key is then looked at from time to time.
    async fn listen(&self, key: &str) -> Result<Option<Word>, Error> {
        let _ = key;
        Ok(None)
    }

    /// Notes for `length` that the loads under the leases in `loads` wait for the load under `lease`, and returns whether that
    /// one waits for one of them, directly or through others: then nobody would get on before a wait limit. `false` where the
    /// store does not know.
    async fn closes_circle(
        &self,
        loads: &[Nonce],
        lease: Nonce,
        length: Duration,
    ) -> Result<bool, Error> {
        let _ = (loads, lease, length);
        Ok(false)
    }

    /// Moves the deadline of a lease; `false` if the lease is gone.
    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error>;

    /// Moves the deadlines of many leases, as if each were [renewed](Store::renew), in fewer round trips.
    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        for (key, token) in leases {
            self.renew(key, *token, length).await?;
        }
        Ok(())
    }

    /// Gives a lease back; without effect if it is gone.
    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error>;

    /// Stores a value, by compare-and-set on the lease.
    async fn fill(&self, probe: &Probe, fill: Fill) -> Result<Filled, Error>;

    /// Stores many values whose entries depend on the same generations, as if each were [filled](Store::fill), in fewer
    /// round trips. One that can't be stored is refused, and the others are stored all the same.
    async fn fill_many(&self, fills: Vec<(&Probe, Fill)>) -> Result<Vec<Filled>, Error> {
        let mut filled = Vec::with_capacity(fills.len());
        for (probe, fill) in fills {
            filled.push(match self.fill(probe, fill).await {
                Err(error) if error.kind() == ErrorKind::Unstorable => Filled::Refused,
                answer => answer?,
            });
        }
        Ok(filled)
    }

    /// Announces a write, by adding its intent to those of others: kills the rows, replaces the generations.
    async fn intend(&self, intent: &Intent) -> Result<Intended, Error>;

    /// Moves the deadline of an intent, and changes nothing else where it still stands; where it doesn't, as
    /// [`intend`](Store::intend).
    async fn renew_intent(&self, intent: &Intent) -> Result<Intended, Error>;

    /// Ends the intents on an entry and its dependencies whose time is over; what they stood on gets a new generation.
    async fn prune(&self, probe: &Probe) -> Result<(), Error>;

    /// Removes entries and replaces generations. Repeating it is harmless. Intents that are not withdrawn stay until their
    /// time is over.
    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error>;

    /// The same where a part of it may be done: for stores that consist of several servers, one of which may be away. What is
    /// undone is asked for again.
    async fn invalidate_partly(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        match self.invalidate(invalidation).await {
            Ok(done) => PartlyInvalidated::whole(done),
            Err(error) => {
                let done = Invalidated {
                    at: Millis(0),
                    removed: 0,
                };
                PartlyInvalidated::partly(done, invalidation.clone(), error)
            }
        }
    }

    /// Whether a part of an invalidation may be done while another is not.
    fn is_split(&self) -> bool {
        false
    }

    /// Removes entries of this framework by pattern, in bounded steps; returns how many.
    async fn remove_matching(&self, matching: &Matching) -> Result<u64, Error>;

    /// Replaces every generation of the namespace, which makes every entry in it dead; returns when, in the
    /// store's time.
    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error>;

    /// Asks for a sign of life: whether reads and writes would be answered now.
    async fn ping(&self) -> Result<(), Error>;

    /// Asks the server about itself.
    async fn facts(&self) -> Result<ServerFacts, Error>;

    /// Looks at how the server is set up, without changing anything and in bounded time however much it holds; for
    /// [`Cache::checkup`](crate::Cache::checkup). A store without a server has nothing to say.
    async fn survey(&self, inquiry: &Inquiry) -> Result<Survey, Error> {
        let _ = inquiry;
        Ok(Survey::default())
    }

    /// What operators have switched off for all processes, as it changes: resources, functions as
    /// `resource:op`, `*` for everything. `None` where no other process has a part in the store.
    fn switched_off(&self) -> Option<watch::Receiver<BTreeSet<String>>> {
        None
    }

    /// Switches reads of a resource or function off or on for all processes.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] where no other process has a part in the store.
    async fn switch(&self, target: &str, enabled: bool) -> Result<(), Error> {
        let _ = (target, enabled);
        let text = "this store belongs to one process, so nothing can be switched for others";
        Err(Error::new(ErrorKind::Store, text))
    }

    /// What the entries take that this process holds for the store; `None` where it holds none.
    fn usage(&self) -> Option<StoreUsage> {
        None
    }

    /// Ends connections and tasks. Everything fails as unavailable afterwards. It may be called more than once.
    async fn close(&self) {}
}
