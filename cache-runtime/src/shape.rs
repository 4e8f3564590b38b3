//! Finds the shape of a return type, and starts a call with it.
//!
//! Method lookup does it, in two steps. [`Shape`] has `__form` once per form of return type, as
//! inherent methods on a chain of types that dereference into each other. The form has `__read` once
//! per way to compare its values, on a chain as well. Method lookup takes the first link that fits.
//! This works in generic functions and through type aliases, and needs no trait in scope.
//!
//! The compiler checks each link up to the one that fits, again in each annotated function. So forms
//! that exclude each other share a link. One chain of all forms by all ways was up to 48 links long,
//! and took half of the time of `cargo check`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::cache::{Cache, process};
use crate::call::read::{Batch, Read, ReadPlan};
#[cfg(test)]
use crate::call::returns::ReturnShape;
use crate::call::returns::{Fallible, Inner, Optional, Owned, Shared};
use crate::call::write::{Never, Unchanged, Write, WritePlan};
use crate::key::KeyPart;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{AsEncoded, AsEqual, AsShown, AsText};
use crate::registry::Site;

/// The type of a write that does not inspect its return value `R`.
type PlainWrite<R, S> = Write<R, S, Never<R, S>, Unchanged<R, S>>;

/// The links of a chain, each with the forms of return type that it knows, the most specific first.
///
/// The bounds are on the value, not on the form's [`Returns`](crate::call::returns::Returns), which
/// follows from them. So for a value that can't be cached, the compiler names just that.
/// `PartialEq` and `Debug` are bounds of the whole `impl`, since method lookup then goes on to the
/// next link where they are missing.
macro_rules! shapes {
    ($($of:ident $(=> $next:ident)? {
        $($link:ident: <$value:ident $(, $error:ident)*> $form:ty as $shape:ident $(for $reads:ident)?;)*
    })*) => {
        $(
            #[doc(hidden)]
            #[derive(Debug)]
            pub struct $of<R>(PhantomData<fn() -> R>);

            $(impl<R> Deref for $of<R> {
                type Target = $next<R>;

                fn deref(&self) -> &Self::Target {
                    &$next(PhantomData)
                }
            })?

            $(shapes!(@form $of $link <$value $(, $error)*> $form as $shape $(for $reads)?);)*
        )*
    };
    (@form $of:ident $link:ident <$value:ident $(, $error:ident)*> $form:ty as $shape:ident $(for $reads:ident)?) => {
        #[doc(hidden)]
        #[derive(Debug)]
        pub struct $link<R, C>(PhantomData<fn() -> (R, C)>);

        impl<R> Deref for $link<R, AsShown> {
            type Target = $link<R, AsEqual>;

            fn deref(&self) -> &Self::Target {
                &$link(PhantomData)
            }
        }

        impl<R> Deref for $link<R, AsEqual> {
            type Target = $link<R, AsText>;

            fn deref(&self) -> &Self::Target {
                &$link(PhantomData)
            }
        }

        impl<R> Deref for $link<R, AsText> {
            type Target = $link<R, AsEncoded>;

            fn deref(&self) -> &Self::Target {
                &$link(PhantomData)
            }
        }

        impl<$value $(, $error)*> $of<$form> {
            /// The form, which has the methods of reads.
            #[inline]
            pub const fn __form(&self) -> $link<$form, AsShown> {
                $link(PhantomData)
            }
        }

        shapes!(@write $of <$value $(, $error)*> $form as $shape $(for $reads)?);
        shapes!(@read $link <$value: PartialEq + Debug $(, $error)*> $form as $shape by AsShown);
        shapes!(@read $link <$value: PartialEq $(, $error)*> $form as $shape by AsEqual);
        shapes!(@read $link <$value: Debug $(, $error)*> $form as $shape by AsText);
        shapes!(@read $link <$value $(, $error)*> $form as $shape by AsEncoded);
    };
    (@write $of:ident <$value:ident $(, $error:ident)*> $form:ty as $shape:ident for reads) => {
        shapes!(@write_as $of <$value $(, $error)*> $form as Fallible<Inner>);
    };
    (@write $of:ident <$value:ident $(, $error:ident)*> $form:ty as $shape:ident) => {
        shapes!(@write_as $of <$value $(, $error)*> $form as $shape<AsEncoded>);
    };
    (@write_as $of:ident <$value:ident $(, $error:ident)*> $form:ty as $shape:ty) => {
        impl<$value $(, $error)*> $of<$form> {
            /// Starts a call of an invalidating function on the process-wide cache.
            #[inline]
            pub fn __write(
                &self,
                site: &'static Site,
                plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
            ) -> PlainWrite<$form, $shape> {
                Write::new(process().handle(), site, plan)
            }

            /// Like [`__write`](Self::__write), on the given cache.
            #[inline]
            pub fn __write_in(
                &self,
                cache: &impl AsRef<Cache>,
                site: &'static Site,
                plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
            ) -> PlainWrite<$form, $shape> {
                Write::new(cache.as_ref().handle(), site, plan)
            }
        }
    };
    (@read $link:ident <$value:ident $(: $bound:ident $(+ $also:ident)?)? $(, $error:ident)*> $form:ty as $shape:ident by $compare:ident) => {
        impl<$value $(: $bound $(+ $also)?)? $(, $error)*> $link<$form, $compare> {
            #[cfg(test)]
            #[allow(dead_code, reason = "tests ask for some of the forms")]
            pub(crate) fn kind(&self) -> ReturnShape<$form, $shape<$compare>> {
                ReturnShape::OF
            }

            /// Starts a call of a cached function on the process-wide cache. `plan` runs only if
            /// that is on, and before the arguments move into the body.
            #[inline]
            pub fn __read(
                &self,
                site: &'static Site,
                resource: &'static str,
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Read<$form, $shape<$compare>>
            where
                $value: Cacheable,
            {
                Read::new(process().engine(), site, resource, plan)
            }

            /// Like [`__read`](Self::__read), on the given cache.
            #[inline]
            pub fn __read_in(
                &self,
                cache: &impl AsRef<Cache>,
                site: &'static Site,
                resource: &'static str,
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Read<$form, $shape<$compare>>
            where
                $value: Cacheable,
            {
                Read::new(cache.as_ref().engine(), site, resource, plan)
            }
        }
    };
}

/// Finds the shape of the return type `R`; see the module's documentation.
#[derive(Debug)]
pub struct Shape<R>(PhantomData<fn() -> R>);

impl<R> Deref for Shape<R> {
    type Target = OfOptionalPointer<R>;

    fn deref(&self) -> &Self::Target {
        &OfOptionalPointer(PhantomData)
    }
}

type ToTwiceFallibleOptionalShared<C> = Fallible<Fallible<Optional<Shared<C>>>>;
type ToTwiceFallibleOptional<C> = Fallible<Fallible<Optional<Owned<C>>>>;
type ToTwiceFallibleShared<C> = Fallible<Fallible<Shared<C>>>;
type ToTwiceFallible<C> = Fallible<Fallible<Owned<C>>>;
type ToFallibleOptionalShared<C> = Fallible<Optional<Shared<C>>>;
type ToFallibleOptional<C> = Fallible<Optional<Owned<C>>>;
type ToFallibleShared<C> = Fallible<Shared<C>>;
type ToFallible<C> = Fallible<Owned<C>>;
type ToOptionalShared<C> = Optional<Shared<C>>;
type ToOptional<C> = Optional<Owned<C>>;

// For writes, the forms for reads are one: `result` is the inner `Result`.
shapes! {
    OfOptionalPointer => OfOptionOrPointer {
        TwiceFallibleOptionalShared: <T, I, E> Result<Result<Option<Arc<T>>, I>, E> as ToTwiceFallibleOptionalShared for reads;
        FallibleOptionalShared: <T, E> Result<Option<Arc<T>>, E> as ToFallibleOptionalShared;
        OptionalShared: <T> Option<Arc<T>> as ToOptionalShared;
    }
    OfOptionOrPointer => OfResultInResult {
        TwiceFallibleOptional: <T, I, E> Result<Result<Option<T>, I>, E> as ToTwiceFallibleOptional for reads;
        TwiceFallibleShared: <T, I, E> Result<Result<Arc<T>, I>, E> as ToTwiceFallibleShared for reads;
        FallibleOptional: <T, E> Result<Option<T>, E> as ToFallibleOptional;
        FallibleShared: <T, E> Result<Arc<T>, E> as ToFallibleShared;
        OptionalOwned: <T> Option<T> as ToOptional;
        PlainShared: <T> Arc<T> as Shared;
    }
    OfResultInResult => OfResult {
        TwiceFallible: <T, I, E> Result<Result<T, I>, E> as ToTwiceFallible for reads;
    }
    OfResult => OfAny {
        FallibleOwned: <T, E> Result<T, E> as ToFallible;
    }
    OfAny {
        PlainOwned: <R> R as Owned;
    }
}

impl<R> Shape<R> {
    /// The start of the chain.
    pub const OF: Self = Self(PhantomData);
}

/// The same chain for functions that take many ids. Its last links do not name the value, so that
/// the compiler's error for another type says that it is no map.
macro_rules! batch_shapes {
    ($($link:ident $(=> $next:ident)?: <$($generic:ident $(: $bound:ident $(+ $also:ident)?)?),*> $form:ty as $shape:ty;)*) => {$(
        #[doc(hidden)]
        #[derive(Debug)]
        pub struct $link<R>(PhantomData<fn() -> R>);

        $(impl<R> Deref for $link<R> {
            type Target = $next<R>;

            fn deref(&self) -> &$next<R> {
                &$next(PhantomData)
            }
        })?

        impl<$($generic $(: $bound $(+ $also)?)?),*> $link<$form> {
            /// Starts a call of a cached function on the process-wide cache. `plan` runs only if
            /// that is on, and before the arguments move into the body.
            pub fn __read<Id: KeyPart + Clone>(
                &self,
                site: &'static Site,
                resource: &'static str,
                ids: &[Id],
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Batch<$form, $shape, Id> {
                Batch::new(process().handle(), site, resource, ids, plan)
            }

            /// Like [`__read`](Self::__read), on the given cache.
            pub fn __read_in<Id: KeyPart + Clone>(
                &self,
                cache: &impl AsRef<Cache>,
                site: &'static Site,
                resource: &'static str,
                ids: &[Id],
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Batch<$form, $shape, Id> {
                Batch::new(cache.as_ref().handle(), site, resource, ids, plan)
            }
        }
    )*};
}

/// Finds the shape of the return type `R` of a function that takes many ids.
#[derive(Debug)]
pub struct BatchShape<R>(PhantomData<fn() -> R>);

impl<R> Deref for BatchShape<R> {
    type Target = FallibleSharedHashShown<R>;

    fn deref(&self) -> &Self::Target {
        &FallibleSharedHashShown(PhantomData)
    }
}

batch_shapes! {
    FallibleSharedHashShown => FallibleSharedHashEqual: <K, V: PartialEq + Debug, H, E> Result<HashMap<K, Arc<V>, H>, E> as Fallible<Shared<AsShown>>;
    FallibleSharedHashEqual => FallibleSharedHashText: <K, V: PartialEq, H, E> Result<HashMap<K, Arc<V>, H>, E> as Fallible<Shared<AsEqual>>;
    FallibleSharedHashText => FallibleSharedHashEncoded: <K, V: Debug, H, E> Result<HashMap<K, Arc<V>, H>, E> as Fallible<Shared<AsText>>;
    FallibleSharedHashEncoded => FallibleSharedTreeShown: <K, V, H, E> Result<HashMap<K, Arc<V>, H>, E> as Fallible<Shared<AsEncoded>>;
    FallibleSharedTreeShown => FallibleSharedTreeEqual: <K, V: PartialEq + Debug, E> Result<BTreeMap<K, Arc<V>>, E> as Fallible<Shared<AsShown>>;
    FallibleSharedTreeEqual => FallibleSharedTreeText: <K, V: PartialEq, E> Result<BTreeMap<K, Arc<V>>, E> as Fallible<Shared<AsEqual>>;
    FallibleSharedTreeText => FallibleSharedTreeEncoded: <K, V: Debug, E> Result<BTreeMap<K, Arc<V>>, E> as Fallible<Shared<AsText>>;
    FallibleSharedTreeEncoded => FallibleOwnedHashShown: <K, V, E> Result<BTreeMap<K, Arc<V>>, E> as Fallible<Shared<AsEncoded>>;
    FallibleOwnedHashShown => FallibleOwnedHashEqual: <K, V: PartialEq + Debug, H, E> Result<HashMap<K, V, H>, E> as Fallible<Owned<AsShown>>;
    FallibleOwnedHashEqual => FallibleOwnedHashText: <K, V: PartialEq, H, E> Result<HashMap<K, V, H>, E> as Fallible<Owned<AsEqual>>;
    FallibleOwnedHashText => FallibleOwnedTreeShown: <K, V: Debug, H, E> Result<HashMap<K, V, H>, E> as Fallible<Owned<AsText>>;
    FallibleOwnedTreeShown => FallibleOwnedTreeEqual: <K, V: PartialEq + Debug, E> Result<BTreeMap<K, V>, E> as Fallible<Owned<AsShown>>;
    FallibleOwnedTreeEqual => FallibleOwnedTreeText: <K, V: PartialEq, E> Result<BTreeMap<K, V>, E> as Fallible<Owned<AsEqual>>;
    FallibleOwnedTreeText => FallibleMap: <K, V: Debug, E> Result<BTreeMap<K, V>, E> as Fallible<Owned<AsText>>;
    FallibleMap => SharedHashShown: <M, E> Result<M, E> as Fallible<Owned>;
    SharedHashShown => SharedHashEqual: <K, V: PartialEq + Debug, H> HashMap<K, Arc<V>, H> as Shared<AsShown>;
    SharedHashEqual => SharedHashText: <K, V: PartialEq, H> HashMap<K, Arc<V>, H> as Shared<AsEqual>;
    SharedHashText => SharedHashEncoded: <K, V: Debug, H> HashMap<K, Arc<V>, H> as Shared<AsText>;
    SharedHashEncoded => SharedTreeShown: <K, V, H> HashMap<K, Arc<V>, H> as Shared<AsEncoded>;
    SharedTreeShown => SharedTreeEqual: <K, V: PartialEq + Debug> BTreeMap<K, Arc<V>> as Shared<AsShown>;
    SharedTreeEqual => SharedTreeText: <K, V: PartialEq> BTreeMap<K, Arc<V>> as Shared<AsEqual>;
    SharedTreeText => SharedTreeEncoded: <K, V: Debug> BTreeMap<K, Arc<V>> as Shared<AsText>;
    SharedTreeEncoded => OwnedHashShown: <K, V> BTreeMap<K, Arc<V>> as Shared<AsEncoded>;
    OwnedHashShown => OwnedHashEqual: <K, V: PartialEq + Debug, H> HashMap<K, V, H> as Owned<AsShown>;
    OwnedHashEqual => OwnedHashText: <K, V: PartialEq, H> HashMap<K, V, H> as Owned<AsEqual>;
    OwnedHashText => OwnedTreeShown: <K, V: Debug, H> HashMap<K, V, H> as Owned<AsText>;
    OwnedTreeShown => OwnedTreeEqual: <K, V: PartialEq + Debug> BTreeMap<K, V> as Owned<AsShown>;
    OwnedTreeEqual => OwnedTreeText: <K, V: PartialEq> BTreeMap<K, V> as Owned<AsEqual>;
    OwnedTreeText => PlainMap: <K, V: Debug> BTreeMap<K, V> as Owned<AsText>;
    PlainMap: <R> R as Owned;
}

impl<R> BatchShape<R> {
    /// The start of the chain.
    pub const OF: Self = Self(PhantomData);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::returns::{Loaded, Returns};

    fn restore<R: Returns<S>, S>(_: ReturnShape<R, S>, value: Option<R::Value>) -> Option<R> {
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
        assert_eq!(restore(Shape::<u8>::OF.__form().kind(), Some(1)), Some(1));
        assert_eq!(restore(Shape::<u8>::OF.__form().kind(), None), None);
        assert_eq!(
            restore(Shape::<Arc<u8>>::OF.__form().kind(), Some(1)),
            Some(Arc::new(1))
        );
        assert_eq!(
            restore(Shape::<Option<u8>>::OF.__form().kind(), None),
            Some(None)
        );
        assert_eq!(
            restore(Shape::<Option<Arc<u8>>>::OF.__form().kind(), Some(1)),
            Some(Some(Arc::new(1)))
        );
        assert_eq!(
            restore(Shape::<Result<u8, NoTraits>>::OF.__form().kind(), Some(1)),
            Some(Ok(1))
        );
        assert_eq!(
            restore(Shape::<Result<u8, NoTraits>>::OF.__form().kind(), None),
            None
        );
        assert_eq!(
            restore(
                Shape::<Result<Arc<u8>, NoTraits>>::OF.__form().kind(),
                Some(1)
            ),
            Some(Ok(Arc::new(1)))
        );
        assert_eq!(
            restore(Shape::<Aliased<u8>>::OF.__form().kind(), None),
            Some(Ok(None))
        );
        assert_eq!(
            restore(Shape::<Aliased<Arc<u8>>>::OF.__form().kind(), Some(1)),
            Some(Ok(Some(Arc::new(1))))
        );
    }

    #[test]
    fn a_generic_function_sees_the_form_around_its_parameter() {
        fn absent<T: Cacheable, E>() -> Option<Result<Option<T>, E>> {
            restore(Shape::<Result<Option<T>, E>>::OF.__form().kind(), None)
        }
        assert_eq!(absent::<u8, NoTraits>(), Some(Ok(None)));
    }

    #[test]
    fn a_serialisable_error_is_an_error_all_the_same() {
        let failed: Result<u8, String> = Err("no".into());
        fn loaded<R: Returns<S>, S>(_: ReturnShape<R, S>, r: &R) -> Loaded<'_, R::Value> {
            r.loaded()
        }
        assert_eq!(
            loaded(Shape::<Result<u8, String>>::OF.__form().kind(), &failed),
            Loaded::Failed
        );
        // As of a load with a time limit.
        type Limited<T> = Result<Result<T, String>, NoTraits>;
        for failed in [Ok(Err("no".into())), Err(NoTraits)] {
            let of = Shape::<Limited<u8>>::OF.__form().kind();
            assert_eq!(loaded(of, &failed), Loaded::Failed);
        }
        assert_eq!(
            loaded(
                Shape::<Limited<Option<u8>>>::OF.__form().kind(),
                &Ok(Ok(None))
            ),
            Loaded::Absent
        );
        assert_eq!(
            restore(Shape::<Limited<Arc<u8>>>::OF.__form().kind(), Some(1)),
            Some(Ok(Ok(Arc::new(1))))
        );
    }
}
