//! What an annotated function may return, told apart by the type itself and not by its name.
//!
//! A cached function returns `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, with `Arc<T>`
//! allowed wherever `T` stands. Blanket implementations for all of these would overlap (`Option<T>` is
//! itself a serialisable type), so each form has a *shape*, a marker type that keeps the implementations
//! apart. [`Shape`] finds the marker: its [`kind`](Shape::kind) is an inherent method defined once per form
//! on a chain of types that dereference into each other, and method look-up takes the first that fits.
//! That works in generic functions and through type aliases, and needs no trait in scope.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can be kept in the cache.
///
/// Implemented for every type that is `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "this is what the function would store",
    note = "a cached value is `Clone + Send + Sync + 'static` and implements serde's `Serialize` and `Deserialize` without borrowing",
    note = "add `#[derive(Clone, serde::Serialize, serde::Deserialize)]` to it, or return an owned type"
)]
pub trait Cacheable: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

// The message above is better than one that names a single missing bound.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {}

/// The shape of a plain `T`.
#[derive(Debug)]
pub struct Owned;
/// The shape of an `Arc<T>`.
#[derive(Debug)]
pub struct Shared;
/// The shape of an `Option` around another shape.
#[derive(Debug)]
pub struct Optional<S>(PhantomData<fn() -> S>);
/// The shape of a `Result` around another shape.
#[derive(Debug)]
pub struct Fallible<S>(PhantomData<fn() -> S>);

/// A return type `R` together with its shape `S`.
#[derive(Debug)]
pub struct Kind<R, S>(PhantomData<fn() -> (R, S)>);

impl<R, S> Clone for Kind<R, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R, S> Copy for Kind<R, S> {}

impl<R, S> Kind<R, S> {
    /// Never a value, but of the type `R`: a `return` of it, which is never reached, tells the compiler what a closure
    /// returns.
    #[must_use]
    pub fn unreached(self) -> Option<R> {
        None
    }
}

/// What a cached function's return value holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded<'a, V> {
    /// A value, which may be stored.
    Value(&'a V),
    /// `None`: the function knows that there is nothing.
    Absent,
    /// `Err`, which is never stored.
    Failed,
}

/// How a return type of shape `S` is stored and restored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the return type of a cached function",
    note = "a cached function returns `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, where `T` (or the `T` of an `Arc<T>`) is `Clone + Send + Sync + 'static` and implements serde's `Serialize` and `Deserialize`"
)]
pub trait Returns<S>: Sized {
    /// What is stored.
    type Value: Cacheable;

    /// What there is to store.
    fn loaded(&self) -> Loaded<'_, Self::Value>;

    /// The value as something that can be shared: clones a `T`, and only the pointer of an `Arc<T>`.
    fn share(&self) -> Option<Arc<Self::Value>>;

    /// The return value that a stored value stands for.
    fn from_value(value: Arc<Self::Value>) -> Self;

    /// The return value that a stored absence stands for; `None` if the type can't say "absent".
    fn from_absence() -> Option<Self>;
}

impl<T: Cacheable> Returns<Owned> for T {
    type Value = T;

    fn loaded(&self) -> Loaded<'_, T> {
        Loaded::Value(self)
    }
    fn share(&self) -> Option<Arc<T>> {
        Some(Arc::new(self.clone()))
    }
    fn from_value(value: Arc<T>) -> Self {
        Arc::unwrap_or_clone(value)
    }
    fn from_absence() -> Option<Self> {
        None
    }
}

impl<T: Cacheable> Returns<Shared> for Arc<T> {
    type Value = T;

    fn loaded(&self) -> Loaded<'_, T> {
        Loaded::Value(self)
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

    fn loaded(&self) -> Loaded<'_, R::Value> {
        self.as_ref().map_or(Loaded::Absent, R::loaded)
    }
    fn share(&self) -> Option<Arc<R::Value>> {
        self.as_ref().and_then(R::share)
    }
    fn from_value(value: Arc<R::Value>) -> Self {
        Some(R::from_value(value))
    }
    fn from_absence() -> Option<Self> {
        Some(None)
    }
}

impl<S, R: Returns<S>, E> Returns<Fallible<S>> for Result<R, E> {
    type Value = R::Value;

    fn loaded(&self) -> Loaded<'_, R::Value> {
        self.as_ref().map_or(Loaded::Failed, R::loaded)
    }
    fn share(&self) -> Option<Arc<R::Value>> {
        self.as_ref().ok().and_then(R::share)
    }
    fn from_value(value: Arc<R::Value>) -> Self {
        Ok(R::from_value(value))
    }
    fn from_absence() -> Option<Self> {
        R::from_absence().map(Ok)
    }
}

/// What a write returned: enough to know whether it took place, and of which row.
///
/// Implemented for every return type; nothing has to be serialisable.
pub trait Written<S> {
    /// What `result` stands for in `id = result.id`: the value inside `Ok` and `Some`.
    type Value;
    /// What `rejected = |e| ..` is given.
    type Error;

    /// The value inside, unless there is none.
    fn value(&self) -> Option<&Self::Value>;
    /// The error, if the function failed.
    fn error(&self) -> Option<&Self::Error>;
}

impl<T> Written<Owned> for T {
    type Value = T;
    type Error = Infallible;

    fn value(&self) -> Option<&T> {
        Some(self)
    }
    fn error(&self) -> Option<&Infallible> {
        None
    }
}

impl<T> Written<Shared> for Arc<T> {
    type Value = T;
    type Error = Infallible;

