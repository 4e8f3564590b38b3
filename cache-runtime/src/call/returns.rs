//! The return types of annotated functions, distinguished by type and not by name.
//!
//! A cached function returns `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, and
//! `Arc<T>` is allowed wherever `T` stands. (An `Arc<str>` or `Arc<[T]>` is a `T` itself, because
//! it contains no sized one.) Blanket implementations for all of them would overlap: `Option<T>` is
//! itself serialisable. So each form has a *shape*, a marker type that keeps the implementations
//! apart. [`Shape`](crate::shape::Shape) finds it.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;

use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{AsEncoded, Compare};

/// The shape of a plain `T`, whose values are compared by `C`.
#[derive(Debug)]
pub struct Owned<C = AsEncoded>(PhantomData<fn() -> C>);

/// The shape of an `Arc<T>`, whose values are compared by `C`.
#[derive(Debug)]
pub struct Shared<C = AsEncoded>(PhantomData<fn() -> C>);

/// The shape of an `Option` around another shape.
#[derive(Debug)]
pub struct Optional<S>(PhantomData<fn() -> S>);

/// The shape of a `Result` around another shape.
#[derive(Debug)]
pub struct Fallible<S>(PhantomData<fn() -> S>);

/// The shape of a `Result` that is the value of a write.
#[derive(Debug)]
pub struct Inner;

/// A return type `R` together with its shape `S`.
#[derive(Debug)]
pub struct ReturnShape<R, S>(PhantomData<fn() -> (R, S)>);

impl<R, S> Clone for ReturnShape<R, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, S> Copy for ReturnShape<R, S> {}

impl<R, S> ReturnShape<R, S> {
    pub(crate) const OF: Self = Self(PhantomData);

    /// Returns false. A body starts with `if kind.unreached() { return kind.value(); }`. From
    /// that line the compiler infers the return type of an async block, because an expected type
    /// does not reach into one, even if it is declared.
    #[must_use]
    pub fn unreached(self) -> bool {
        false
    }

    /// Never called: see [`unreached`](Self::unreached).
    #[must_use]
    pub fn value(self) -> R {
        unreachable!("stands behind `unreached`, which is false")
    }

    /// Awaits the future of a function that is not `async`. It tells the compiler the output of
    /// that future.
    pub async fn future<F: Future<Output = R>>(self, body: impl FnOnce() -> F) -> R {
        body().await
    }
}

/// The value in the return value of a cached function.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded<'a, V> {
    /// A value that may be stored.
    Value(&'a V),
    /// `None`: the function knows that there is no value.
    Absent,
    /// `Err`. It is never stored.
    Failed,
}

impl<'a, V: Cacheable> Loaded<'a, V> {
    /// A value may be a `Result` that the form of the type does not show.
    fn of(value: &'a V) -> Self {
        match value.is_error() {
            true => Self::Failed,
            false => Self::Value(value),
        }
    }
}

/// How a return type of shape `S` is stored and restored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the return type of a cached function",
    note = "a cached function returns `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, where `T` (or the `T` of an `Arc<T>`) is `Clone + Send + Sync + 'static` and implements serde's `Serialize` and `Deserialize`"
)]
pub trait Returns<S>: Sized {
    /// The stored type.
    type Value: Cacheable;
    /// How a stored value is compared with the original.
    type Compare: Compare<Self::Value>;
    /// Whether the value is behind an `Arc`.
    const SHARES: bool;

    /// Returns what can be stored.
    fn loaded(&self) -> Loaded<'_, Self::Value>;

    /// Returns the value behind an `Arc`. It clones a `T`, but only the pointer of an `Arc<T>`.
    fn share(&self) -> Option<Arc<Self::Value>>;

    /// Makes a return value from a stored value.
    fn from_value(value: Arc<Self::Value>) -> Self;

    /// Does the same for a value that is not shared.
    fn from_own(value: Self::Value) -> Self {
        Self::from_value(Arc::new(value))
    }

    /// Makes a return value from a stored absence. `None` if the type can't express an absence.
    fn from_absence() -> Option<Self>;
}

impl<T: Cacheable, C: Compare<T>> Returns<Owned<C>> for T {
    type Value = T;
    type Compare = C;
    const SHARES: bool = false;

    fn loaded(&self) -> Loaded<'_, T> {
        Loaded::of(self)
    }
    fn share(&self) -> Option<Arc<T>> {
        Some(Arc::new(self.clone()))
    }
    fn from_value(value: Arc<T>) -> Self {
        Arc::unwrap_or_clone(value)
    }
    fn from_own(value: T) -> Self {
        value
    }
    fn from_absence() -> Option<Self> {
        None
    }
}

