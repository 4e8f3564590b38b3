//! Names that are only ever compared for equality.

/// A random 128-bit name in the runtime; here a number whose value means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Nonce(u8);

impl Nonce {
    /// One that no state holds, for a step to hand out.
    pub(crate) const FRESH: Self = Self(254);
    /// Another one, for a step that hands out two.
    pub(crate) const FRESH_TOO: Self = Self(255);

    /// One of those with which a model begins.
    pub(crate) const fn nth(n: u8) -> Self {
        Self(n)
    }
}

/// Gives nonces new names, in the order in which they are met.
///
/// States that differ in the names of their nonces only are one state. Without this there would be
/// no end of them, since every invalidation makes a new nonce.
#[derive(Debug)]
pub(crate) struct Names {
    by_old: [u8; 256],
    next: u8,
}

impl Names {
    pub(crate) fn none_yet() -> Self {
        Self {
            by_old: [0; 256],
            next: 1,
        }
    }
}

/// Whatever holds nonces.
pub(crate) trait Rename {
    fn rename(&mut self, names: &mut Names);
}

impl Rename for Nonce {
    fn rename(&mut self, names: &mut Names) {
        let name = &mut names.by_old[usize::from(self.0)];
        if *name == 0 {
            *name = names.next;
            names.next += 1;
        }
        self.0 = *name;
    }
}

impl<T: Rename> Rename for Option<T> {
    fn rename(&mut self, names: &mut Names) {
        if let Some(it) = self {
            it.rename(names);
        }
    }
}

impl<T: Rename, const N: usize> Rename for [T; N] {
    fn rename(&mut self, names: &mut Names) {
        self.iter_mut().for_each(|it| it.rename(names));
    }
}
