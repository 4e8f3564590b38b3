//! What is checked: the design in several scenarios, and each variant in one that refutes it.

use super::store::Key;
use super::writer::Kind;
use super::{NOTHING_OF_ANOTHER, NOTHING_STALE, Scenario, Variant};
use crate::check;

/// Both kinds of entries, and both kinds of plain writes.
const PLAIN: Scenario = Scenario {
    variant: Variant::Design,
    readers: [Key::Entity, Key::List],
    writers: [Kind::Whole, Kind::Row],
    reads: [2, 2],
    is_torn: false,
    evictions: 1,
    has_late_message: false,
    has_copies: false,
    has_errors: false,
};

/// Two rows, and somebody who copies entries.
const COPIED: Scenario = Scenario {
    readers: [Key::Entity, Key::Other],
    writers: [Kind::Whole, Kind::CrashSafeWhole],
    reads: [2, 1],
    has_copies: true,
    ..PLAIN
};

/// Entry and generations are read one by one.
const TORN: Scenario = Scenario {
    reads: [2, 1],
    is_torn: true,
    ..PLAIN
};

/// Two readers of one key, who meet each other's leases and join each other's loads.
const TOGETHER: Scenario = Scenario {
    readers: [Key::Entity, Key::Entity],
    writers: [Kind::Row, Kind::Whole],
    reads: [2, 1],
    has_late_message: true,
    ..PLAIN
};

/// One reader, and writes with intents, which a late message may disturb.
const INTENDED: Scenario = Scenario {
    readers: [Key::List, Key::List],
    writers: [Kind::CrashSafeWhole, Kind::CrashSafeWhole],
    reads: [2, 0],
    has_late_message: true,
    ..PLAIN
};

/// Two readers, and writes with intents of which one may be left behind.
const INTENDED_TOGETHER: Scenario = Scenario {
    reads: [2, 1],
    evictions: 0,
    has_late_message: false,
    ..INTENDED
};

/// More than a test should take.
const ALL_AT_ONCE: Scenario = Scenario {
    has_late_message: true,
    has_errors: true,
    ..PLAIN
};

fn holds(scenario: Scenario, at_least: usize) {
    check::holds(scenario, at_least);
}

fn is_caught(scenario: Scenario) {
    assert_ne!(scenario.variant, Variant::Design);
    check::is_caught(scenario, NOTHING_STALE);
}

mod the_design_holds {
    use super::*;

    #[test]
    fn for_plain_writes_whose_errors_hide_commits() {
        let has_errors = true;
        holds(
            Scenario {
                has_errors,
                ..PLAIN
            },
            1_000_000,
        );
    }

    #[test]
    fn for_an_invalidation_that_arrives_late() {
        holds(
            Scenario {
                evictions: 0,
                has_late_message: true,
                ..PLAIN
            },
            300_000,
        );
    }

    #[test]
    fn for_readers_who_join_each_other() {
        holds(TOGETHER, 500_000);
    }

    #[test]
    fn for_looks_in_any_order() {
        for readers in [[Key::Entity, Key::Entity], [Key::List, Key::Entity]] {
            holds(Scenario { readers, ..TORN }, 200_000);
        }
        holds(
            Scenario {
                readers: [Key::List, Key::List],
                reads: [1, 1],
                ..TORN
            },
            200_000,
        );
    }

    #[test]
    fn for_entries_that_are_copied() {
        holds(COPIED, 100_000);
    }

    #[test]
    fn for_intents_and_a_late_message() {
        use Kind::{CrashSafeRow, CrashSafeWhole, Row, Whole};
        for writers in [
            [Whole, CrashSafeWhole],
            [Whole, CrashSafeRow],
            [Row, CrashSafeWhole],
            [Row, CrashSafeRow],
            [CrashSafeWhole, CrashSafeWhole],
            [CrashSafeWhole, CrashSafeRow],
            [CrashSafeRow, CrashSafeWhole],
            [CrashSafeRow, CrashSafeRow],
        ] {
            holds(
                Scenario {
                    writers,
                    ..INTENDED
                },
                40_000,
            );
        }
    }

    #[test]
    fn for_intents_and_two_readers() {
        for writers in [
            [Kind::Whole, Kind::CrashSafeRow],
            [Kind::Row, Kind::CrashSafeWhole],
        ] {
            for key in [Key::Entity, Key::List] {
                let readers = [key; 2];
                holds(
                    Scenario {
                        writers,
                        readers,
                        ..INTENDED_TOGETHER
                    },
                    50_000,
                );
            }
        }
    }

    #[test]
    #[ignore = "takes minutes, and gigabytes"]
    fn for_all_at_once() {
        for writers in [
            [Kind::Whole, Kind::Row],
            [Kind::Whole, Kind::CrashSafeWhole],
            [Kind::Row, Kind::CrashSafeRow],
            [Kind::CrashSafeWhole, Kind::CrashSafeRow],
        ] {
            let has_errors = !writers[1].is_crash_safe();
            holds(
                Scenario {
                    writers,
                    has_errors,
                    ..ALL_AT_ONCE
                },
                1_000_000,
            );
        }
    }
}

/// The design's section 4 names the first seven.
mod what_is_caught {
    use super::*;

    #[test]
    fn storing_with_plain_set() {
        is_caught(Scenario {
            variant: Variant::PlainSet,
            ..PLAIN
        });
    }

    #[test]
    fn joining_by_key() {
        is_caught(Scenario {
            variant: Variant::JoinByKey,
            ..TOGETHER
        });
    }

    #[test]
    fn a_lease_without_a_stamp() {
        is_caught(Scenario {
            variant: Variant::LeaseWithoutStamp,
            ..TOGETHER
        });
    }

    #[test]
    fn counting_intents() {
        is_caught(Scenario {
            variant: Variant::CountedIntents,
            ..INTENDED
        });
    }

    #[test]
    fn a_bump_that_drops_intents_of_others() {
        is_caught(Scenario {
            variant: Variant::BumpDropsIntents,
            writers: [Kind::Whole, Kind::CrashSafeWhole],
            ..INTENDED
        });
    }

    #[test]
    fn an_intent_at_the_entity_only() {
        is_caught(Scenario {
            variant: Variant::IntentAtEntityOnly,
            writers: [Kind::Row, Kind::CrashSafeRow],
            ..INTENDED
        });
    }

    #[test]
    fn a_stamp_computed_at_fill() {
        is_caught(Scenario {
            variant: Variant::StampAtFill,
            ..PLAIN
        });
    }

    #[test]
    fn reading_while_an_invalidation_is_pending() {
        is_caught(Scenario {
            variant: Variant::ReadsWhilePending,
            ..TOGETHER
        });
    }

    #[test]
    fn one_invalidation_after_an_error() {
        is_caught(Scenario {
            variant: Variant::ErrorInvalidatesOnce,
            has_errors: true,
            ..PLAIN
        });
    }

    #[test]
    fn a_stamp_without_the_key() {
        let variant = Variant::StampWithoutKey;
        check::is_caught(Scenario { variant, ..COPIED }, NOTHING_OF_ANOTHER);
    }
}
