//! Decides which values are stored.

/// Decides which values are not stored.
pub trait StoreFilter<V> {
    /// Returns true if `value` must not be stored.
    fn refuses(self, value: &V) -> bool;
}

/// Stores every value.
#[derive(Debug)]
pub struct StoreAll;

impl<V> StoreFilter<V> for StoreAll {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

/// Stores the values that its function does not refuse. It also holds how to call the function. So
/// the compiler reports a wrong function where it is passed, and not again where the body runs.
#[derive(Debug)]
pub struct StoreUnless<F, C> {
    refuses: F,
    call: C,
}

/// For a function that is called once.
pub(super) type StoreUnlessOnce<F, V> = StoreUnless<F, fn(F, &V) -> bool>;

/// For a function that is called for each of many values.
pub(super) type StoreUnlessEach<F, V> = StoreUnless<F, fn(&F, &V) -> bool>;

impl<F, V> StoreUnlessOnce<F, V> {
    pub(super) fn once(refuses: F) -> Self
    where
        F: FnOnce(&V) -> bool,
    {
        let call = |refuses: F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<F, V> StoreUnlessEach<F, V> {
    pub(super) fn each(refuses: F) -> Self
    where
        F: Fn(&V) -> bool,
    {
        let call = |refuses: &F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<V, F> StoreFilter<V> for StoreUnlessOnce<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(self.refuses, value)
    }
}

impl<V> StoreFilter<V> for &StoreAll {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

impl<V, F> StoreFilter<V> for &StoreUnlessEach<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(&self.refuses, value)
    }
}
