//! The doctor: finds at startup what operators often forget, and says how to fix it.
//!
//! It delays nothing and never makes a call fail. The store is asked once, in the background, and
//! each piece of advice becomes one line in the log.

#[cfg_attr(not(feature = "map"), path = "no_map.rs")]
mod program;
mod report;
mod rules;

use std::sync::Arc;
use std::time::Duration;

pub use self::report::{Diagnostic, DiagnosticKind, DoctorReport};
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::stats::OutboxStats;
use crate::store::{Circuit, DiagnosticsRequest, Store};

/// How long after the start, or after the last attempt, the store is asked. A starting program has
/// more urgent requests.
const PAUSE: Duration = Duration::from_secs(1);

/// How many times it is tried if the store does not answer every question.
const ATTEMPTS: u32 = 3;

/// Asks the store, then applies all rules.
pub(crate) async fn doctor(
    config: &CacheConfig,
    store: &dyn Store,
    outbox: Option<&OutboxStats>,
) -> DoctorReport {
    let program = program::Program::of(config);
    let request = DiagnosticsRequest {
        namespace: config.namespace.clone(),
        resources: program.resources(),
    };
    let mut report = DoctorReport::default();
    match (&config.redis, store.diagnose(&request).await) {
        (Some(redis), Ok(survey)) => {
            rules::server(&mut report, &program, config, redis, &survey);
        }
        (Some(redis), Err(error)) => rules::unreachable(&mut report, redis, &error.to_string()),
        (None, survey) if config.memcached.is_some() => {
            rules::memcached(&mut report, &program, config, &survey);
        }
        (None, _) => report.not_checked.push("Redis, because it is off".into()),
    }
    if let Some(outbox) = outbox {
        rules::outbox(&mut report, outbox);
    }
    program.ttls(&mut report, config);
    program.ops(&mut report);
    report.advice.sort_by_key(|advice| advice.kind);
    report
}

/// Logs advice once the store has been reached for the first time.
pub(crate) fn advise_once(engine: &Engine) {
    if !engine.config.advice {
        return;
    }
    // Holds the store but not the engine, which must end when nobody else holds it.
    let (config, store) = (engine.config.clone(), Arc::clone(&engine.store));
    engine.background.spawn(async move {
        for _ in 0..ATTEMPTS {
            crate::base::time::sleep(PAUSE).await;
            while store.circuit() != Circuit::Closed {
                crate::base::time::sleep(PAUSE).await;
            }
            // Events of the outbox are logged when they happen.
            let DoctorReport { advice, .. } = doctor(&config, &*store, None).await;
            let is_whole = advice
                .iter()
                .all(|it| it.kind != DiagnosticKind::Unreachable);
            if is_whole {
                advice.iter().for_each(log);
                return;
            }
        }
    });
}

fn log(Diagnostic { kind, text }: &Diagnostic) {
    if kind.is_a_hint() {
        tracing::info!(advice = kind.as_str(), "{text}");
    } else {
        tracing::warn!(advice = kind.as_str(), "{text}");
    }
}
