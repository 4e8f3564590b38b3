//! Types without `Debug`: their size tells whether a field is left out.

use super::*;

#[derive(Serialize)]
struct Skips {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

#[derive(Serialize, Hash)]
struct Hashed {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Alike {
    A(u64),
    B(u64),
    C { id: u64 },
    D { id: u64 },
    G,
    H,
}

#[derive(Serialize)]
struct Whole {
    a: u8,
    b: u64,
    c: Option<String>,
    d: [u16; 3],
    e: Filled,
    f: Vec<u32>,
}

#[derive(Serialize, Clone)]
enum Filled {
    Pair(u32, u32),
    Both { a: u32, b: u16, c: u16 },
}

#[derive(Serialize, Clone)]
enum Plain {
    Nothing,
    Id(u64),
    Pair(u8, u32),
    Both { a: u8, b: String },
}

#[derive(Serialize, Clone)]
#[serde(tag = "kind")]
enum Tagged {
    Id { id: u64, name: String },
}

#[derive(Serialize)]
struct Name(String);

#[derive(Serialize)]
#[serde(transparent)]
struct Slug(String);

#[test]
fn without_a_text_the_size_tells_what_is_left_out() {
    let of = |tenant| found!(Skips { id: 1, tenant });
    assert!(matches!(of(1), ArgumentCheck::Unknown(text) if text.contains("8 bytes")));
    let of = |tenant| found!(Hashed { id: 1, tenant });
    assert_apart(&of(1), &of(2));
    let of = |tenant| found!(vec![Hashed { id: 1, tenant }]);
    assert_apart(&of(1), &of(2));
    for (at, alike) in [
        found!(Alike::A(1)),
        found!(Alike::B(1)),
        found!(Alike::C { id: 1 }),
        found!(Alike::D { id: 1 }),
        found!(Alike::G),
        found!(Alike::H),
        found!(vec![Alike::A(1)]),
        found!(vec![Skips { id: 1, tenant: 2 }]),
        found!(Some(Skips { id: 1, tenant: 2 })),
        found!((1, [Skips { id: 1, tenant: 2 }])),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            matches!(alike, ArgumentCheck::Unknown(_)),
            "{at}: {alike:?}"
        );
    }
    for variant in [
        Plain::Nothing,
        Plain::Id(1),
        Plain::Pair(1, 2),
        Plain::Both {
            a: 1,
            b: "x".into(),
        },
    ] {
        assert!(
            matches!(found!(variant.clone()), ArgumentCheck::Unknown(_))
                || matches!(variant, Plain::Both { .. }),
            "a smaller variant than the enum may hide a field"
        );
    }
    for e in [Filled::Pair(1, 2), Filled::Both { a: 1, b: 2, c: 3 }] {
        let whole = Whole {
            a: 1,
            b: 2,
            c: Some("x".into()),
            d: [1, 2, 3],
            e,
            f: vec![1],
        };
        assert_eq!(found!(whole), ArgumentCheck::Whole);
    }
    assert_eq!(found!(Name("x".into())), ArgumentCheck::Whole);
    assert_eq!(found!(vec![Name("x".into())]), ArgumentCheck::Whole);
    let tagged = Tagged::Id {
        id: 1,
        name: "x".into(),
    };
    // It may be written otherwise than it is, and another variant may have the same tag.
    for (at, finding) in [found!(Slug("x".into())), found!(tagged)]
        .into_iter()
        .enumerate()
    {
        assert!(
            matches!(finding, ArgumentCheck::Unknown(_)),
            "{at}: {finding:?}"
        );
    }
    fn generic<T: Serialize>(value: T) -> ArgumentCheck {
        found!(value)
    }
    assert_eq!(generic(UserId(1)), ArgumentCheck::Whole);
    assert!(matches!(
        generic(super::Skips { id: 1, tenant: 1 }),
        ArgumentCheck::Unknown(_)
    ));
}

/// Padding in a `#[repr(C)]` struct is not a field.
#[test]
fn room_that_alignment_needs_is_none_of_a_field() {
    #[derive(Serialize)]
    #[repr(C)]
    struct Padded {
        a: u8,
        id: u64,
        b: u16,
        c: u32,
    }
    #[derive(Serialize, Debug, Clone)]
    #[repr(C)]
    struct Shown(u8, u64, u8);
    #[derive(Serialize)]
    #[repr(C, align(64))]
    struct Wide {
        a: u8,
        padded: Padded,
        last: u8,
    }
    let padded = |id| Padded {
        a: 1,
        id,
        b: 2,
        c: 3,
    };
    assert_eq!(found!(padded(1)), ArgumentCheck::Whole);
    assert_eq!(found!(Shown(1, 2, 3)), ArgumentCheck::Whole);
    let wide = Wide {
        a: 1,
        padded: padded(1),
        last: 2,
    };
    assert_eq!(found!(wide), ArgumentCheck::Whole);
}

/// A field that is left out is larger than alignment needs, in either order of fields.
#[test]
fn room_that_alignment_does_not_need_is_a_field() {
    #[derive(Serialize)]
    #[repr(C)]
    struct Padded {
        a: u8,
        #[serde(skip)]
        tenant: u64,
        b: u8,
    }
    #[derive(Serialize)]
    struct Ordered {
        id: u64,
        #[serde(skip)]
        tenant: u32,
        page: u16,
    }
    #[derive(Serialize)]
    struct First {
        #[serde(skip)]
        tenant: u64,
        id: u64,
    }
    let unknown = |finding, bytes: &str| {
        assert!(
            matches!(&finding, ArgumentCheck::Unknown(text) if text.contains(bytes)),
            "{finding:?}"
        );
    };
    let padded = Padded {
        a: 1,
        tenant: 2,
        b: 3,
    };
    unknown(found!(padded), "bytes of");
    let ordered = Ordered {
        id: 1,
        tenant: 2,
        page: 3,
    };
    unknown(found!(ordered), "6 bytes");
    unknown(found!(First { tenant: 1, id: 2 }), "8 bytes");
}

/// serde writes a variant whose only field is skipped like one without fields.
#[test]
fn the_fields_of_a_variant_that_serialises_none() {
    #[derive(Serialize)]
    struct Holds {
        scope: Variants,
    }
    for of in [
        |by| found!(Variants::Four(by)),
        |by| found!(vec![Variants::Four(by)]),
        |by| found!(Some(Variants::Four(by))),
        |by| found!((1, Variants::Four(by))),
    ] as [fn(u64) -> ArgumentCheck; 4]
    {
        assert_apart(&of(1), &of(2));
    }
    let unknown = found!(Holds {
        scope: Variants::Four(1)
    });
    assert!(matches!(unknown, ArgumentCheck::Unknown(_)), "{unknown:?}");
    assert_eq!(found!(Variants::Nothing), ArgumentCheck::Whole);
}

/// A value that may hide something, without `Debug` and `Hash`, bypasses the cache.
#[test]
fn without_a_text_what_no_size_shows_is_unknown() {
    #[derive(Serialize, Clone)]
    struct Skips {
        id: u64,
        #[serde(skip)]
        tenant: u64,
    }
    #[derive(Serialize)]
    struct List {
        items: Vec<Skips>,
    }
    #[derive(Serialize)]
    struct Boxed {
        item: Box<Skips>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Ids {
        Users(Vec<u64>),
        Teams(Vec<u64>),
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Of {
        User(Option<u64>),
        Team(Option<u64>),
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Pair {
        A(u64, u64),
        B(u64, u64),
    }
    #[derive(Serialize)]
    struct Page {
        skip: u64,
        limit: u64,
    }
    #[derive(Serialize)]
    struct Query {
        #[serde(flatten)]
        page: Page,
        #[serde(skip)]
        tenant: u64,
    }
    #[derive(Serialize)]
    enum Scope {
        Everybody,
        Tenant(#[serde(skip)] u64),
        Team {
            id: u64,
            #[serde(skip)]
            tenant: u64,
        },
        Both(u64, u64),
    }
    #[derive(Serialize)]
    #[serde(transparent)]
    struct List2(Vec<u64>);
    let skips = || Skips { id: 1, tenant: 1 };
    let page = || Page { skip: 0, limit: 10 };
    for (at, finding) in [
        found!(List {
            items: vec![skips()]
        }),
        found!(Boxed {
            item: Box::new(skips())
        }),
        found!(Arc::new(skips())),
        found!(Ids::Users(vec![1])),
        found!(Ids::Teams(Vec::new())),
        found!(Of::User(Some(1))),
        found!(Of::Team(None)),
        found!(Pair::A(1, 2)),
        found!(Pair::B(1, 2)),
        found!(Query {
            page: page(),
            tenant: 1
        }),
        found!(Scope::Everybody),
        found!(Scope::Tenant(1)),
        found!(Scope::Team { id: 1, tenant: 2 }),
        found!(List2(vec![1])),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            matches!(finding, ArgumentCheck::Unknown(_)),
            "{at}: {finding:?}"
        );
    }

    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        page: Page,
        id: u64,
    }
    #[derive(Serialize)]
    enum Order {
        Up,
        Down,
    }
    for (at, finding) in [
        found!(Flat {
            page: page(),
            id: 1
        }),
        found!(Order::Up),
        found!(Order::Down),
        found!(Scope::Both(1, 2)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(finding, ArgumentCheck::Whole, "{at}");
    }
}