    fn value(&self) -> Option<&T> {
        Some(self)
    }
    fn error(&self) -> Option<&Infallible> {
        None
    }
}

impl<S, R: Written<S>> Written<Optional<S>> for Option<R> {
    type Value = R::Value;
    type Error = R::Error;

    fn value(&self) -> Option<&R::Value> {
        self.as_ref().and_then(R::value)
    }
    fn error(&self) -> Option<&R::Error> {
        self.as_ref().and_then(R::error)
    }
}

impl<S, R: Written<S>, E> Written<Fallible<S>> for Result<R, E> {
    type Value = R::Value;
    type Error = E;

    fn value(&self) -> Option<&R::Value> {
        self.as_ref().ok().and_then(R::value)
    }
    fn error(&self) -> Option<&E> {
        self.as_ref().err()
    }
}

/// One link of the chain per return form, the most specific first.
macro_rules! shapes {
    ($($(#[$doc:meta])* $link:ident => $next:ident: <$($generic:ident),*> $form:ty as $shape:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $link<R>(PhantomData<fn() -> R>);

        impl<R> Deref for $link<R> {
            type Target = $next<R>;

            fn deref(&self) -> &$next<R> {
                &$next(PhantomData)
            }
        }

        impl<$($generic),*> $link<$form> {
            /// The return type and its shape.
            #[must_use]
            pub fn kind(&self) -> Kind<$form, $shape> {
                Kind(PhantomData)
            }
        }
    )*};
}

shapes! {
    /// Finds the shape of the return type `R`; see the module's documentation.
    Shape => FallibleOptional: <T, E> Result<Option<Arc<T>>, E> as Fallible<Optional<Shared>>;
    #[doc(hidden)]
    FallibleOptional => FallibleShared: <T, E> Result<Option<T>, E> as Fallible<Optional<Owned>>;
    #[doc(hidden)]
    FallibleShared => FallibleOwned: <T, E> Result<Arc<T>, E> as Fallible<Shared>;
    #[doc(hidden)]
    FallibleOwned => OptionalShared: <T, E> Result<T, E> as Fallible<Owned>;
    #[doc(hidden)]
    OptionalShared => OptionalOwned: <T> Option<Arc<T>> as Optional<Shared>;
    #[doc(hidden)]
    OptionalOwned => PlainShared: <T> Option<T> as Optional<Owned>;
    #[doc(hidden)]
    PlainShared => PlainOwned: <T> Arc<T> as Shared;
}

#[doc(hidden)]
#[derive(Debug)]
pub struct PlainOwned<R>(PhantomData<fn() -> R>);

impl<R> PlainOwned<R> {
    /// The return type and its shape.
    #[must_use]
    pub fn kind(&self) -> Kind<R, Owned> {
        Kind(PhantomData)
    }
}

impl<R> Shape<R> {
    /// The start of the chain.
    pub const OF: Self = Self(PhantomData);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore<R: Returns<S>, S>(_: Kind<R, S>, value: Option<R::Value>) -> Option<R> {
        match value {
            Some(value) => Some(R::from_value(Arc::new(value))),
            None => R::from_absence(),
        }
    }

    type Aliased<T> = Result<Option<T>, NoTraits>;
    #[derive(Debug, PartialEq)]
    struct NoTraits;

    #[test]
    fn each_form_restores_values_and_absences() {
        assert_eq!(restore(Shape::<u8>::OF.kind(), Some(1)), Some(1));
        assert_eq!(restore(Shape::<u8>::OF.kind(), None), None);
        assert_eq!(
            restore(Shape::<Arc<u8>>::OF.kind(), Some(1)),
            Some(Arc::new(1))
        );
        assert_eq!(restore(Shape::<Option<u8>>::OF.kind(), None), Some(None));
        assert_eq!(
            restore(Shape::<Option<Arc<u8>>>::OF.kind(), Some(1)),
            Some(Some(Arc::new(1)))
        );
        assert_eq!(
            restore(Shape::<Result<u8, NoTraits>>::OF.kind(), Some(1)),
            Some(Ok(1))
        );
        assert_eq!(
            restore(Shape::<Result<u8, NoTraits>>::OF.kind(), None),
            None
        );
        assert_eq!(
            restore(Shape::<Result<Arc<u8>, NoTraits>>::OF.kind(), Some(1)),
            Some(Ok(Arc::new(1)))
        );
        assert_eq!(
            restore(Shape::<Aliased<u8>>::OF.kind(), None),
            Some(Ok(None))
        );
        assert_eq!(
            restore(Shape::<Aliased<Arc<u8>>>::OF.kind(), Some(1)),
            Some(Ok(Some(Arc::new(1))))
        );
    }

    #[test]
    fn a_generic_function_sees_the_form_around_its_parameter() {
        fn absent<T: Cacheable, E>() -> Option<Result<Option<T>, E>> {
            restore(Shape::<Result<Option<T>, E>>::OF.kind(), None)
        }
        assert_eq!(absent::<u8, NoTraits>(), Some(Ok(None)));
    }

    #[test]
    fn a_serialisable_error_is_an_error_all_the_same() {
        let failed: Result<u8, String> = Err("no".into());
        fn loaded<R: Returns<S>, S>(_: Kind<R, S>, r: &R) -> Loaded<'_, R::Value> {
            r.loaded()
        }
        assert_eq!(
            loaded(Shape::<Result<u8, String>>::OF.kind(), &failed),
            Loaded::Failed
        );
    }
}
