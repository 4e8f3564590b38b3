//! What the dashboard and the rules name is there: asked of a real Prometheus that scrapes the demo.

use std::path::{Path, PathBuf};
use std::process::Command;

use cache_tests::{Demo, Postgres, Process, RedisServer, eventually, free_port};
use rustix::process::Signal;
use serde_json::Value;

use crate::SOON;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// A Prometheus that scrapes one target each second.
struct Prometheus {
    _process: Process,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(target: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let rules = docs().join("prometheus/rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             scrape_configs:\n  - job_name: demo\n    static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n",
            rules.display()
        );
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("written");
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start(&mut command, Signal::TERM, Some(directory.path()));
        Self {
            _process: process.expect("install Debian's package `prometheus`"),
            port,
            _directory: directory,
        }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        client.get(url).send().await.ok()?.json().await.ok()
    }

    /// What a query answers now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let query: String = query
            .bytes()
            .map(|byte| match byte {
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let answer = self.get(&format!("/api/v1/query?query={query}")).await;
        let answer = answer.unwrap_or_default();
        assert_ne!(answer["status"], "error", "{answer}");
        answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }
}

/// The names of metrics in an expression.
fn metrics_in(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words.filter(|word| word.starts_with("cache_"));
    words.map(str::to_owned).collect()
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| target["expr"].as_str().expect("a query").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_knows_every_metric_that_the_dashboard_names() {
    let server = RedisServer::start();
    let port = server.port().to_string();
    let database = Postgres::shared().database();
    let demo = Demo::start([
        ("DATABASE_URL", database.as_str()),
        ("OUTBOX", "True"),
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("CACHE_AUDIT", "0.2"),
    ]);
    let prometheus = Prometheus::scraping(demo.port());
    let text = std::fs::read_to_string(docs().join("grafana/cache.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 20);
    eventually(SOON, async || {
        for id in 1..20 {
            demo.get(&format!("/users/{id}")).await;
        }
        demo.delete("/products/999999").await;
        demo.delete("/cache/users").await;
        !prometheus
            .query("rate(cache_calls_total[10s]) > 0")
            .await
            .is_empty()
    })
    .await;
    let answer = prometheus
        .get("/api/v1/label/__name__/values")
        .await
        .expect("names");
    let known: Vec<&str> = answer["data"]
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for expression in &expressions {
        let names = metrics_in(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(
                known.contains(&name.as_str()),
                "{name}, of {expression}, in {known:?}"
            );
        }
        // It is understood, and most have an answer.
        let plain = expression
            .replace("$__rate_interval", "30s")
            .replace("$cache", ".*")
            .replace("$resource", ".*");
        let rows = prometheus.query(&plain).await;
        if std::env::var_os("CACHE_SHOW").is_some() {
            let values: Vec<_> = rows
                .iter()
                .map(|row| format!("{} = {}", row["metric"], row["value"][1]))
                .collect();
            println!("{plain}\n    {}", values.join("\n    "));
        }
    }
    let ratio = prometheus.query("sum(cache_hit_ratio) >= 0").await;
    assert_eq!(ratio.len(), 1);
    let recorded = async || !prometheus.query("cache:hit_ratio:5m").await.is_empty();
    eventually(SOON, recorded).await;
}

#[test]
fn promtool_accepts_the_rules_and_their_cases() {
    for (command, file) in [("check", "rules.yml"), ("test", "rules.test.yml")] {
        let done = Command::new("promtool")
            .args([command, "rules", file])
            .current_dir(docs().join("prometheus"))
            .output()
            .expect("install Debian's package `prometheus`");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
fn the_rules_name_only_metrics_that_there_are() {
    let rules = std::fs::read_to_string(docs().join("prometheus/rules.yml")).expect("rules");
    let expressions = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    for name in expressions.flat_map(metrics_in) {
        let name = name.trim_end_matches("_bucket");
        let is_known = cache_runtime::metrics::ALL
            .iter()
            .any(|metric| metric.name == name);
        assert!(is_known, "{name}");
    }
}
