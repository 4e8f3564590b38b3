//! Which values are worth storing.

/// Which values are not worth keeping.
pub trait Unless<V> {
    /// Whether `value` is not to be stored.
    fn refuses(self, value: &V) -> bool;
}

/// Keeps every value.
#[derive(Debug)]
pub struct Everything;

impl<V> Unless<V> for Everything {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

/// Keeps what the function in it does not refuse. It knows how to call it, so that what a wrong function lacks is
/// reported where it is given and not once more where the body runs.
#[derive(Debug)]
pub struct AllBut<F, C> {
    refuses: F,
    call: C,
}

/// Of a function that is called once.
pub(super) type AllButOnce<F, V> = AllBut<F, fn(F, &V) -> bool>;

/// Of a function that is called for each of many values.
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
