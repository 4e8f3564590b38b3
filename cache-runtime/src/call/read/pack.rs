//! Turns a return value into an entry, and checks that its codec preserves it.

use std::any::TypeId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::call::{Call, load_result};
use super::context::LoadContext;
use super::new_entry::NewEntry;
use super::store_filter::StoreFilter;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::base::nonce::random_fraction;
use crate::call::returns::{Loaded, Returns};
use crate::coalesce::single_flight::LoadResult;
use crate::protocol::codec::{self, Footprint, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::Content;
use crate::protocol::packable::{Packable, Packed};
use crate::registry;
use crate::store::{Payload, Representation};

impl Call {
    /// Returns the entry for a return value, if it may be stored.
    pub(super) fn pack<R: Returns<S>, S>(
        &self,
        returned: &R,
        unless: impl StoreFilter<R::Value>,
    ) -> Option<NewEntry> {
        if self.is_no_store() {
            return None;
        }
        match returned.loaded() {
            Loaded::Failed => None,
            Loaded::Absent => self.pack_absence(),
            Loaded::Value(value) if unless.refuses(value) => None,
            Loaded::Value(value) => {
                if self.ttl.is_about_absences() && R::from_absence().is_none() {
                    self.never_returns_none();
                }
                let share = || returned.share();
                self.pack_or_count(&Packed::<_, R::Compare>::new(value, &share))
            }
        }
    }

    /// Reports an option that has no effect, since the return type has no `None`.
    #[cold]
    fn never_returns_none(&self) {
        if let Some(site) = self.site {
            site.report_no_none();
        }
    }

    /// Whether the body has asked not to store the value.
    pub(super) fn is_no_store(&self) -> bool {
        self.context.as_ref().is_some_and(LoadContext::is_no_store)
    }

    /// Returns the entry for an absence, if it may be stored.
    pub(super) fn pack_absence(&self) -> Option<NewEntry> {
        let default = self.cache.config.default_ttl;
        let mut fresh_for = self.ttl.of_absence(self.resource.operator_ttl, default)?;
        if let Some(said) = self.said_ttl() {
            let limit = self.ttl.absence;
            let limit = limit.filter(|_| !mutation::is_active("bodies-keep-absences-longer"));
            fresh_for = limit.map_or(said, |limit| said.min(limit));
        }
        let new_entry = NewEntry {
            content: Content::Absence,
            payload: Payload::Empty,
            codec: CodecId::default(),
            size: 4,
            fresh_for: self.jittered(fresh_for),
            stale_for: self.stale_policy.kept_for(),
        };
        new_entry.lasts().then_some(new_entry)
    }

    /// Returns the entry for a value. If it can't be stored, counts that and returns `None`.
    pub(super) fn pack_or_count(&self, value: &dyn Packable) -> Option<NewEntry> {
        let default = self.cache.config.default_ttl;
        let otherwise = || self.ttl.of_value(self.resource.operator_ttl, default);
        let fresh_for = self.jittered(self.said_ttl().unwrap_or_else(otherwise));
        match self.pack_value(value, fresh_for) {
            Ok(new_entry) => new_entry.lasts().then_some(new_entry),
            Err(reason) => {
                self.resource.counters.errors.add_one();
                tracing::debug!(key = self.own.key, %reason, "a value is not stored");
                None
            }
        }
    }

    /// The TTL that the body has set.
    fn said_ttl(&self) -> Option<Duration> {
        let context = self.context.as_ref()?;
        context.ttl_within(self.resource.operator_ttl)
    }

    fn jittered(&self, ttl: Duration) -> Duration {
        self.stale_policy.jittered(ttl, random_fraction())
    }

    /// Returns the entry for a value. A value that the codec would lose is refused, even if the
    /// store keeps values decoded, so that every tier returns the same value. A value whose type
    /// panics is refused too. Its caller gets it all the same, since the function has returned it.
    pub(crate) fn pack_value(
        &self,
        value: &dyn Packable,
        fresh_for: Duration,
    ) -> Result<NewEntry, Error> {
        if mutation::is_active("panics-of-types-spread") {
            return self.pack_unguarded(value, fresh_for);
        }
        let pack = || self.pack_unguarded(value, fresh_for);
        catch_unwind(AssertUnwindSafe(pack)).unwrap_or_else(|_| {
            self.distrust(value.type_id());
            Err(self.loses(value.type_id(), panicked()))
        })
    }

    fn pack_unguarded(&self, value: &dyn Packable, fresh_for: Duration) -> Result<NewEntry, Error> {
        let loses = |refusal| self.loses(value.type_id(), refusal);
        let representation = match self.is_kept_here_only() {
            true => Representation::Decoded,
            false => self.cache.store.representation(),
        };
        if value.schema().is_endless && !value.contents().is_verbatim() {
            return Err(loses(endless()));
        }
        let plain = self.codec.plain();
        let (codec, payload, size) = match representation {
            Representation::Encoded => {
                let encoded = value.contents().to_bytes(plain);
                let (bytes, footprint) = encoded.map_err(loses)?;
                self.within_limit(bytes.len())?;
                self.verify(value, &footprint, || Ok(bytes.clone()))?;
                let over = match self.codec.is_compressed() {
                    true => Some(0),
                    false => self.cache.config.compress_over,
                };
                let (codec, bytes) = codec::compress(plain, bytes, over);
                let size = bytes.len();
                (codec, Payload::Encoded(bytes), size)
            }
            Representation::Decoded => {
                let measured = value.contents().measure(plain);
                let (size, footprint) = measured.map_err(loses)?;
                let size = self.within_limit(size)?;
                let encode = || value.contents().to_bytes(plain).map(|(bytes, _)| bytes);
                self.verify(value, &footprint, encode)?;
                let payload = value.share().map_or(Payload::Empty, Payload::Decoded);
                (plain, payload, size)
            }
        };
        Ok(NewEntry {
            content: Content::Value,
            payload,
            codec,
            size,
            fresh_for,
            stale_for: self.stale_policy.kept_for(),
        })
    }

    pub(super) fn within_limit(&self, size: usize) -> Result<usize, Error> {
        let limit = self.cache.config.value_limit;
        if size <= limit {
            return Ok(size);
        }
        let text =
            format!("the value takes {size} bytes, over the limit of {limit} (`value_limit`)");
        Err(Error::new(ErrorKind::Unstorable, text))
    }

    /// The result for the callers that wait for this load. Each of them gets a clone. If that is
    /// another value, or they would share what one of them changes, they load by themselves.
    pub(super) fn result_for_waiters<R: Returns<S>, S>(&self, returned: &R) -> Option<LoadResult> {
        match returned.loaded() {
            Loaded::Value(value) => {
                let share = || returned.share();
                self.value_for_waiters(&Packed::<_, R::Compare>::new(value, &share))
            }
            Loaded::Absent | Loaded::Failed => load_result(returned),
        }
    }

    /// The same for a value.
    pub(super) fn value_for_waiters(&self, value: &dyn Packable) -> Option<LoadResult> {
        match self.may_be_cloned(value) {
            true => value.share().map(LoadResult::Value),
            false => Some(LoadResult::Failure),
        }
    }

    /// Whether each caller may get a clone of this value. Asked of a function's first values, and
    /// of some later ones.
    pub(super) fn may_be_cloned(&self, value: &dyn Packable) -> bool {
        if value.contents().is_verbatim() || mutation::is_active("waiters-get-any-clone") {
            return true;
        }
        let codec = self.codec.plain();
        let trust = self.resource.trust(self.site, value.type_id(), codec);
        if !trust.wants_clone() && !self.cache.config.verifies_all {
            return true;
        }
        let check = || is_its_callers_own(codec, value, true);
        let is_own = catch_unwind(AssertUnwindSafe(check)).is_ok_and(|checked| checked.is_ok());
        if !is_own {
            trust.loses_clones();
        }
        is_own
    }

    /// Decodes the value again and compares, unless its function has already shown that the codec
    /// preserves such values.
    fn verify(
        &self,
        value: &dyn Packable,
        footprint: &Footprint,
        encode: impl FnOnce() -> Result<Bytes, Refusal>,
    ) -> Result<(), Error> {
        if value.contents().is_verbatim() {
            return Ok(());
        }
        let codec = self.codec.plain();
        let trust = self.resource.trust(self.site, value.type_id(), codec);
        let is_wanted = trust.wants(footprint) || self.is_in_doubt.load(Ordering::Relaxed);
        if !is_wanted && !self.cache.config.verifies_all && !value.schema().guesses {
            return Ok(());
        }
        let is_news = trust.is_news(footprint);
        let verified = encode().and_then(|bytes| codec::verify(codec, value, &bytes));
        let is_asked = is_news || self.cache.config.verifies_all;
        let verified = verified
            .and_then(|()| is_comparable(codec, value, is_asked))
            .and_then(|()| {
                let checked = is_its_callers_own(codec, value, is_asked);
                checked.inspect_err(|_| trust.loses_clones())
            });
        match verified {
            Ok(()) => {
                trust.keeps(footprint);
                if is_news && may_lose(codec, value) {
                    trust.loses();
                }
                Ok(())
            }
            Err(refusal) => {
                trust.loses();
                Err(self.loses(value.type_id(), refusal))
            }
        }
    }

    /// Reports, once per function, that the codec would lose the value.
    pub(super) fn loses(&self, type_id: TypeId, refusal: Refusal) -> Error {
        registry::report_loss(self.site, &self.resource.name, type_id, &refusal);
        refusal.into()
    }
}

fn panicked() -> Refusal {
    Refusal::new(
        String::new(),
        "is of a type whose `Serialize`, `Deserialize`, `PartialEq` or `Debug` has panicked",
        "let it return an error, or take the value",
    )
}

/// Decoding some values of such a type exhausts the stack. So none is ever decoded.
fn endless() -> Refusal {
    Refusal::new(
        String::new(),
        "is of a type that asks itself for the same value without end: an untagged enum with a \
         variant that holds the enum alone",
        "make that variant a struct with a field, or tag the enum",
    )
}

/// Hits from memory are clones. So a clone has to be the same value, and what a caller does with
/// its own must not reach others.
fn is_its_callers_own(codec: CodecId, value: &dyn Packable, is_asked: bool) -> Result<(), Refusal> {
    if !is_asked || mutation::is_active("clones-trusted") {
        return Ok(());
    }
    let text = value.text();
    if let Some(ty) = value.contents().shared_state(text.as_deref()) {
        return Err(Refusal::new(
            String::new(),
            format!(
                "holds a `{ty}`, which its clones share: what one caller changes would reach others"
            ),
            "store what is in it",
        ));
    }
    codec::verify_clone(codec, value)
}

/// Whether values like this one may lose something that this one has not lost. A field that serde
/// skips may have its default here.
fn may_lose(codec: CodecId, value: &dyn Packable) -> bool {
    let text = value.text();
    let text = text.as_deref();
    let contents = value.contents();
    contents.leaves_out(text, codec) || contents.may_lose(text, codec)
}

/// Encoding a value again can't show what was left out of both. So a value with a field that is not
/// serialised, and whose type has no `Debug`, is not known to come back.
fn is_comparable(codec: CodecId, value: &dyn Packable, is_asked: bool) -> Result<(), Refusal> {
    if !is_asked {
        return Ok(());
    }
    if let Some(text) = value.text() {
        let is_hidden = value.equal(value).is_none() && value.contents().hides(&text, codec);
        if !is_hidden || mutation::is_active("hidden-parts-trusted") {
            return Ok(());
        }
        return Err(Refusal::new(
            String::new(),
            "has a field that is not serialised, and whose `Debug` hides what is in it, so nobody \
             can see whether that is lost",
            "derive `PartialEq`, or store a type without it",
        ));
    }
    // A `PartialEq` may compare the id alone.
    if !value.contents().leaves_out(None, codec) {
        return Ok(());
    }
    Err(Refusal::new(
        String::new(),
        "has a field that is not serialised, and its type has no `Debug`, so nobody can see whether \
         that is lost",
        "derive `Debug`",
    ))
}
