//! What the dashboard and the rules name is there: asked of a real Prometheus that scrapes the
//! demo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cache_tests::{Demo, Postgres, Process, RedisServer, eventually, free_port};
use rustix::process::Signal;
use serde_json::Value;

use crate::SOON;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
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

/// Expressions of the dashboard without an answer here, and why.
const UNANSWERED: [(&str, &str); 0] = [];

/// An expression of the dashboard, as Grafana asks it.
fn filled_in(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "30s")
        .replace("$cache", ".*")
        .replace("$resource", ".*")
}

/// Calls of each kind: misses, hits, local hits, invalidations, and what is swept after them.
async fn traffic(demo: &Demo) {
    for id in 1..20 {
        for _ in 0..3 {
            demo.get(&format!("/users/{id}")).await;
        }
        demo.get(&format!("/users?skip={id}&limit=5")).await;
    }
    let price = serde_json::json!({"name": "Lamp", "category": "light", "price": 7.5, "stock": 3});
    demo.put("/products/1", &price).await;
    demo.delete("/products/999999").await;
    demo.delete("/cache/users").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_every_query_of_the_dashboard() {
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
        traffic(&demo).await;
        let calls = prometheus.query("rate(cache_calls_total[10s]) > 0").await;
        !calls.is_empty()
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
    for name in expressions.iter().flat_map(|it| metrics_in(it)) {
        assert!(known.contains(&name.as_str()), "{name} in {known:?}");
    }

    // The same number of rows from the time that there are two scrapes with each of them.
    let mut unanswered = expressions.clone();
    let answered = tokio::time::timeout(SOON, async {
        loop {
            traffic(&demo).await;
            let mut left = Vec::new();
            for expression in unanswered {
                if !has_answer(&prometheus.query(&filled_in(&expression)).await) {
                    left.push(expression);
                }
            }
            unanswered = left;
            let excused = |it: &String| UNANSWERED.iter().any(|(part, _)| it.contains(part));
            if unanswered.iter().all(excused) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let is_answered = answered.await.is_ok();
    if std::env::var_os("CACHE_SHOW").is_some() {
        for expression in &expressions {
            show(&prometheus, &filled_in(expression)).await;
        }
    }
    let mut silent = Vec::new();
    for expression in &expressions {
        let rows = prometheus.query(&filled_in(expression)).await;
        if !has_answer(&rows) {
            silent.push(format!("{expression}: {rows:?}"));
        }
    }
    assert!(is_answered, "without an answer now: {silent:#?}");
    let ratio = prometheus.query("sum(cache_hit_ratio) >= 0").await;
    assert_eq!(ratio.len(), 1);
    let recorded = async || !prometheus.query("cache:hit_ratio:5m").await.is_empty();
    eventually(SOON, recorded).await;
}

/// Whether there is a number in it.
fn has_answer(rows: &[Value]) -> bool {
    let mut values = rows.iter().filter_map(|row| row["value"][1].as_str());
    values.any(|value| value.parse::<f64>().is_ok_and(|value| !value.is_nan()))
}

async fn show(prometheus: &Prometheus, query: &str) {
    let rows = prometheus.query(query).await;
    let values: Vec<_> = rows
        .iter()
        .map(|row| format!("{} = {}", row["metric"], row["value"][1]))
        .collect();
    println!("{query}\n    {}", values.join("\n    "));
}

/// While nothing is loaded, since the cache answers everything, it saves most.
#[test]
fn the_load_time_that_is_saved_is_known_while_nothing_is_loaded() {
    let text = std::fs::read_to_string(docs().join("grafana/cache.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut panels = panels.iter();
    let saved = panels.find(|panel| panel["title"] == "Saved load time");
    let expression = saved.expect("the panel")["targets"][0]["expr"].as_str();
    let expression = filled_in(expression.expect("a query")).replace("[30s]", "[5m]");
    let series = |name: &str, labels: &str, values: &str| {
        serde_json::json!({
            "series": format!(r#"{name}{{cache="", resource="users"{labels}}}"#),
            "values": values,
        })
    };
    // Ten loads of 0.2 s in the first minute, and then 60 hits a minute.
    let cases = serde_json::json!({
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("cache_calls_total", r#", outcome="hit""#, "0+60x60"),
                series("cache_load_duration_seconds_sum", "", "2x60"),
                series("cache_load_duration_seconds_count", "", "10x60"),
            ],
            "promql_expr_test": [{
                "expr": expression,
                "eval_time": "30m",
                "exp_samples": [{"labels": r#"{resource="users"}"#, "value": 0.2}],
            }],
        }],
    });
    let directory = tempfile::tempdir().expect("a directory");
    // JSON is YAML.
    std::fs::write(directory.path().join("cases.yml"), cases.to_string()).expect("written");
    let done = Command::new("promtool")
        .args(["test", "rules", "cases.yml"])
        .current_dir(directory.path())
        .output()
        .expect("install Debian's package `prometheus`");
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
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
