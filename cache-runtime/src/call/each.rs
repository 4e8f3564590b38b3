//! The ids in `ids = ids`. Their container is only borrowed, be it a list, a slice, a pointer to
//! one, or a reference to such a pointer, as `result` is.
//!
//! [`each`] has its method once for each kind of container, as inherent methods on a chain of types
//! that dereference into each other (like `Shape`).

use std::iter::Empty;
use std::ops::Deref;

/// The container of the ids.
#[must_use]
pub fn each<T: ?Sized>(ids: &T) -> Each<'_, T> {
    Each(Copied(Pointed(Cloned(Behind(Referred(Unknown(ids)))))))
}

/// A list or a set.
#[derive(Debug)]
pub struct Each<'a, T: ?Sized>(Copied<'a, T>);

/// A reference to one.
#[derive(Debug)]
pub struct Copied<'a, T: ?Sized>(Pointed<'a, T>);

/// A smart pointer to one.
#[derive(Debug)]
pub struct Pointed<'a, T: ?Sized>(Cloned<'a, T>);

/// An iterator, such as a range.
#[derive(Debug)]
pub struct Cloned<'a, T: ?Sized>(Behind<'a, T>);

/// A reference to a smart pointer.
#[derive(Debug)]
pub struct Behind<'a, T: ?Sized>(Referred<'a, T>);

/// A reference to an iterator.
#[derive(Debug)]
pub struct Referred<'a, T: ?Sized>(Unknown<'a, T>);

/// None of these.
#[derive(Debug)]
pub struct Unknown<'a, T: ?Sized>(&'a T);

/// A type that can be iterated. Nothing implements this trait, because the types that can be
/// iterated are handled before; it exists for its error message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not hold many ids",
    label = "cannot be iterated",
    note = "write `id = ..` for one row; `ids` takes a list, a set, or an iterator such as `ids.iter()`"
)]
pub trait ManyIds {}

impl<'a, T: ?Sized> Each<'a, T>
where
    &'a T: IntoIterator,
{
    /// The ids.
    pub fn __each(&self) -> <&'a T as IntoIterator>::IntoIter {
        self.0.0.0.0.0.0.0.into_iter()
    }
}

impl<T: Copy + IntoIterator> Copied<'_, T> {
    /// The ids.
    pub fn __each(&self) -> T::IntoIter {
        (*self.0.0.0.0.0.0).into_iter()
    }
}

impl<'a, T: Deref> Pointed<'a, T>
where
    &'a T::Target: IntoIterator,
{
    /// The ids.
    pub fn __each(&self) -> <&'a T::Target as IntoIterator>::IntoIter {
        let ids: &'a T = self.0.0.0.0.0;
        (&**ids).into_iter()
    }
}

impl<T: Clone + IntoIterator> Cloned<'_, T> {
    /// The ids. The body gets the iterator as it was.
    pub fn __each(&self) -> T::IntoIter {
        self.0.0.0.0.clone().into_iter()
    }
}

impl<'a, T: Deref> Behind<'a, T>
where
    T::Target: Deref + 'a,
    &'a <T::Target as Deref>::Target: IntoIterator,
{
    /// The ids.
    pub fn __each(&self) -> <&'a <T::Target as Deref>::Target as IntoIterator>::IntoIter {
        let ids: &'a T = self.0.0.0;
        (&***ids).into_iter()
    }
}

impl<T: Deref> Referred<'_, T>
where
    T::Target: Clone + IntoIterator,
{
    /// The ids. The body gets the iterator as it was.
    pub fn __each(&self) -> <T::Target as IntoIterator>::IntoIter {
        (**self.0.0).clone().into_iter()
    }
}

impl<T: ?Sized> Unknown<'_, T> {
    /// There are no ids.
    pub fn __each(&self) -> Empty<()>
    where
        T: ManyIds,
    {
        std::iter::empty()
    }
}

impl<'a, T: ?Sized> Deref for Each<'a, T> {
    type Target = Copied<'a, T>;

    fn deref(&self) -> &Copied<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Deref for Copied<'a, T> {
    type Target = Pointed<'a, T>;

    fn deref(&self) -> &Pointed<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Deref for Pointed<'a, T> {
    type Target = Cloned<'a, T>;

    fn deref(&self) -> &Cloned<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Deref for Cloned<'a, T> {
    type Target = Behind<'a, T>;

    fn deref(&self) -> &Behind<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Deref for Behind<'a, T> {
    type Target = Referred<'a, T>;

    fn deref(&self) -> &Referred<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Deref for Referred<'a, T> {
    type Target = Unknown<'a, T>;

    fn deref(&self) -> &Unknown<'a, T> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn containers_of_ids_are_iterated() {
        fn all<'i>(ids: impl IntoIterator<Item = &'i i64>) -> Vec<i64> {
            ids.into_iter().copied().collect()
        }
        let list = vec![1, 2];
        let (slice, array, set) = (list.as_slice(), [1, 2], BTreeSet::from([1, 2]));
        let (shared, boxed): (Arc<[i64]>, Box<[i64]>) = ([1, 2].into(), [1, 2].into());
        let (of_list, of_set) = (&list, &set);
        let one = Some(1);
        assert_eq!(all(each(&list).__each()), [1, 2]);
        assert_eq!(all(each(&slice).__each()), [1, 2]);
        assert_eq!(all(each(&array).__each()), [1, 2]);
        assert_eq!(all(each(&set).__each()), [1, 2]);
        assert_eq!(all(each(&shared).__each()), [1, 2]);
        assert_eq!(all(each(&boxed).__each()), [1, 2]);
        assert_eq!(all(each(&of_list).__each()), [1, 2]);
        assert_eq!(all(each(&of_set).__each()), [1, 2]);
        assert_eq!(all(each(&one).__each()), [1]);
        let (range, iterator) = (1..3, list.iter().filter(|id| **id > 1));
        assert_eq!(each(&range).__each().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(all(each(&iterator).__each()), [2]);
    }

    /// A parameter may be a reference already, and `result` always is.
    #[test]
    fn references_to_containers_of_ids_are_iterated() {
        fn all<'i>(ids: impl IntoIterator<Item = &'i i64>) -> Vec<i64> {
            ids.into_iter().copied().collect()
        }
        let mut list = vec![1, 2];
        let (array, shared): (_, Arc<[i64]>) = ([1, 2], [1, 2].into());
        let set = Arc::new(BTreeSet::from([1, 2]));
        let (boxed, cow): (Box<[i64]>, _) = ([1, 2].into(), Cow::Borrowed(&array[..]));
        assert_eq!(all(each(&&array).__each()), [1, 2]);
        assert_eq!(all(each(&&shared).__each()), [1, 2]);
        assert_eq!(all(each(&&set).__each()), [1, 2]);
        assert_eq!(all(each(&&boxed).__each()), [1, 2]);
        assert_eq!(all(each(&&cow).__each()), [1, 2]);
        assert_eq!(all(each(&&array[..]).__each()), [1, 2]);
        assert_eq!(all(each(&&&list).__each()), [1, 2]);
        assert_eq!(all(each(&&Some(1)).__each()), [1]);
        let (range, iterator) = (1..3, list.iter().filter(|id| **id > 1));
        assert_eq!(each(&&range).__each().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(all(each(&&iterator).__each()), [2]);
        assert_eq!(all(each(&&mut list).__each()), [1, 2]);
    }
}
