//! The demo over PostgreSQL with a million users, by `wrk`: Redis and memory against the cache off.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache_tests::{Postgres, RedisServer};
use poem::listener::TcpAcceptor;
use poem::{Route, Server, endpoint::make_sync, get};

use super::{Failed, Settings};
use crate::figures::{Bound, Figure, Findings, Goal, Row, Table};
use crate::measure::median;
use crate::progress::Step;

const FIXED: &str = "a handler with a fixed body";

/// What is asked for: name, path, body, and the least gain in throughput, if there is a goal.
struct Question {
    name: &'static str,
    path: &'static str,
    body: Option<&'static str>,
    goal: Option<f64>,
}

const QUESTIONS: [Question; 5] = [
    Question {
        name: "list of 100",
        path: "/users?skip=0&limit=100",
        body: None,
        goal: Some(12.0),
    },
    Question {
        name: "filter",
        path: "/users/filter",
        body: Some(
            r#"{"conditions":[{"field":"name","op":"ilike","value":"user 77%"}],"limit":100}"#,
        ),
        goal: Some(1_000.0),
    },
    Question {
        name: "filter with count",
        path: "/users/filter-paginated",
        body: Some(r#"{"conditions":[{"field":"age","op":"gte","value":40}],"limit":20}"#),
        goal: Some(1_000.0),
    },
    Question {
        name: "paginated filter",
        path: "/users/filter-paginated",
        body: Some(
            r#"{"conditions":[{"field":"active","op":"eq","value":true}],"order_by":[{"field":"name"}],"skip":2000,"limit":100}"#,
        ),
        goal: Some(1_000.0),
    },
    Question {
        name: "GET /users/{id}",
        path: "/users/",
        body: None,
        goal: None,
    },
];

/// A running demo; it ends with this.
struct Demo {
    process: Child,
    port: u16,
}

impl Demo {
    fn start(
        executable: &Path,
        folder: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let log = folder.join(format!("{}.log", fastrand::u64(..)));
        let process = Command::new(executable)
            .current_dir(folder)
            .env_clear()
            .envs([("HOST", "127.0.0.1"), ("PORT", "0")])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()?;
        let mut demo = Self { process, port: 0 };
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let text = std::fs::read_to_string(&log)?;
            let port = text.split("http://127.0.0.1:").nth(1);
            let digits = port.and_then(|port| port.split(|c: char| !c.is_ascii_digit()).next());
            if let Some(Ok(port)) = digits.map(str::parse) {
                demo.port = port;
                return Ok(demo);
            }
            if demo.process.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the demo did not start".into())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `wrk` found out.
#[derive(Clone, Copy, Default)]
struct Load {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn wrk(question: &Question, port: u16, folder: &Path, seconds: u64) -> Result<Load, Failed> {
    let script = folder.join("question.lua");
    let text = match question.body {
        Some(body) => format!(
            "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{body}'\n"
        ),
        None if question.path.ends_with('/') => format!(
            "request = function() return wrk.format('GET', '{}' .. math.random(1000)) end\n",
            question.path
        ),
        None => String::new(),
    };
    std::fs::write(&script, text)?;
    let output = Command::new("wrk")
        .args([
            // It shares the processors with what it measures.
            "-t1",
            "-c32",
            &format!("-d{seconds}s"),
            "--timeout",
            "30s",
            "--latency",
            "-s",
        ])
        .arg(&script)
        .arg(format!("http://127.0.0.1:{port}{}", question.path))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || !output.status.success() {
        return Err(format!("{}: {text}", question.name).into());
    }
    let mut load = Load::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("50%"), Some(time)) => load.p50 = nanos(time),
            (Some("99%"), Some(time)) => load.p99 = nanos(time),
            (Some("Requests/sec:"), Some(rate)) => load.rate = rate.parse()?,
            _ => {}
        }
    }
    Ok(load)
}

/// `1.23ms`, as `wrk` writes it.
fn nanos(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(0));
    let unit = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 6e10,
        _ => f64::NAN,
    };
    number.parse().unwrap_or(f64::NAN) * unit
}

fn rows(postgres: &Postgres, url: &str, rows: u64) {
    // As many names and ages as a real table has, and the e-mail unique.
    let insert = format!(
        "INSERT INTO users (name, email, age, active, created_at) \
         SELECT 'User ' || n, 'user.' || n || '@example.com', 18 + n % 63, n % 10 > 0, 1704096000000000 + n * 1000000 \
         FROM generate_series(1, {rows} - (SELECT count(*) FROM users)) AS n"
    );
    postgres.psql(url, &insert);
    postgres.psql(url, "ANALYZE users");
}

/// The same bytes for every request, from this process.
async fn fixed(body: String) -> Result<u16, Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let handler = make_sync(move |_| {
        let response = poem::Response::builder().content_type("application/json; charset=utf-8");
        response.body(body.clone())
    });
    let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
    tokio::spawn(server.run(Route::new().at("/users", get(handler))));
    Ok(port)
}

