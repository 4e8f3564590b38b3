//! Cached functions that are not `async`: threads share loads, and nothing waits for Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{BypassReason, Cache, Status, cached, invalidates, key_of, observe};
use cache_tests::RedisServer;

use crate::{over, patient};

struct Templates {
    cache: Cache,
    begun: AtomicU32,
    loads: AtomicU32,
    gate: std::sync::Mutex<()>,
}

impl Templates {
    #[cached(resource = "templates", cache = self.cache)]
    fn get(&self, name: &str) -> Result<Option<String>, std::num::ParseIntError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _held = self.gate.lock();
        self.loads.fetch_add(1, Ordering::SeqCst);
        let number: i64 = name.parse()?;
        if number < 0 {
            return Ok(None);
        }
        Ok(Some(format!("<p>{number}</p>")))
    }

    #[invalidates("templates", cache = self.cache)]
    async fn change(&self) {}
}

impl Templates {
    fn new(cache: &Cache) -> Arc<Self> {
        Arc::new(Self {
            cache: cache.clone(),
            begun: AtomicU32::new(0),
            loads: AtomicU32::new(0),
            gate: std::sync::Mutex::default(),
        })
    }
}

/// A loop over messages uses up what its task may do at a time; then it blocks its thread.
#[test]
fn a_task_that_has_used_up_its_budget_is_woken() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = runtime.block_on(Cache::new(patient().local_mb(4)));
    let templates = Templates::new(&cache);
    let held = templates.gate.lock().expect("sound");
    let thread = std::thread::spawn({
        let templates = Arc::clone(&templates);
        move || templates.get("7")
    });
    while templates.begun.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let (ended, has_ended) = std::sync::mpsc::channel();
    let (about_to_wait, waits) = std::sync::mpsc::channel();
    runtime.spawn({
        let templates = Arc::clone(&templates);
        async move {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for message in 0..1_000 {
                sender.send(message).expect("open");
            }
            // Tokio lets a task do 128 such things before it has to yield.
            for _ in 0..128 {
                receiver.recv().await;
            }
            about_to_wait.send(()).expect("awaited");
            ended.send(templates.get("7")).expect("awaited");
        }
    });
    waits.recv().expect("about to wait");
    drop(held);
    let value = has_ended.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(value.expect("woken"), Ok(Some("<p>7</p>".into())));
    thread.join().expect("ran").expect("loaded");
}

/// Without a runtime around it.
#[test]
fn threads_share_a_load() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cache = runtime.block_on(Cache::new(patient().local_mb(4)));
    let templates = Templates::new(&cache);
    let held = templates.gate.lock().expect("sound");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let templates = Arc::clone(&templates);
            std::thread::spawn(move || templates.get("7"))
        })
        .collect();
    // Whether they wait by then or come later, one of them runs it.
    drop(held);
    for thread in threads {
        let value = thread.join().expect("ran").expect("loaded");
        assert_eq!(value.as_deref(), Some("<p>7</p>"));
    }
    assert_eq!(templates.loads.load(Ordering::SeqCst), 1);
    assert_eq!(templates.get("-1"), Ok(None));
    assert_eq!(templates.get("-1"), Ok(None));
    assert_eq!(templates.loads.load(Ordering::SeqCst), 2);
    assert!(templates.get("x").is_err() && templates.get("x").is_err());
    assert_eq!(
        templates.loads.load(Ordering::SeqCst),
        4,
        "errors are not kept"
    );
    runtime.block_on(templates.change());
    templates.get("7").expect("loaded");
    assert_eq!(templates.loads.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_blocking_call_does_not_ask_redis() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let templates = Templates::new(&cache);
    let (_, outcomes) = observe(async { templates.get("7") }).await;
    assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::Blocking));
    assert_eq!(server.cli(&["KEYS", "*templates*"]).trim(), "");
}

struct Rates {
    cache: Cache,
}

impl Rates {
    #[cached(resource = "ttls", cache = self.cache)]
    fn seconds(&self, kind: u8) -> u64 {
        60 * u64::from(kind)
    }

    #[cached(resource = "rates", ttl = self.seconds(kind), cache = self.cache)]
    async fn rate(&self, kind: u8) -> u8 {
        kind
    }
}

#[tokio::test]
async fn a_call_in_an_attribute_leaves_no_key() {
    let cache = Cache::new(patient().local_mb(4)).await;
    let rates = Rates { cache };
    let key = key_of(rates.rate(1)).expect("a key");
    assert_eq!(key.resource(), "rates");
}
