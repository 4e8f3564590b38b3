//! Watches a store for changes that it does not report: its circuit, flushes of local entries, and
//! the switches for all processes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

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
        // Now, and not when the task runs for the first time: a change in between would be lost.
        let last = Arc::new(Mutex::new(Last::of(&*store, local.as_deref())));
        background.spawn(supervised("monitor", move || {
            let last = Arc::clone(&last);
            watch(
                Arc::clone(&store),
                local.clone(),
                Arc::clone(&telemetry),
                last,
            )
        }));
    }
}

/// The state at the last look.
struct Last {
    circuit: Circuit,
    openings: u64,
    flushes: u64,
}

impl Last {
    fn of(store: &dyn Store, local: Option<&Local>) -> Self {
        Self {
            circuit: store.circuit(),
            openings: store.openings(),
            flushes: local.map_or(0, Local::flushes),
        }
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

async fn watch(
    store: Arc<dyn Store>,
    local: Option<Arc<Local>>,
    telemetry: Arc<Telemetry>,
    last: Arc<Mutex<Last>>,
) {
    let Some(connection) = store.connection() else {
        return;
    };
    let mut changes = connection.subscribe();
    loop {
        look(&*store, local.as_deref(), &telemetry, &mut last.lock());
        tokio::select! {
            _ = changes.changed() => {}
            () = crate::base::time::sleep(INTERVAL) => {}
        }
    }
}

/// Publishes what has changed.
fn look(store: &dyn Store, local: Option<&Local>, telemetry: &Telemetry, last: &mut Last) {
    let now = Last::of(store, local);
    let opened = now.openings.saturating_sub(last.openings);
    telemetry.circuit_opened.add(opened);
    // The circuit breaker has opened and closed since the last look.
    if opened > 0 && last.circuit == Circuit::Closed && now.circuit == Circuit::Closed {
        publish_change(telemetry, last.circuit, Circuit::Open, store.reason());
        last.circuit = Circuit::Open;
    }
    if now.circuit != last.circuit {
        publish_change(telemetry, last.circuit, now.circuit, store.reason());
    }
    if now.flushes != last.flushes {
        let flushes = now.flushes;
        telemetry
            .events
            .publish(|| EventKind::LocalFlushed { flushes });
    }
    *last = now;
}

fn publish_change(telemetry: &Telemetry, from: Circuit, to: Circuit, reason: Option<String>) {
    telemetry
        .events
        .publish(|| EventKind::CircuitChanged { from, to, reason });
}
