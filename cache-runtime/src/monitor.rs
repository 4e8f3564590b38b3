//! Watches a store for changes that it does not report: its circuit, flushes of local entries, and
//! the switches for all processes.

use std::sync::Arc;
use std::time::Duration;

use crate::base::background::{Background, supervised};
use crate::local::Local;
use crate::store::{Circuit, Store};
use crate::telemetry::Telemetry;
use crate::telemetry::events::EventKind;

/// How often the circuit is checked besides, for changes without a change of the connection.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts to watch; does nothing for a store without a connection.
pub(crate) fn start(
    store: &Arc<dyn Store>,
    local: Option<&Arc<Local>>,
    telemetry: &Arc<Telemetry>,
    background: &Background,
) {
    if let Some(mut switched_off) = store.switched_off() {
        let off = switched_off.borrow_and_update().clone();
        telemetry.switches.learn(off);
        let telemetry = Arc::clone(telemetry);
        background.spawn(async move {
            while switched_off.changed().await.is_ok() {
                let off = switched_off.borrow_and_update().clone();
                for change in telemetry.switches.learn(off) {
                    report_switch(&telemetry, &change.target, change.enabled, true);
                }
            }
        });
    }
    if store.connection().is_some() {
        let (store, telemetry) = (Arc::clone(store), Arc::clone(telemetry));
        let local = local.cloned();
        background.spawn(supervised("monitor", move || {
            watch(Arc::clone(&store), local.clone(), Arc::clone(&telemetry))
        }));
    }
}

/// Reports that reads were switched.
pub(crate) fn report_switch(telemetry: &Telemetry, target: &str, enabled: bool, everywhere: bool) {
    tracing::warn!(
        target,
        enabled,
        everywhere,
        "reads were switched by an operator"
    );
    telemetry.events.publish(|| EventKind::Switched {
        target: target.to_owned(),
        enabled,
        everywhere,
    });
}

async fn watch(store: Arc<dyn Store>, local: Option<Arc<Local>>, telemetry: Arc<Telemetry>) {
    let Some(connection) = store.connection() else {
        return;
    };
    let mut changes = connection.subscribe();
    let mut circuit = store.circuit();
    let mut openings = store.openings();
    let mut flushes = local.as_ref().map_or(0, |local| local.flushes());
    loop {
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let (now, opened) = (store.circuit(), store.openings());
        telemetry
            .circuit_opened
            .add(opened.saturating_sub(openings));
        // The circuit breaker has opened and closed since the last look.
        if opened > openings && circuit == Circuit::Closed && now == Circuit::Closed {
            publish_change(&telemetry, circuit, Circuit::Open, store.reason());
            circuit = Circuit::Open;
        }
        openings = opened;
        if now != circuit {
            publish_change(&telemetry, circuit, now, store.reason());
            circuit = now;
        }
        let flushed = local.as_ref().map_or(0, |local| local.flushes());
        if flushed != flushes {
            flushes = flushed;
            telemetry
                .events
                .publish(|| EventKind::LocalFlushed { flushes });
        }
    }
}

fn publish_change(telemetry: &Telemetry, from: Circuit, to: Circuit, reason: Option<String>) {
    telemetry
        .events
        .publish(|| EventKind::CircuitChanged { from, to, reason });
}
