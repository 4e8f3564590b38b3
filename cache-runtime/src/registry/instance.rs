//! Instances of one annotated function: for different `Self` and type parameters.

use std::any::TypeId;

use siphasher::sip::SipHasher13;

use crate::base::nonce::hash128;

/// Names an instance of a function, by a closure in it: its type differs for each `Self`, and for
/// each set of type parameters of the function or its `impl`. Lifetimes don't matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instance {
    pub(crate) id: TypeId,
    name: fn() -> &'static str,
}

impl Instance {
    #[inline]
    pub(crate) fn of_closure<P>() -> Self {
        Self {
            id: typeid::of::<P>(),
            name: std::any::type_name::<P>,
        }
    }

    /// The type or trait whose function this is, with its parameters. `None` if the function has
    /// one instance only, apart from its own type parameters.
    ///
    /// `declared` is the name of a closure in the static of the function, which knows no
    /// parameter: `Service<_>::get::__CRT::{{closure}}` beside `Service<Users>::get::{{closure}}`,
    /// and `Repository::get::..` beside `<Users as Repository>::get::..`. The compiler does not
    /// promise how it writes these names. If they never agreed, each instance would be told apart;
    /// if they always did, [`TypeId`] would tell them apart within a process.
    pub(super) fn of(self, declared: &'static str) -> Option<&'static str> {
        let declared = declared.split("::__CRT").next().unwrap_or(declared);
        let declared = surroundings(declared.trim_end_matches("::_"));
        let of = surroundings((self.name)());
        (of != declared).then_some(of)
    }

    /// A version for this one of several instances whose names are alike. It is the same in all
    /// processes of one build.
    #[cold]
    pub(super) fn version(self) -> u32 {
        let mut hasher = SipHasher13::new();
        std::hash::Hash::hash(&self.id, &mut hasher);
        // 0 stands for no version.
        (std::hash::Hasher::finish(&hasher) as u32).max(1)
    }
}

/// A version for what a function is of: the same in all processes, also of other builds.
pub(super) fn version_of(name: &str) -> u32 {
    (hash128(&[0; 16], name.as_bytes()) as u32).max(1)
}

/// The path of a function without its own name, its parameters, and the closures in it.
fn surroundings(mut name: &str) -> &str {
    while let Some(around) = name.strip_suffix("::{{closure}}") {
        name = around;
    }
    let function = without_parameters(name);
    function.rsplit_once("::").map_or("", |(around, _)| around)
}

/// Takes the last `<..>` off.
fn without_parameters(name: &str) -> &str {
    if !name.ends_with('>') {
        return name;
    }
    let mut depth = 0_usize;
    for (at, letter) in name.char_indices().rev() {
        match letter {
            // The end of an arrow is read before its dash: `fn() -> u8` closes nothing.
            '>' if !name.get(..at).is_some_and(|front| front.ends_with('-')) => depth += 1,
            '<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if letter == '<' && depth == 0 {
            let front = name.get(..at).unwrap_or(name);
            return front.strip_suffix("::").unwrap_or(front);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instance: fn() -> &'static str, declared: &'static str) -> Option<&'static str> {
        let id = TypeId::of::<()>();
        let name = instance;
        Instance { id, name }.of(declared)
    }

    #[test]
    fn a_function_that_stands_once_is_of_nothing() {
        for (instance, declared) in [
            (
                (|| "a::free::{{closure}}") as fn() -> _,
                "a::free::__CRT::{{closure}}",
            ),
            (
                || "a::Users::get::{{closure}}::{{closure}}",
                "a::Users::get::{{closure}}::__CRT::{{closure}}",
            ),
            (
                || "<u8 as a::Repo>::get::{{closure}}",
                "<u8 as a::Repo>::get::_::__CRT::{{closure}}",
            ),
            (
                || "a::Svc<u8>::get::{{closure}}",
                "a::Svc<u8>::get::__CRT::{{closure}}",
            ),
            (
                || "a::find<fn(u8) -> a::X<u8>, 3>::{{closure}}",
                "a::find::__CRT::{{closure}}",
            ),
        ] {
            assert_eq!(of(instance, declared), None, "{declared}");
        }
    }

    #[test]
    fn others_are_of_a_type() {
        assert_eq!(
            of(
                || "a::Svc<u8>::get::{{closure}}",
                "a::Svc<_>::get::__CRT::{{closure}}"
            ),
            Some("a::Svc<u8>")
        );
        assert_eq!(
            of(
                || "<a::Users as a::Repo>::get<u8>::{{closure}}",
                "a::Repo::get::__CRT::{{closure}}"
            ),
            Some("<a::Users as a::Repo>")
        );
    }

    /// As this compiler writes them.
    #[test]
    fn the_compiler_says_which_it_is() {
        trait Repo {
            fn of(&self) -> Option<&'static str> {
                static __CRT: fn() -> &'static str = name(|| ());
                with(|| ()).of(__CRT())
            }
        }
        struct Service<T>(T);
        impl<T> Service<T> {
            fn of(&self) -> Option<&'static str> {
                static __CRT: fn() -> &'static str = name(|| ());
                with(|| ()).of(__CRT())
            }
        }
        impl Service<char> {
            fn only(&self) -> Option<&'static str> {
                static __CRT: fn() -> &'static str = name(|| ());
                with(|| ()).of(__CRT())
            }
        }
        const fn name<D: Copy>(_: D) -> fn() -> &'static str {
            std::any::type_name::<D>
        }
        fn with<P>(_: P) -> Instance {
            Instance::of_closure::<P>()
        }
        impl Repo for u8 {}
        assert!(0_u8.of().is_some_and(|of| of.starts_with("<u8 as ")));
        let service = Service(0_u8);
        assert!(service.of().is_some_and(|of| of.ends_with("Service<u8>")));
        assert_eq!(Service('a').only(), None);
    }
}
