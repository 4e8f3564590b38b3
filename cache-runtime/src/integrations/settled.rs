//! Recognises an argument that may be part of its caller's transaction, by its type.
//!
//! The macro recognises connections and transactions by the names of their types and bounds. An
//! alias (`type Link = PgConnection`) or a trait of the program's own
//! (`trait Db: Executor<'static>`) has another name. So the generated code also asks the compiler,
//! with a chain of inherent methods as in [`Shape`](crate::shape); containers and locks are looked
//! into three levels deep. For SQLx's connections and transactions the method has a bound that no
//! type meets, so that the compiler refuses the call with the bound's message.

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
    Pools => Held;
    Held => HeldBehind;
    HeldBehind => HeldTwice;
    HeldTwice => HeldTwiceBehind;
    HeldTwiceBehind => HeldThrice;
    HeldThrice => HeldThriceBehind;
    HeldThriceBehind => Executors;
    Executors => Others;
    Others;
}

/// The start of the chain for the type of `value`.
pub fn through<T: ?Sized>(_: &T) -> Connections<T> {
    Connections(PhantomData)
}

/// The start of the chain for a type.
pub fn through_type<T: ?Sized>() -> Connections<T> {
    Connections(PhantomData)
}

/// A type that gives access to one inside it.
pub trait Holds {
    /// The type inside.
    type Inside;
}

macro_rules! holds {
    ($($holder:ty),* $(,)?) => {$(
        impl<T> Holds for $holder {
            type Inside = T;
        }
    )*};
}

holds! {
    Option<T>, Box<T>, Vec<T>, &[T], &mut [T], &T, &mut T,
    std::rc::Rc<T>, std::sync::Arc<T>, std::pin::Pin<Box<T>>, std::mem::ManuallyDrop<T>,
    std::cell::RefCell<T>, std::cell::Cell<T>, std::cell::RefMut<'_, T>,
    std::sync::Mutex<T>, std::sync::MutexGuard<'_, T>,
    std::sync::RwLock<T>, std::sync::RwLockWriteGuard<'_, T>,
    tokio::sync::Mutex<T>, tokio::sync::MutexGuard<'_, T>, tokio::sync::OwnedMutexGuard<T>,
    tokio::sync::RwLock<T>, tokio::sync::RwLockWriteGuard<'_, T>,
    tokio::sync::OwnedRwLockWriteGuard<T>,
}

/// The methods of a link whose types may be in a transaction.
macro_rules! refused {
    ($(<$($param:tt),*> $link:ident<$of:ty> where [$($bounds:tt)+];)*) => {$(
        #[cfg(feature = "sqlx")]
        impl<$($param),*> $link<$of> where $($bounds)+ {
            /// Does not compile: no type meets the bound.
            pub fn __settled(&self)
            where
                $of: CommitsByItself,
            {
            }

            /// Does not compile: no type meets the bound.
            pub fn __committed(&self)
            where
                $of: ReadsWhatIsCommitted,
            {
            }

            /// Whether the type is refused.
            pub fn is_refused(&self) -> bool {
                true
            }
        }
    )*};
}

refused! {
    <C> Connections<C> where [C: Connection];
    <'a, C> ConnectionsMut<&'a mut C> where [C: Connection];
    <'a, 'c, DB> Transactions<&'a mut Transaction<'c, DB>> where [DB: Database];
    <'c, DB> Transactions<Transaction<'c, DB>> where [DB: Database];
    <'a, DB> Pooled<&'a mut PoolConnection<DB>> where [DB: Database];
    <DB> Pooled<PoolConnection<DB>> where [DB: Database];
    // Transactions and the connections of a pool dereference to a connection.
    <W> Held<W> where [W: Holds<Inside: Connection>];
    <W> HeldBehind<W> where [W: Holds<Inside: Deref<Target: Connection>>];
    <W> HeldTwice<W> where [W: Holds<Inside: Holds<Inside: Connection>>];
    <W> HeldTwiceBehind<W> where [W: Holds<Inside: Holds<Inside: Deref<Target: Connection>>>];
    <W> HeldThrice<W> where [W: Holds<Inside: Holds<Inside: Holds<Inside: Connection>>>];
    <W> HeldThriceBehind<W>
        where [W: Holds<Inside: Holds<Inside: Holds<Inside: Deref<Target: Connection>>>>];
    <'e, E> Executors<E> where [E: Executor<'e>];
}