/// The body that `GET` of that path returns.
fn fetch(port: u16, path: &str) -> Result<String, Failed> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(body.to_owned())
}

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let Some(executable) = &settings.demo else {
        return Ok(skipped("build the demo first, as scripts/bench does"));
    };
    if Command::new("wrk").arg("--version").output().is_err() {
        return Ok(skipped("`wrk` is missing; `apt-get install wrk` brings it"));
    }
    let number = settings.pick(20_000, 1_000_000);
    step.say(&format!("writing {number} users"));
    let postgres = Postgres::start();
    let redis = RedisServer::start();
    let url = postgres.database();
    let folder = std::env::temp_dir().join(format!("cache-rivals-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let database = ("DATABASE_URL", url.as_str());
    let off = Demo::start(executable, &folder, &[database, ("CACHE_LOCAL_MB", "0")])?;
    rows(&postgres, &url, number);
    let memory = Demo::start(executable, &folder, &[database, ("CACHE_LOCAL_MB", "64")])?;
    let port = redis.port().to_string();
    let over_redis = [database, ("REDIS_ENABLED", "True"), ("REDIS_PORT", &port)];
    // The tier in memory is on unless it is refused.
    let both = Demo::start(executable, &folder, &over_redis)?;
    let alone = [&over_redis[..], &[("CACHE_LOCAL_MB", "0")]].concat();
    let shared = Demo::start(executable, &folder, &alone)?;
    let fixed = fixed(fetch(memory.port, QUESTIONS[0].path)?).await?;

    let seconds = settings.pick(1, 4);
    let rounds = settings.pick(2, 3);
    let mut findings = Findings::default();
    for question in &QUESTIONS {
        let mut ports = vec![
            ("cache off", off.port),
            ("Redis and memory", both.port),
            ("Redis alone", shared.port),
            ("memory alone", memory.port),
        ];
        if question.name == QUESTIONS[0].name {
            ports.push((FIXED, fixed));
        }
        let mut loads = vec![Vec::new(); ports.len()];
        for round in 0..rounds {
            for place in 0..ports.len() {
                let index = (place + round) % ports.len();
                let (name, port) = ports[index];
                step.say(&format!(
                    "{}, {name}, round {} of {rounds}",
                    question.name,
                    round + 1
                ));
                loads[index].push(wrk(question, port, &folder, seconds)?);
            }
        }
        ask(question, &ports, &loads, &mut findings);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(findings)
}

/// What came out, as a table and as goals.
fn ask(question: &Question, ports: &[(&str, u16)], loads: &[Vec<Load>], findings: &mut Findings) {
    let middle =
        |index: usize, figure: fn(&Load) -> f64| median(loads[index].iter().map(figure).collect());
    let ratio = |index: usize, first: usize, figure: fn(&Load) -> f64| {
        let pairs = loads[index].iter().zip(&loads[first]);
        median(
            pairs
                .map(|(own, first)| figure(own) / figure(first))
                .collect(),
        )
    };
    let rows = ports.iter().enumerate().map(|(index, (name, _))| Row {
        p50: Some(middle(index, |load| load.p50)),
        p99: Some(middle(index, |load| load.p99)),
        rate: Some(middle(index, |load| load.rate)),
        p50_ratio: Some(ratio(index, 0, |load| load.p50)),
        p99_ratio: Some(ratio(index, 0, |load| load.p99)),
        rate_ratio: Some(ratio(index, 0, |load| load.rate)),
        ..Row::named(*name)
    });
    findings.tables.push(Table {
        title: format!("The demo: {}", question.name),
        text: match question.body {
            Some(body) => format!("`POST {}` with `{body}`, 32 connections.", question.path),
            None if question.path.ends_with('/') => {
                format!(
                    "One of a thousand rows: `GET {}{{id}}`, 32 connections.",
                    question.path
                )
            }
            None => format!("`GET {}`, 32 connections.", question.path),
        },
        rows: rows.collect(),
    });
    let gain = ratio(1, 0, |load| load.rate);
    let what = format!(
        "Demo over PostgreSQL, {}: throughput with both tiers against the cache off",
        question.name
    );
    findings.goals.push(match question.goal {
        Some(least) => Goal::measured(&what, Bound::AtLeast(least), "×", gain),
        None => Goal::reported(&what, "×", gain),
    });
    let what = format!("The same, {}: p50", question.name);
    let gain = ratio(1, 0, |load| load.p50);
    findings.goals.push(Goal::reported(&what, "×", gain));
    if let Some(place) = ports.iter().position(|(name, _)| *name == FIXED) {
        let share = |index| ratio(index, place, |load| load.rate);
        let what = "The list's hit, with both tiers, against a handler with a fixed body of that size: throughput";
        let bound = Bound::AtLeast(0.8);
        findings
            .goals
            .push(Goal::measured(what, bound, "×", share(1)));
    }
}

fn skipped(why: &str) -> Findings {
    let what = "Demo over PostgreSQL: throughput against the cache off";
    let figure = Figure::Skipped(why.to_owned());
    Findings {
        goals: vec![Goal::without(what, Bound::AtLeast(12.0), "×", figure)],
        ..Findings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_wrk() {
        assert_eq!(nanos("1.50ms"), 1.5e6);
        assert_eq!(nanos("312.00us"), 312e3);
        assert!(nanos("?").is_nan());
    }
}
