//! The same for values that codecs lose something of, each in its own way: what a cache returns is
//! what the function returned.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, RedisConfig, cached};
use cache_tests::RedisServer;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::seed;

/// Some of it comes back from each codec, and none of it from all of them.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
struct Sample {
    number: f64,
    patch: Option<Option<u8>>,
    unit: Option<()>,
    #[serde(skip)]
    secret: String,
    /// 7 is left out, and read back as 0.
    #[serde(default, skip_serializing_if = "is_seven")]
    count: u32,
    any: Vec<Any>,
    big: BTreeMap<String, u128>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Whole(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Nothing,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_seven(count: &u32) -> bool {
    *count == 7
}

fn sample(of: u64) -> Sample {
    let mut rng = Rng::with_seed(of);
    let any = (0..rng.usize(..3)).map(|_| match rng.u32(..5) {
        0 => Any::Whole(1),
        1 => Any::Float(1.0),
        2 => Any::Text(String::new()),
        3 => Any::Bytes(vec![1, 2]),
        _ => Any::Nothing,
    });
    Sample {
        any: any.collect(),
        number: [0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0][rng.usize(..5)],
        patch: [None, Some(None), Some(Some(1))][rng.usize(..3)],
        unit: [None, Some(())][rng.usize(..2)],
        secret: ["", "hash"][rng.usize(..2)].into(),
        count: rng.u32(6..9),
        big: (0..rng.u128(..2))
            .map(|n| (n.to_string(), u128::MAX - n))
            .collect(),
    }
}

#[cached(resource = "samples", op = "json", cache = cache, skip(cache))]
async fn in_json(cache: &Cache, of: u64) -> Sample {
    sample(of)
}

#[cached(resource = "samples", op = "msgpack", codec = "msgpack", cache = cache, skip(cache))]
async fn in_msgpack(cache: &Cache, of: u64) -> Result<Sample, ()> {
    Ok(sample(of))
}

#[cached(resource = "samples", op = "postcard", codec = "postcard", version = 1, cache = cache, skip(cache))]
async fn in_postcard(cache: &Cache, of: u64) -> Option<Sample> {
    Some(sample(of))
}

#[cached(resource = "samples", op = "float", cache = cache, skip(cache))]
async fn float(cache: &Cache, of: u64) -> f64 {
    sample(of).number
}

#[cached(resource = "samples", op = "nested", cache = cache, skip(cache))]
async fn nested(cache: &Cache, of: u64) -> Option<Option<Option<u8>>> {
    Some(sample(of).patch)
}

#[tokio::test]
async fn values_that_a_codec_loses_are_returned_unchanged() {
    let server = RedisServer::start();
    let over = |namespace: &str| {
        let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port()));
        config
            .namespace(namespace)
            .command_budget(Duration::from_secs(5))
    };
    let test = TestCache::new();
    let caches = [
        ("off", Cache::new(CacheConfig::default()).await),
        ("test", test.clone()),
        (
            "memory",
            Cache::new(CacheConfig::default().local_mb(8)).await,
        ),
        ("redis", Cache::new(over("one:")).await),
        ("both", Cache::new(over("two:").local_mb(8)).await),
    ];
    for of in (0..60).map(|n| n + 1_000 * seed()) {
        let right = sample(of);
        for (name, cache) in &caches {
            for turn in 0..3 {
                let at = format!("{name}, sample {of}, call {turn}");
                let shown = [
                    format!("{:?}", in_json(cache, of).await),
                    format!("{:?}", in_msgpack(cache, of).await.ok().unwrap_or_default()),
                    format!("{:?}", in_postcard(cache, of).await.unwrap_or_default()),
                ];
                for shown in shown {
                    assert_eq!(shown, format!("{right:?}"), "{at}");
                }
                let number = float(cache, of).await;
                assert_eq!(number.to_bits(), right.number.to_bits(), "{at}");
                assert_eq!(nested(cache, of).await, Some(right.patch), "{at}");
            }
        }
    }
}
