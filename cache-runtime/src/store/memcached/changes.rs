//! Announced writes, removals and new generations.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::MemcachedStore;
use super::connection::{Connection, Failure, Item, Replaces};
use super::entries::GENERATION_TTL;
use super::steps::{CHANGES, in_steps, steps_of};
use super::text::{self, Intents, Value, flags};
use crate::base::error::Error;
use crate::protocol::generation::Generation;
use crate::store::{Dependency, EntryRef, Intent, IntentRow, Millis, Nonce};

/// How much the estimates of two processes may differ about the server's time, which it tells in
/// seconds. An intent lasts longer by this much.
const CLOCK_STEP: Duration = Duration::from_secs(1);

impl MemcachedStore {
    /// Announces a write. Returns whether the intent is on whole resources instead of rows.
    pub(super) async fn announce(&self, intent: &Intent, renews: bool) -> Result<bool, Error> {
        let rows = intent.rows.chunks(steps_of(CHANGES));
        let rows = rows.map(|rows| self.announce_rows(intent, rows, renews));
        let wholes = in_steps(rows.collect()).await?.concat();
        for deps in intent
            .deps
            .chunk_by(|dep, next| dep.is_of_row() && next.is_of_row())
        {
            let deps = deps.chunks(steps_of(CHANGES));
            let deps = deps.map(|deps| self.announce_deps(intent, deps, renews));
            in_steps(deps.collect()).await?;
        }
        Ok(!wholes.is_empty())
    }

