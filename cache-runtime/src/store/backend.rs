//! The trait that every backend implements.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::connection::ConnectionWatch;
use super::diagnostics::{DiagnosticsRequest, ServerDiagnostics};
use super::key_change::KeyChange;
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::circuit::Circuit;
use crate::protocol::generation::Dependency;
use crate::protocol::messages::{
    EntryRef, Fill, Filled, Intent, IntentReply, Invalidated, Invalidation, LeaseReply,
    LeaseRequest, LookupReply, NamespaceInvalidated, OnEntry, PartlyInvalidated, Parts,
    Representation, ScanFilter, ServerInfo, StoreUsage,
};

/// A store of entries and generations.
///
/// The store limits the time of all operations. They may be dropped at any point; a request that
/// was sent may still take effect.
#[async_trait]
pub trait Store: Any + fmt::Debug + Send + Sync {
    /// The store's name in logs, metrics and `Cache-Status`.
    fn name(&self) -> &'static str;

    /// The form in which values are kept.
    fn representation(&self) -> Representation;

    /// Whether the values are kept in this process, so that a request never waits for anything
    /// outside of it.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Whether the store is asked now; the answer costs nothing.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }

    /// How often the circuit breaker has opened. It may close again before its state is read.
    fn openings(&self) -> u64 {
        0
    }

    /// Why the store is not asked now, or takes no new entries, as text; `None` while all is well,
    /// or if there is no known reason.
    fn reason(&self) -> Option<String> {
        None
    }

    /// The state of the store's connection, if the store makes one by itself. Then writes wait for
    /// a new connection as [`ConnectionWatch`] describes. `None` if there is nothing to wait for.
    fn connection(&self) -> Option<ConnectionWatch> {
        None
    }

    /// Shows what [`lookup`](Store::lookup) would return now, if that is an entry with the stamp of the
    /// current generations and without an intent. It must take no longer than a call without the
    /// cache, since a call tries this before it waits for anything. If nothing is shown, that says
    /// nothing about the entry.
    ///
    /// `on_entry` must be called at most once. An
    /// [`Encoded`](crate::protocol::messages::Payload::Encoded) value is skipped, since decoding
    /// takes time: the call then uses `lookup`.
    fn try_lookup(&self, key: &str, deps: &[Arc<Dependency>], on_entry: OnEntry<'_>) {
        let _ = (key, deps, on_entry);
    }

    /// Reads an entry and the generations that it depends on, in any order. Missing generations are
    /// created, so that the stamp is always complete. Entry and generations come from one server.
    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error>;

    /// [`lookup`](Store::lookup) with its result on the heap. An answer passes through about a dozen
    /// functions and is too large to be copied by each. The default suffices, unless a store has
    /// its answers on the heap already.
    #[doc(hidden)]
    async fn lookup_boxed(&self, entry_ref: &EntryRef) -> Result<Box<LookupReply>, Error> {
        self.lookup(entry_ref).await.map(Box::new)
    }

    /// Reads as [`lookup`](Store::lookup) does, for a caller that only inspects the entry: it creates
    /// nothing. A missing generation counts as one that no entry has, so the stamp matches no
    /// entry.
    ///
    /// The default is a [`lookup`](Store::lookup), and so may create generations.
    async fn examine(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        self.lookup(entry_ref).await
    }

    /// Reads many entries and the generations that they depend on, which are the same for all of
    /// them, as if each were [looked](Store::lookup) up, in fewer round trips.
    async fn lookup_many(&self, entry_refs: &[EntryRef]) -> Result<Vec<LookupReply>, Error> {
        let mut lookups = Vec::with_capacity(entry_refs.len());
        for entry_ref in entry_refs {
            lookups.push(self.lookup(entry_ref).await?);
        }
        Ok(lookups)
    }