impl<T: Cacheable, C: Compare<T>> Returns<Shared<C>> for Arc<T> {
    type Value = T;
    type Compare = C;
    const SHARES: bool = true;

    fn loaded(&self) -> Loaded<'_, T> {
        Loaded::of(self)
    }
    fn share(&self) -> Option<Arc<T>> {
        Some(Self::clone(self))
    }
    fn from_value(value: Arc<T>) -> Self {
        value
    }
    fn from_absence() -> Option<Self> {
        None
    }
}

impl<S, R: Returns<S>> Returns<Optional<S>> for Option<R> {
    type Value = R::Value;
    type Compare = R::Compare;
    const SHARES: bool = R::SHARES;

    fn loaded(&self) -> Loaded<'_, R::Value> {
        self.as_ref().map_or(Loaded::Absent, R::loaded)
    }
    fn share(&self) -> Option<Arc<R::Value>> {
        self.as_ref().and_then(R::share)
    }
    fn from_value(value: Arc<R::Value>) -> Self {
        Some(R::from_value(value))
    }
    fn from_own(value: R::Value) -> Self {
        Some(R::from_own(value))
    }
    fn from_absence() -> Option<Self> {
        Some(None)
    }
}

impl<S, R: Returns<S>, E> Returns<Fallible<S>> for Result<R, E> {
    type Value = R::Value;
    type Compare = R::Compare;
    const SHARES: bool = R::SHARES;

    fn loaded(&self) -> Loaded<'_, R::Value> {
        self.as_ref().map_or(Loaded::Failed, R::loaded)
    }
    fn share(&self) -> Option<Arc<R::Value>> {
        self.as_ref().ok().and_then(R::share)
    }
    fn from_value(value: Arc<R::Value>) -> Self {
        Ok(R::from_value(value))
    }
    fn from_own(value: R::Value) -> Self {
        Ok(R::from_own(value))
    }
    fn from_absence() -> Option<Self> {
        R::from_absence().map(Ok)
    }
}

/// The return type of a batch function: a map from ids to values, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the return type of a batch",
    label = "this is no map from ids to values",
    note = "a function with `batch = ..` returns `HashMap<K, V>` or `BTreeMap<K, V>`, where `K` is the type of the ids, or a `Result` of one; `V` (or the `V` of an `Arc<V>`) is `Clone + Send + Sync + 'static` and implements serde's `Serialize` and `Deserialize`"
)]
pub trait Gathered<S>: Sized {
    /// The type of the ids.
    type Id;
    /// The stored type of one id's value.
    type Value: Cacheable;
    /// How a stored value is compared with the original.
    type Compare: Compare<Self::Value>;

    /// Returns a map without values.
    fn empty() -> Self;
    /// Returns true if the function failed, so that nothing is known about any id.
    fn has_failed(&self) -> bool;
    /// Returns how many ids have a value.
    fn count(&self) -> usize;
    /// Returns the value of an id.
    fn get(&self, id: &Self::Id) -> Option<&Self::Value>;
    /// Returns the value of an id behind an `Arc`.
    fn share(&self, id: &Self::Id) -> Option<Arc<Self::Value>>;
    /// Adds a value. Has no effect if the function failed.
    fn insert(&mut self, id: Self::Id, value: Arc<Self::Value>);
}

macro_rules! gathered {
    ($($map:ident <$k:ident $(: $bound:path $(, $also:path)*)?; $($hasher:ident: $build:path $(, $default:path)?)?>)*) => {$(
        impl<$k $(: $bound $(+ $also)*)?, V: Cacheable, C: Compare<V>, $($hasher: $build $(+ $default)?)?> Gathered<Owned<C>>
            for $map<$k, V, $($hasher)?>
        {
            type Id = $k;
            type Value = V;
            type Compare = C;

            fn empty() -> Self {
                Self::default()
            }
            fn has_failed(&self) -> bool {
                false
            }
            fn count(&self) -> usize {
                self.len()
            }
            fn get(&self, id: &$k) -> Option<&V> {
                Self::get(self, id)
            }
            fn share(&self, id: &$k) -> Option<Arc<V>> {
                Self::get(self, id).cloned().map(Arc::new)
            }
            fn insert(&mut self, id: $k, value: Arc<V>) {
                Self::insert(self, id, Arc::unwrap_or_clone(value));
            }
        }

        impl<$k $(: $bound $(+ $also)*)?, V: Cacheable, C: Compare<V>, $($hasher: $build $(+ $default)?)?> Gathered<Shared<C>>
            for $map<$k, Arc<V>, $($hasher)?>
        {
            type Id = $k;
            type Value = V;
            type Compare = C;

            fn empty() -> Self {
                Self::default()
            }
            fn has_failed(&self) -> bool {
                false
            }
            fn count(&self) -> usize {
                self.len()
            }
            fn get(&self, id: &$k) -> Option<&V> {
                Self::get(self, id).map(|value| &**value)
            }
            fn share(&self, id: &$k) -> Option<Arc<V>> {
                Self::get(self, id).cloned()
            }
            fn insert(&mut self, id: $k, value: Arc<V>) {
                Self::insert(self, id, value);
            }
        }
    )*};
}