    /// Announces a write at rows. If a row's key holds a foreign value, the intent is put on the
    /// generation of the resource instead. Returns these generations.
    pub(super) fn announce_rows<'a>(
        &'a self,
        intent: &'a Intent,
        rows: &'a [IntentRow],
        renews: bool,
    ) -> BoxFuture<'a, Result<Vec<Arc<Dependency>>, Error>> {
        Box::pin(self.pool.run_write(move |mut on| async move {
            let mut wholes = Vec::new();
            for row in rows {
                match self.announce_row(&mut on, intent, &row.key, renews).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(failure) => return (on, Err(failure)),
                }
                let whole = self.announce_dep(&mut on, intent, &row.whole, renews);
                if let Err(failure) = whole.await {
                    return (on, Err(failure));
                }
                wholes.push(Arc::clone(&row.whole));
            }
            (on, Ok(wholes))
        }))
    }

    pub(super) fn announce_deps<'a>(
        &'a self,
        intent: &'a Intent,
        deps: &'a [Arc<Dependency>],
        renews: bool,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.pool.run_write(move |mut on| async move {
            for dep in deps {
                if let Err(failure) = self.announce_dep(&mut on, intent, dep, renews).await {
                    return (on, Err(failure));
                }
            }
            (on, Ok(()))
        }))
    }

    pub(super) fn delete_entry<'a>(
        &'a self,
        keys: &'a [String],
        ended: &'a HashSet<Nonce>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.pool.run_write(move |mut on| async move {
            let killed = self.delete_on(&mut on, keys, ended).await;
            (on, killed)
        }))
    }

    pub(super) fn rotate<'a>(
        &'a self,
        deps: &'a [Arc<Dependency>],
        ended: &'a HashSet<Nonce>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.pool.run_write(move |mut on| async move {
            let rotated = self.rotate_on(&mut on, deps, ended).await;
            (on, rotated)
        }))
    }

    /// Announces a write at a row; `false` if a foreign value is there.
    pub(super) async fn announce_row(
        &self,
        on: &mut Connection,
        intent: &Intent,
        key: &str,
        renews: bool,
    ) -> Result<bool, Failure> {
        loop {
            let place = self.entry(on, key).await?;
            let text = match &place.value {
                Some(Value::Foreign) => return Ok(false),
                Some(Value::Intents(text)) => text.as_str(),
                _ => "",
            };
            let (intents, _) = self.with_own(text, intent, renews);
            let ttl = self.intents_ttl(&intents, Duration::ZERO);
            let value = text::row_intents(&intents.text);
            let put = on.put(
                &place.key,
                value.as_bytes(),
                flags::INTENTS,
                &ttl,
                place.over(),
            );
            if put.await? {
                return Ok(true);
            }
        }
    }

    /// Announces a write at a generation, and replaces it. If its intent is there already, it is
    /// only renewed.
    pub(super) async fn announce_dep(
        &self,
        on: &mut Connection,
        intent: &Intent,
        dep: &Dependency,
        renews: bool,
    ) -> Result<(), Failure> {
        let key = text::key(dep.key());
        loop {
            let item = on.get(&key).await?;
            let known = item
                .as_ref()
                .and_then(|item| Generation::parse(&item.bytes));
            let text = item
                .as_ref()
                .map_or("", |item| text::behind_nonce(&item.bytes));
            let (intents, stood) = self.with_own(text, intent, renews);
            let nonce = match known {
                Some(generation) if stood => generation.nonce,
                _ => Nonce::fresh(),
            };
            let ttl = self.intents_ttl(&intents, GENERATION_TTL);
            let value = format!("{nonce}{}", intents.text);
            let over = item.map_or(Replaces::Nothing, |item| Replaces::Version(item.version));
            let put = on.put(&key, value.as_bytes(), flags::GENERATION, &ttl, over);
            if put.await? {
                return Ok(());
            }
        }
    }

    /// The intents of a text and this one, and whether this one was in it and is only renewed.
    pub(super) fn with_own(&self, text: &str, intent: &Intent, renews: bool) -> (Intents, bool) {
        let now = self.now();
        let own = text::kept(text, |token, _| token == intent.token);
        let stood = renews && own.last.is_some();
        let mut intents = text::kept(text, |token, deadline| {
            token != intent.token && (stood || !text::has_ended((token, deadline), now))
        });
        let length = intent.length + CLOCK_STEP;
        intents.add(intent.token, now.after(length), length);
        (intents, stood)
    }

    pub(super) fn intents_ttl(&self, intents: &Intents, at_least: Duration) -> String {
        let now = self.now();
        let last = intents.last.unwrap_or(now).after(CLOCK_STEP);
        text::ttl(last.max(now.after(at_least)), now)
    }

    /// Ends the intents at a row that `stays` does not name.
    pub(super) async fn end_at_row(
        &self,
        on: &mut Connection,
        key: &str,
        stays: impl Fn(Nonce, Millis) -> bool,
    ) -> Result<(), Failure> {
        loop {
            let place = self.entry(on, key).await?;
            let (Some(Value::Intents(text)), Replaces::Version(version)) =
                (&place.value, place.over())
            else {
                return Ok(());
            };
            let rest = text::kept(text, &stays);
            let is_done = if rest.text.is_empty() {
                on.delete(&place.key, version).await?
            } else if rest.has_lost {
                let ttl = self.intents_ttl(&rest, Duration::ZERO);
                let value = text::row_intents(&rest.text);
                on.put(
                    &place.key,
                    value.as_bytes(),
                    flags::INTENTS,
                    &ttl,
                    place.over(),
                )
                .await?
            } else {
                true
            };
            if is_done {
                return Ok(());
            }
        }
    }

    /// Replaces a generation. The intents on it that `stays` names stay.
    pub(super) async fn replace(
        &self,
        on: &mut Connection,
        key: &String,
        mut item: Option<Item>,
        stays: impl Fn(Nonce, Millis) -> bool,
    ) -> Result<(), Failure> {
        while let Some(there) = item {
            let rest = text::kept(text::behind_nonce(&there.bytes), &stays);
            // The next caller that needs the generation creates a new one. Deleting needs no
            // memory, so a full server can't refuse it.
            let is_done = if rest.text.is_empty() {
                on.delete(key, there.version).await?
            } else {
                let ttl = self.intents_ttl(&rest, GENERATION_TTL);
                let value = format!("{}{}", Nonce::fresh(), rest.text);
                let over = Replaces::Version(there.version);
                on.put(key, value.as_bytes(), flags::GENERATION, &ttl, over)
                    .await?
            };
            if is_done {
                return Ok(());
            }
            item = on.get(key).await?;
        }
        Ok(())
    }

    pub(super) async fn prune_on(
        &self,
        on: &mut Connection,
        entry_ref: &EntryRef,
    ) -> Result<(), Failure> {
        let stays = |token, deadline| !text::has_ended((token, deadline), self.now());
        self.end_at_row(on, &entry_ref.key, stays).await?;
        let keys: Vec<_> = entry_ref
            .deps
            .iter()
            .map(|dep| text::key(dep.key()))
            .collect();
        let items = on.get_many(&keys).await?;
        for (key, item) in keys.iter().zip(items) {
            let has_ended =
                |item: &Item| text::kept(text::behind_nonce(&item.bytes), stays).has_lost;
            if item.as_ref().is_some_and(has_ended) {
                self.replace(on, key, item, stays).await?;
            }
        }
        Ok(())
    }

    /// Removes the entries under these keys; returns how many had content.
    pub(super) async fn delete_on(
        &self,
        on: &mut Connection,
        keys: &[String],
        ended: &HashSet<Nonce>,
    ) -> Result<u64, Failure> {
        let names: Vec<_> = keys.iter().map(|key| text::key(key)).collect();
        let mut removed = 0;
        for ((key, name), shape) in keys.iter().zip(&names).zip(on.shapes(&names).await?) {
            let mut shape = shape;
            while let Some(there) = shape {
                let is_done = match there.flags {
                    flags::ENTRY | flags::LEASE => on.delete(name, there.version).await?,
                    flags::INTENTS => {
                        let stays = |token, deadline| {
                            !ended.contains(&token)
                                && !text::has_ended((token, deadline), self.now())
                        };
                        self.end_at_row(on, key, stays).await?;
                        true
                    }
                    _ => true,
                };
                if is_done {
                    removed += u64::from(there.flags == flags::ENTRY);
                    break;
                }
                let again = on.shapes(std::slice::from_ref(name)).await?;
                shape = again.into_iter().next().flatten();
            }
        }
        Ok(removed)
    }

    pub(super) async fn rotate_on(
        &self,
        on: &mut Connection,
        deps: &[Arc<Dependency>],
        ended: &HashSet<Nonce>,
    ) -> Result<(), Failure> {
        if crate::base::mutation::is_active("memcached-generation-stays") {
            return Ok(());
        }
        let stays = |token, deadline| {
            !ended.contains(&token) && !text::has_ended((token, deadline), self.now())
        };
        let keys: Vec<_> = deps.iter().map(|dep| text::key(dep.key())).collect();
        let items = on.get_many(&keys).await?;
        for (key, item) in keys.iter().zip(items) {
            self.replace(on, key, item, stays).await?;
        }
        Ok(())
    }
}