    /// Takes a lease on the entry, by compare-and-set. An expired lease can always be replaced.
    async fn lease(
        &self,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Error>;

    /// Takes leases on many entries, as if each were [leased](Store::lease), in fewer round trips.
    /// After an error, some of them may be leased.
    async fn lease_many(
        &self,
        requests: &[(&EntryRef, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for (entry_ref, request) in requests {
            replies.push(self.lease(entry_ref, request).await?);
        }
        Ok(replies)
    }

    /// Asks for a notification of a key's next change, for a caller that waits for another process.
    /// A caller that looks up the entry after this has returned misses no change. `None` if the
    /// store does not notify; the caller then polls.
    async fn watch_key(&self, key: &str) -> Result<Option<KeyChange>, Error> {
        let _ = key;
        Ok(None)
    }

    /// Records for `length` that the loads under the leases in `loads` wait for the load under
    /// `lease`. Returns whether that load waits for one of them, directly or through others: then
    /// none of them would continue before a wait limit. `false` if the store does not know.
    async fn closes_cycle(
        &self,
        loads: &[Nonce],
        lease: Nonce,
        length: Duration,
    ) -> Result<bool, Error> {
        let _ = (loads, lease, length);
        Ok(false)
    }

    /// Extends a lease; `false` if the lease is gone.
    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error>;

    /// Extends many leases, as if each were [renewed](Store::renew), in fewer round trips.
    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        for (key, token) in leases {
            self.renew(key, *token, length).await?;
        }
        Ok(())
    }

    /// Gives a lease back; has no effect if it is gone.
    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error>;

    /// Stores a value, by compare-and-set on the lease. A fill with
    /// [`Content::Nothing`](super::Content::Nothing) removes the lease and the content that it has
    /// kept, since a newer value was loaded that is not to be stored.
    async fn fill(&self, entry_ref: &EntryRef, fill: Fill) -> Result<Filled, Error>;

    /// Stores many values whose entries depend on the same generations, as if each were
    /// [filled](Store::fill), in fewer round trips. A value that can't be stored is refused, and
    /// the others are stored all the same.
    async fn fill_many(&self, fills: Vec<(&EntryRef, Fill)>) -> Result<Vec<Filled>, Error> {
        let mut filled = Vec::with_capacity(fills.len());
        for (entry_ref, fill) in fills {
            filled.push(match self.fill(entry_ref, fill).await {
                Err(error) if error.kind() == ErrorKind::Unstorable => Filled::Refused,
                answer => answer?,
            });
        }
        Ok(filled)
    }

    /// Announces a write: adds its intent to those of others, removes the rows' entries, replaces
    /// the generations.
    async fn intend(&self, intent: &Intent) -> Result<IntentReply, Error>;

    /// Extends an intent, and changes nothing else if it still exists. If not, it acts like
    /// [`intend`](Store::intend).
    async fn renew_intent(&self, intent: &Intent) -> Result<IntentReply, Error>;

    /// Removes the expired intents on an entry and its dependencies; each key that had one gets a
    /// new generation.
    async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error>;

    /// Removes entries and replaces generations. Repeating it is harmless. Intents that are not
    /// withdrawn stay until they expire.
    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error>;

    /// The same, but a part of it may fail: one of several servers may be away, or some keys are
    /// refused. The undone part is requested again later.
    ///
    /// If a generation that is neither of a row nor of a tag is not replaced, those of the rows of
    /// its resource are undone, too, unless the store is [split](Store::is_split). So are those of
    /// all tags without the generation `~~`.
    async fn invalidate_partly(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        let result = self.invalidate(invalidation).await;
        PartlyInvalidated::all_or_nothing(result, invalidation)
    }

    /// Whether it has several servers, one of which may be away. Then generations are replaced in
    /// any order.
    fn is_split(&self) -> bool {
        false
    }

    /// Whether an invalidation takes effect in one step, so that a reader who sees one part of it
    /// sees all of it; or in several, of which the last one replaces the generations of resources
    /// once more, all at once. If not, an entry may be loaded after its own generation was replaced,
    /// from another entry that the same invalidation has not reached yet, and would then outlive it.
    /// So the calls inside of loads bypass such a store, with
    /// [`BypassReason::InsideLoad`](crate::BypassReason::InsideLoad). By default it is assumed of a
    /// store that is not [split](Store::is_split): a store that sends keys one by one has to say
    /// `false`.
    fn is_atomic(&self) -> bool {
        !self.is_split()
    }

    /// Whether the store finds keys by a pattern. One that can't refuses
    /// [`remove_matching`](Store::remove_matching) with [`ErrorKind::Unsupported`]: then dead
    /// entries stay until their time is over, and an invalidation by pattern becomes one of the
    /// whole resource.
    fn lists_keys(&self) -> bool {
        true
    }

    /// Removes entries of this framework by pattern, in bounded steps; returns how many.
    async fn remove_matching(&self, filter: &ScanFilter) -> Result<u64, Error>;

    /// Replaces every generation of the namespace, which makes all entries in it dead. Returns
    /// when, in the store's time.
    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error>;

    /// The same in these parts of the store only, of which some may fail. The undone parts are
    /// requested again later. A store that is not [split](Store::is_split) does all or nothing.
    async fn invalidate_namespace_partly(
        &self,
        namespace: &str,
        parts: &Parts,
    ) -> NamespaceInvalidated {
        let result = self.invalidate_namespace(namespace).await;
        NamespaceInvalidated::all_or_nothing(result, parts)
    }

    /// The number of the part that holds a generation, if the store is [split](Store::is_split).
    fn part_of(&self, dep: &Dependency) -> u16 {
        let _ = dep;
        0
    }

    /// Checks whether reads and writes would be answered now.
    async fn ping(&self) -> Result<(), Error>;

    /// Asks the server for its statistics.
    async fn server_info(&self) -> Result<ServerInfo, Error>;

    /// Checks how the server is set up, without changing anything and in bounded time however much
    /// it holds; for [`Cache::doctor`](crate::Cache::doctor). A store without a server returns
    /// nothing.
    async fn diagnose(&self, request: &DiagnosticsRequest) -> Result<ServerDiagnostics, Error> {
        let _ = request;
        Ok(ServerDiagnostics::default())
    }

    /// The reads that operators have switched off for all processes, as a watched value: resources,
    /// functions as `resource:op`, `*` for everything. `None` if no other process shares the store.
    fn switched_off(&self) -> Option<watch::Receiver<BTreeSet<String>>> {
        None
    }

    /// Switches reads of a resource or function off or on for all processes.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] if no other process shares the store.
    async fn switch(&self, target: &str, enabled: bool) -> Result<(), Error> {
        let _ = (target, enabled);
        let text = "this store belongs to one process, so nothing can be switched for others";
        Err(Error::new(ErrorKind::Store, text))
    }

    /// The memory of entries that this process holds for the store; `None` if it holds none.
    fn usage(&self) -> Option<StoreUsage> {
        None
    }

    /// Ends connections and tasks. After that everything fails as unavailable. It may be called
    /// more than once.
    async fn close(&self) {}
}