/// The methods of a link whose types may not.
macro_rules! accepted {
    ($($(#[$when:meta])? <$($param:tt),*> $link:ident<$of:ty> where [$($bounds:tt)+];)*) => {$(
        $(#[$when])?
        impl<$($param),*> $link<$of> where $($bounds)+ {
            /// Each statement commits by itself.
            pub fn __settled(&self) {}

            /// The data that is read is committed.
            pub fn __committed(&self) {}

            /// Whether the type is refused.
            pub fn is_refused(&self) -> bool {
                false
            }
        }
    )*};
}

accepted! {
    #[cfg(feature = "sqlx")]
    <DB> Pools<Pool<DB>> where [DB: Database];
    #[cfg(feature = "sqlx")]
    <'a, DB> Pools<&'a Pool<DB>> where [DB: Database];
    <T> Others<T> where [T: ?Sized];
}

#[cfg(all(test, feature = "sqlx"))]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use sqlx::{Executor, PgConnection, Pool, Postgres, Transaction, pool::PoolConnection};
    use tokio::sync::Mutex;

    use super::through_type;

    type Link = PgConnection;
    type Work<'a> = &'a mut Transaction<'a, Postgres>;
    type Shared = Arc<Mutex<Option<Transaction<'static, Postgres>>>>;

    trait Db: Executor<'static> {}

    impl Db for &'static mut PgConnection {}

    fn of_a_bound<E: Db>() -> bool {
        through_type::<E>().is_refused()
    }

    fn of_a_reference<C>() -> bool
    where
        for<'e> &'e mut C: Executor<'e>,
    {
        through_type::<&mut C>().is_refused()
    }

    #[test]
    fn connections_are_found_behind_aliases_and_inside_of_containers() {
        assert!(through_type::<Link>().is_refused());
        assert!(through_type::<&mut Link>().is_refused());
        assert!(through_type::<Work<'_>>().is_refused());
        assert!(through_type::<Transaction<'_, Postgres>>().is_refused());
        assert!(through_type::<PoolConnection<Postgres>>().is_refused());
        assert!(through_type::<&mut PoolConnection<Postgres>>().is_refused());
        assert!(through_type::<Option<Link>>().is_refused());
        assert!(through_type::<Option<Work<'_>>>().is_refused());
        assert!(through_type::<Mutex<Link>>().is_refused());
        assert!(through_type::<Mutex<PoolConnection<Postgres>>>().is_refused());
        assert!(through_type::<Arc<Mutex<Link>>>().is_refused());
        assert!(through_type::<RefCell<Option<PoolConnection<Postgres>>>>().is_refused());
        assert!(through_type::<Shared>().is_refused());
        assert!(through_type::<Vec<&mut Link>>().is_refused());
        assert!(of_a_reference::<Link>());
        assert!(of_a_bound::<&mut Link>());
        assert!(through_type::<&mut [Link]>().is_refused());
    }

    // A pool whose statements are each committed, and data.
    #[test]
    fn pools_and_data_are_accepted() {
        assert!(!through_type::<Pool<Postgres>>().is_refused());
        assert!(!through_type::<&Pool<Postgres>>().is_refused());
        assert!(!through_type::<Option<Pool<Postgres>>>().is_refused());
        assert!(!through_type::<Arc<Pool<Postgres>>>().is_refused());
        assert!(!through_type::<String>().is_refused());
        assert!(!through_type::<str>().is_refused());
        assert!(!through_type::<Vec<Option<i64>>>().is_refused());
    }
}
