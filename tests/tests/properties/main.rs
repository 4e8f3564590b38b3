//! What holds for any bytes, tried with a few thousand of them: the kept corpus of the fuzz
//! targets, the same with damage, and bytes drawn at random from a fixed seed. `scripts/fuzz` tries
//! many more, and adds to the corpus.

pub mod holds;

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// How many are drawn, and how often a file of the corpus is damaged.
const DRAWN: usize = 3_000;
const DAMAGED: usize = 8;
const LONGEST: usize = 400;

/// Shows the input in which something did not hold.
struct Tried<'a>(&'a str, &'a [u8]);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "`{}` does not hold for {:?}",
                self.0,
                self.1.escape_ascii().to_string()
            );
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("it can be read"))
        .collect()
}

fn check(name: &str) {
    let (_, holds) = holds::TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("there is such a target");
    let attempt = |bytes: &[u8]| {
        let _tried = Tried(name, bytes);
        holds(bytes);
    };
    let mut rng = Rng::with_seed(6);
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for kept in &corpus {
        attempt(kept);
        for _ in 0..DAMAGED {
            let mut bytes = kept.clone();
            for _ in 0..rng.usize(1..4) {
                if let Some(byte) = rng.choice(&mut bytes) {
                    *byte = rng.u8(..);
                }
            }
            attempt(&bytes);
        }
    }
    for _ in 0..DRAWN {
        let length = rng.usize(..LONGEST);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        attempt(&bytes);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn each_has_its_fuzz_target_and_none_is_left_out() {
            assert_eq!(holds::TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            for name in [$(stringify!($name)),*] {
                assert!(folder.join(format!("{name}.rs")).exists(), "{name}");
            }
        }
    };
}

targets! { config entry filter generation keys }
