//! Finds the shape of a return type, and starts a call with it.
//!
//! [`Shape`] has its methods once per form of return type, as inherent methods on a chain of types that dereference
//! into each other: method look-up takes the first that fits. That works in generic functions and through type
//! aliases, and needs no trait in scope.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::cache::{Cache, process};
use crate::key::KeyPart;
use crate::read::{Batch, Read, ReadPlan};
use crate::registry::Site;
#[cfg(test)]
use crate::returns::Kind;
use crate::returns::{Cacheable, Fallible, Optional, Owned, Shared};
use crate::write::{Never, Unchanged, Write, WritePlan};

/// What `R` is as the return type of a write that says nothing of its outcome.
type PlainWrite<R, S> = Write<R, S, Never<R, S>, Unchanged<R, S>>;

/// One link of the chain per return form, the most specific first.
///
/// What is asked of is the value, and not that the form [`Returns`](crate::returns::Returns) it, which follows: of a value that can't be cached
/// the compiler then says just that.
macro_rules! shapes {
    ($($(#[$doc:meta])* $link:ident $(=> $next:ident)?: <$value:ident $(, $error:ident)?> $form:ty as $shape:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $link<R>(PhantomData<fn() -> R>);

        $(impl<R> Deref for $link<R> {
            type Target = $next<R>;

            fn deref(&self) -> &$next<R> {
                &$next(PhantomData)
            }
        })?

        impl<$value $(, $error)?> $link<$form> {
            #[cfg(test)]
            pub(crate) fn kind(&self) -> Kind<$form, $shape> {
                Kind::OF
            }

            /// A call of a cached function, on the process-wide cache. `plan` runs only if that is on, and before the
            /// arguments move into the body.
            #[inline]
            pub fn read(
                &self,
                site: &'static Site,
                resource: &'static str,
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Read<$form, $shape>
            where
                $value: Cacheable,
            {
                Read::new(process().engine(), site, resource, plan)
            }

            /// The same on a cache of one's own.
            #[inline]
            pub fn read_in(
                &self,
                cache: &impl AsRef<Cache>,
                site: &'static Site,
                resource: &'static str,
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Read<$form, $shape>
            where
                $value: Cacheable,
            {
                Read::new(cache.as_ref().engine(), site, resource, plan)
            }

            /// A call of an invalidating function, on the process-wide cache.
            #[inline]
            pub fn write(
                &self,
                site: &'static Site,
                plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
            ) -> PlainWrite<$form, $shape> {
                Write::new(process().handle(), site, plan)
            }

            /// The same on a cache of one's own.
            #[inline]
            pub fn write_in(
                &self,
                cache: &impl AsRef<Cache>,
                site: &'static Site,
                plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
            ) -> PlainWrite<$form, $shape> {
                Write::new(cache.as_ref().handle(), site, plan)
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
    #[doc(hidden)]
    PlainOwned: <R> R as Owned;
}

impl<R> Shape<R> {
    /// The start of the chain.
    pub const OF: Self = Self(PhantomData);
}

/// The same chain for functions that take many ids.
macro_rules! batch_shapes {
    ($($(#[$doc:meta])* $link:ident $(=> $next:ident)?: <$($generic:ident),*> $form:ty as $shape:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $link<R>(PhantomData<fn() -> R>);

        $(impl<R> Deref for $link<R> {
            type Target = $next<R>;

            fn deref(&self) -> &$next<R> {
                &$next(PhantomData)
            }
        })?

        impl<$($generic),*> $link<$form> {
            /// A call of a cached function, on the process-wide cache. `plan` runs only if that is on, and before the
            /// arguments move into the body.
            pub fn read<Id: KeyPart + Clone>(
                &self,
                site: &'static Site,
                resource: &'static str,
                ids: &[Id],
                plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
            ) -> Batch<$form, $shape, Id> {
                Batch::new(process().handle(), site, resource, ids, plan)
            }

            /// The same on a cache of one's own.
            pub fn read_in<Id: KeyPart + Clone>(
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

batch_shapes! {
    /// Finds the shape of the return type `R` of a function that takes many ids.
    BatchShape => BatchFallibleTree: <K, V, H, E> Result<HashMap<K, Arc<V>, H>, E> as Fallible<Shared>;
    #[doc(hidden)]
    BatchFallibleTree => BatchFallible: <K, V, E> Result<BTreeMap<K, Arc<V>>, E> as Fallible<Shared>;
    #[doc(hidden)]
    BatchFallible => BatchHash: <M, E> Result<M, E> as Fallible<Owned>;
    #[doc(hidden)]
    BatchHash => BatchTree: <K, V, H> HashMap<K, Arc<V>, H> as Shared;
    #[doc(hidden)]
    BatchTree => BatchPlain: <K, V> BTreeMap<K, Arc<V>> as Shared;
    #[doc(hidden)]
    BatchPlain: <R> R as Owned;
}

impl<R> BatchShape<R> {
    /// The start of the chain.
    pub const OF: Self = Self(PhantomData);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::returns::{Loaded, Returns};

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
