//! Metrics, as the demo serves them.

use cache_runtime::metrics::{ALL, MetricKind};
use cache_tests::{Demo, Postgres, RedisServer, eventually};

use crate::SOON;

fn demo(server: &RedisServer) -> Demo {
    let port = server.port().to_string();
    let database = Postgres::shared().database();
    Demo::start([
        ("DATABASE_URL", database.as_str()),
        ("OUTBOX", "True"),
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("CACHE_TIMEOUT_MS", "5000"),
        ("CACHE_AUDIT", "0.5"),
    ])
}

/// The value of the first series that begins like this.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn each_metric_is_served_with_its_labels_and_figures() {
    let server = RedisServer::start();
    let demo = demo(&server);
    for _ in 0..5 {
        assert_eq!(demo.get("/users/1").await.status, 200);
    }
    let renamed = serde_json::json!({"name": "Ada"});
    demo.put("/products/1", &renamed).await;
    let answer = demo.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let page = &answer.body;
    for metric in ALL {
        let declared = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let line = format!("# TYPE {} {declared}", metric.name);
        assert!(page.contains(&line), "{line} is missing in\n{page}");
    }
    let of = r#"cache="",resource="users",op="get""#;
    let calls = |outcome| {
        let lines = page.lines();
        let lines = lines.filter(|line| {
            line.starts_with("cache_calls_total{")
                && line.contains(r#"resource="users""#)
                && line.contains(&format!(r#"outcome="{outcome}""#))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    assert_eq!((calls("miss"), calls("hit")), (1.0, 4.0), "{page}");
    let loads = format!("cache_load_duration_seconds_count{{{of}");
    assert!(
        value(page, &loads).is_some_and(|loads| loads >= 1.0),
        "{page}"
    );
    eventually(SOON, async || {
        let page = demo.get("/metrics").await.body;
        value(&page, r#"cache_outbox_connected{cache=""}"#) == Some(1.0)
            && value(&page, r#"cache_outbox_connections_total{cache=""}"#) == Some(1.0)
    })
    .await;
    let closed = r#"cache_circuit_state{cache="",state="closed"}"#;
    assert_eq!(value(page, closed), Some(1.0), "{page}");
}
