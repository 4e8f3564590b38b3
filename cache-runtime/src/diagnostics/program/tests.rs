use super::*;
use crate::registry::catalog::test_map;
use crate::registry::{Role, Site};

fn advice(config: CacheConfig, sites: &[Site]) -> Vec<String> {
    let config = config.catalog(test_map(sites));
    let mut report = DoctorReport::default();
    Program::of(&config).ttls(&mut report, &config);
    report
        .advice
        .into_iter()
        .map(|advice| advice.text)
        .collect()
}

fn reads(words: &'static str) -> Site {
    Site::new(Role::Reads, "rates", words)
}

fn writes(words: &'static str) -> Site {
    Site::new(Role::Writes, "write", words)
}

#[test]
fn an_op_that_no_function_has_is_named() {
    let sites = [
        reads("rates:list"),
        writes("rates, op list"),
        writes("rates, op lits"),
        writes("others, op list"),
    ];
    let config = CacheConfig::default().catalog(test_map(&sites));
    let mut report = DoctorReport::default();
    Program::of(&config).ops(&mut report);
    let [advice] = &report.advice[..] else {
        panic!("{report:?}")
    };
    assert_eq!(advice.kind, DiagnosticKind::NoSuchOp);
    assert!(advice.text.ends_with("did you mean `list`?"), "{advice}");
}

#[test]
fn entries_kept_for_a_day_and_never_invalidated_are_named_with_their_setting() {
    let day = || CacheConfig::default().default_ttl(DAY);
    let short = CacheConfig::default;
    for (config, site, setting) in [
        (short(), "rates:all, ttl 86400", "a day (`ttl` of `rates`, "),
        (
            short(),
            "rates:all, ttl 604800",
            "7 days (`ttl` of `rates`, ",
        ),
        (
            short().ttl_of("rates", DAY),
            "rates:all, ttl 5",
            "a day (CACHE_TTL_RATES)",
        ),
        (day(), "rates:all", "a day (CACHE_TTL)"),
    ] {
        let lines = advice(config, &[reads(site)]);
        assert_eq!(lines.len(), 1, "{site}: {lines:?}");
        assert!(lines[0].contains(setting), "{}", lines[0]);
    }
    for (config, sites) in [
        (short(), vec![reads("rates:all, ttl 86399")]),
        (
            short().ttl_of("rates", DAY / 2),
            vec![reads("rates:all, ttl 86400")],
        ),
        (day(), vec![reads("rates:all, ttl 60")]),
        (day(), vec![reads("rates:all"), writes("rates")]),
        (
            day(),
            vec![reads("rates:all, tag t:{a}"), writes("tag t:{b}")],
        ),
        // Their values are not known.
        (day(), vec![reads("rates:all"), writes("{R::NAME}")]),
        (day(), vec![reads("{R::NAME}:all"), writes("rates")]),
        (short(), vec![reads("rates:all, ttl {self.ttl()}")]),
    ] {
        assert_eq!(advice(config, &sites), Vec::<String>::new(), "{sites:?}");
    }
}
