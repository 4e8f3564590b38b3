//! What the cache of a process logs, in a file: why reads bypass it, for instance.

use std::fmt::Result;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::clock::now;
use crate::history::MILLISECOND;

/// Writes events of the cache into this file from now on.
pub(crate) fn write_to(file: &Path) -> std::io::Result<()> {
    let lines = fmt::layer()
        .with_writer(Mutex::new(File::create(file)?))
        .with_timer(Milliseconds)
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .with_filter(Targets::new().with_target("cache_runtime", Level::INFO));
    // An error would mean that there is a subscriber already.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(lines));
    Ok(())
}

/// The clock of the history, so that lines can be compared with it.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, line: &mut Writer<'_>) -> Result {
        write!(line, "{} ms", now() / MILLISECOND)
    }
}
