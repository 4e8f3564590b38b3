//! Recognises an argument that may be part of its caller's transaction, by its type.
//!
//! The macro recognises connections and transactions by the names of their types and bounds. An
//! alias (`type Link = PgConnection`) or a trait of the program's own (`trait Db:
//! Executor<'static>`) has another name. So the generated code also asks the compiler, with a chain
//! of inherent methods as in [`Shape`](crate::shape). For SQLx's connections and transactions the
//! method has a bound that no type meets, so that the compiler refuses the call with the bound's
//! message.

use std::marker::PhantomData;
use std::ops::Deref;

#[cfg(feature = "sqlx")]
use sqlx_core::{
    connection::Connection,
    database::Database,
    executor::Executor,
    pool::{Pool, PoolConnection},
    transaction::Transaction,
};

/// Types whose statements each commit by themselves. No connection is one, because its caller may
/// have begun a transaction.
#[diagnostic::on_unimplemented(
    message = "`#[invalidates]` acts when the function returns, and through `{Self}` that may be before the caller's transaction commits",
    label = "may be part of a transaction",
    note = "begin and commit inside the function, or add `after_commit` and call it inside `Cache::after_commit`; if no caller is in a transaction, add `autocommit(..)`"
)]
pub trait CommitsByItself {}

/// Types that read committed data only. No connection is one, because its caller may have begun a
/// transaction.
#[diagnostic::on_unimplemented(
    message = "what is read through `{Self}` may never be committed, and would be served to everybody",
    label = "may be part of a transaction",
    note = "read from the pool; if no caller is in a transaction, add `autocommit(..)`"
)]
pub trait ReadsWhatIsCommitted {}

macro_rules! links {
    ($($link:ident $(=> $next:ident)?;)*) => {$(
        #[doc(hidden)]
        #[derive(Debug)]
        pub struct $link<T: ?Sized>(PhantomData<fn(&T)>);

        $(impl<T: ?Sized> Deref for $link<T> {
            type Target = $next<T>;

            fn deref(&self) -> &$next<T> {
                &$next(PhantomData)
            }
        })?
    )*};
}

links! {
    Connections => ConnectionsMut;
    ConnectionsMut => Transactions;
    Transactions => Pooled;
    Pooled => Pools;
    Pools => Executors;
    Executors => Others;
    Others;
}

/// The start of the chain for the type of `value`.
pub fn through<T: ?Sized>(_: &T) -> Connections<T> {
    Connections(PhantomData)
}

#[cfg(feature = "sqlx")]
impl<C: Connection> Connections<C> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        C: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        C: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'a, C: Connection> ConnectionsMut<&'a mut C> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        &'a mut C: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        &'a mut C: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'a, 'c, DB: Database> Transactions<&'a mut Transaction<'c, DB>> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        &'a mut Transaction<'c, DB>: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        &'a mut Transaction<'c, DB>: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'c, DB: Database> Transactions<Transaction<'c, DB>> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        Transaction<'c, DB>: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        Transaction<'c, DB>: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<DB: Database> Pooled<PoolConnection<DB>> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        PoolConnection<DB>: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        PoolConnection<DB>: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<DB: Database> Pools<Pool<DB>> {
    /// Each statement through a pool commits by itself.
    pub fn settled(&self) {}

    /// A pool reads committed data only.
    pub fn committed(&self) {}
}

#[cfg(feature = "sqlx")]
impl<DB: Database> Pools<&Pool<DB>> {
    /// Each statement through a pool commits by itself.
    pub fn settled(&self) {}

    /// A pool reads committed data only.
    pub fn committed(&self) {}
}

#[cfg(feature = "sqlx")]
impl<'e, E: Executor<'e>> Executors<E> {
    /// Does not compile: no type meets the bound.
    pub fn settled(&self)
    where
        E: CommitsByItself,
    {
    }

    /// Does not compile: no type meets the bound.
    pub fn committed(&self)
    where
        E: ReadsWhatIsCommitted,
    {
    }
}

impl<T: ?Sized> Others<T> {
    /// Any other type is accepted.
    pub fn settled(&self) {}

    /// Any other type is accepted.
    pub fn committed(&self) {}
}
