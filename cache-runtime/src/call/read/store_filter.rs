//! Decides which values are stored.

/// Decides which values are not stored.
pub trait Unless<V> {
    /// Returns true if `value` must not be stored.
    fn refuses(self, value: &V) -> bool;
}

/// Stores every value.
#[derive(Debug)]
pub struct Everything;

impl<V> Unless<V> for Everything {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

/// Stores the values that its function does not refuse. It also holds how to call the function. So
/// the compiler reports a wrong function where it is passed, and not again where the body runs.
#[derive(Debug)]
pub struct AllBut<F, C> {
    refuses: F,
    call: C,
}

/// For a function that is called once.
pub(super) type AllButOnce<F, V> = AllBut<F, fn(F, &V) -> bool>;

/// For a function that is called for each of many values.
pub(super) type AllButEach<F, V> = AllBut<F, fn(&F, &V) -> bool>;

impl<F, V> AllButOnce<F, V> {
    pub(super) fn once(refuses: F) -> Self
    where
        F: FnOnce(&V) -> bool,
    {
        let call = |refuses: F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<F, V> AllButEach<F, V> {
    pub(super) fn each(refuses: F) -> Self
    where
        F: Fn(&V) -> bool,
    {
        let call = |refuses: &F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<V, F> Unless<V> for AllButOnce<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(self.refuses, value)
    }
}

impl<V> Unless<V> for &Everything {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

impl<V, F> Unless<V> for &AllButEach<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(&self.refuses, value)
    }
}