gathered! {
    HashMap<K: Eq, Hash; H: BuildHasher, Default>
    BTreeMap<K: Ord;>
}

impl<S, M: Gathered<S>, E> Gathered<Fallible<S>> for Result<M, E> {
    type Id = M::Id;
    type Value = M::Value;
    type Compare = M::Compare;

    fn empty() -> Self {
        Ok(M::empty())
    }
    fn has_failed(&self) -> bool {
        self.is_err()
    }
    fn count(&self) -> usize {
        self.as_ref().map_or(0, M::count)
    }
    fn get(&self, id: &M::Id) -> Option<&M::Value> {
        self.as_ref().ok().and_then(|map| map.get(id))
    }
    fn share(&self, id: &M::Id) -> Option<Arc<M::Value>> {
        self.as_ref().ok().and_then(|map| map.share(id))
    }
    fn insert(&mut self, id: M::Id, value: Arc<M::Value>) {
        if let Ok(map) = self {
            map.insert(id, value);
        }
    }
}

/// The return value of a write: enough to tell whether the write took place, and for which row.
///
/// It is implemented for every return type. Nothing has to be serialisable.
pub trait WriteReturns<S> {
    /// The type of `result` in `id = result.id`: the value inside `Ok` and `Some`.
    type Value;
    /// The argument type of `rejected = |e| ..`.
    type Error;

    /// Returns the value inside, if there is one.
    fn value(&self) -> Option<&Self::Value>;
    /// Returns the error, if the function failed.
    fn error(&self) -> Option<&Self::Error>;
    /// Returns true if any error was returned, which may hide a commit.
    fn has_failed(&self) -> bool {
        self.error().is_some()
    }
}

impl<T, C> WriteReturns<Owned<C>> for T {
    type Value = T;
    type Error = Infallible;

    fn value(&self) -> Option<&T> {
        Some(self)
    }
    fn error(&self) -> Option<&Infallible> {
        None
    }
}

/// An attribute can only name the whole `Result`.
impl<T, E> WriteReturns<Inner> for Result<T, E> {
    type Value = Self;
    type Error = Infallible;

    fn value(&self) -> Option<&Self> {
        Some(self)
    }
    fn error(&self) -> Option<&Infallible> {
        None
    }
    fn has_failed(&self) -> bool {
        self.is_err() && !crate::base::mutation::is_active("inner-errors-are-no-errors")
    }
}

impl<T, C> WriteReturns<Shared<C>> for Arc<T> {
    type Value = T;
    type Error = Infallible;

    fn value(&self) -> Option<&T> {
        Some(self)
    }
    fn error(&self) -> Option<&Infallible> {
        None
    }
}

impl<S, R: WriteReturns<S>> WriteReturns<Optional<S>> for Option<R> {
    type Value = R::Value;
    type Error = R::Error;

    fn value(&self) -> Option<&R::Value> {
        self.as_ref().and_then(R::value)
    }
    fn error(&self) -> Option<&R::Error> {
        self.as_ref().and_then(R::error)
    }
    fn has_failed(&self) -> bool {
        self.as_ref().is_some_and(R::has_failed)
    }
}

impl<S, R: WriteReturns<S>, E> WriteReturns<Fallible<S>> for Result<R, E> {
    type Value = R::Value;
    type Error = E;

    fn value(&self) -> Option<&R::Value> {
        self.as_ref().ok().and_then(R::value)
    }
    fn error(&self) -> Option<&E> {
        self.as_ref().err()
    }
    fn has_failed(&self) -> bool {
        self.as_ref().map_or(true, R::has_failed)
    }
}
