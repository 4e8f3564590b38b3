//! Finds an argument that may be part of its caller's transaction, by its type.
//!
//! The macro knows connections and transactions by the names of types and bounds. An alias
//! (`type Link = PgConnection`) and a trait of the program's own (`trait Db: Executor<'static>`) have
//! other names. So it asks here, with a chain of inherent methods as in [`Shape`](crate::shape):
//! what is a connection for SQLx has a method whose bound nothing meets, and the compiler says why.

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

/// What commits each of its statements by itself. No connection does, as its caller may have begun a
/// transaction.
#[diagnostic::on_unimplemented(
    message = "`#[invalidates]` acts when the function returns, and through `{Self}` that may be before the caller's transaction commits",
    label = "may be part of a transaction",
    note = "begin and commit inside the function, or add `after_commit` and call it inside `Cache::after_commit`; if no caller is in a transaction, add `autocommit(..)`"
)]
pub trait CommitsByItself {}

/// What sees nothing but what is committed. No connection does, as its caller may have begun a
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
    /// There is no such type.
    pub fn settled(&self)
    where
        C: CommitsByItself,
    {
    }

    /// There is no such type.
    pub fn committed(&self)
    where
        C: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'a, C: Connection> ConnectionsMut<&'a mut C> {
    /// There is no such type.
    pub fn settled(&self)
    where
        &'a mut C: CommitsByItself,
    {
    }

    /// There is no such type.
    pub fn committed(&self)
    where
        &'a mut C: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'a, 'c, DB: Database> Transactions<&'a mut Transaction<'c, DB>> {
    /// There is no such type.
    pub fn settled(&self)
    where
        &'a mut Transaction<'c, DB>: CommitsByItself,
    {
    }

    /// There is no such type.
    pub fn committed(&self)
    where
        &'a mut Transaction<'c, DB>: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<'c, DB: Database> Transactions<Transaction<'c, DB>> {
    /// There is no such type.
    pub fn settled(&self)
    where
        Transaction<'c, DB>: CommitsByItself,
    {
    }

    /// There is no such type.
    pub fn committed(&self)
    where
        Transaction<'c, DB>: ReadsWhatIsCommitted,
    {
    }
}

#[cfg(feature = "sqlx")]
impl<DB: Database> Pooled<PoolConnection<DB>> {
    /// There is no such type.
    pub fn settled(&self)
    where
        PoolConnection<DB>: CommitsByItself,
    {
    }

    /// There is no such type.
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

    /// A pool reads what is committed.
    pub fn committed(&self) {}
}

#[cfg(feature = "sqlx")]
impl<DB: Database> Pools<&Pool<DB>> {
    /// Each statement through a pool commits by itself.
    pub fn settled(&self) {}

    /// A pool reads what is committed.
    pub fn committed(&self) {}
}

#[cfg(feature = "sqlx")]
impl<'e, E: Executor<'e>> Executors<E> {
    /// There is no such type.
    pub fn settled(&self)
    where
        E: CommitsByItself,
    {
    }

    /// There is no such type.
    pub fn committed(&self)
    where
        E: ReadsWhatIsCommitted,
    {
    }
}

impl<T: ?Sized> Others<T> {
    /// Nothing is known of it.
    pub fn settled(&self) {}

    /// Nothing is known of it.
    pub fn committed(&self) {}
}
