//! A part that is not serialised, and of which `Debug` shows only that it is there.

use std::hash::Hash;
use std::sync::Mutex;

use super::*;

/// A secret of this text.
#[derive(Clone, Hash)]
struct Token<const SHOWN: u8>(&'static str);

impl<const SHOWN: u8> fmt::Debug for Token<SHOWN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SHOWN {
            0 => f.write_str("[REDACTED]"),
            1 => f.debug_tuple("Token").field(&"***").finish(),
            2 => f.debug_struct("Token").finish_non_exhaustive(),
            _ => write!(f, "<hidden>"),
        }
    }
}

#[derive(Serialize, Debug)]
struct Caller<T> {
    id: u64,
    #[serde(skip)]
    token: T,
}

#[derive(Serialize, Debug, Hash)]
struct Hashed<T> {
    id: u64,
    #[serde(skip)]
    token: T,
}

#[derive(Serialize, Debug, Hash)]
enum Login {
    By(u64, #[serde(skip)] Token<0>),
}

#[test]
fn what_debug_hides_is_hashed_or_the_call_bypasses() {
    macro_rules! each {
        ($($shown:literal)*) => {$(
            let of = |text| found!(Caller { id: 1, token: Token::<$shown>(text) });
            assert!(matches!(of("a"), ArgumentCheck::Unknown(_)), "{:?}", of("a"));
            let of = |text| found!(Hashed { id: 1, token: Some(Token::<$shown>(text)) });
            assert_apart(&of("a"), &of("b"));
            assert_eq!(of("a"), of("a"));
        )*};
    }
    each!(0 1 2 3);
    let of = |text| found!(Login::By(1, Token(text)));
    assert_apart(&of("a"), &of("b"));
    let listed = found!(vec![Caller {
        id: 1,
        token: Token::<0>("a")
    }]);
    assert!(matches!(listed, ArgumentCheck::Unknown(_)), "{listed:?}");
}

#[test]
fn what_debug_shows_tells_values_apart() {
    let of = |n: u8| {
        found!(Caller {
            id: 1,
            token: (Mutex::new(n), 1..2, "a", None::<u8>)
        })
    };
    assert_apart(&of(1), &of(2));
}

#[test]
fn a_lock_shows_what_is_in_it_and_not_what_is_beside_it() {
    let beside = found!(Caller {
        id: 1,
        token: (Mutex::new(1), Token::<2>("a"))
    });
    assert!(matches!(beside, ArgumentCheck::Unknown(_)), "{beside:?}");
    let lock = Mutex::new(1);
    let held = lock.lock().expect("nobody has panicked");
    let locked = found!(Caller {
        id: 1,
        token: &lock
    });
    drop(held);
    assert!(matches!(locked, ArgumentCheck::Unknown(_)), "{locked:?}");
}
