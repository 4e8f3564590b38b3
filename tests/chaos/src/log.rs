//! What the cache of a process logs, in a file: why reads go past it, for instance.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock::now;
use crate::history::MILLISECOND;

/// Writes events of the cache into this file from now on.
pub(crate) fn write_to(file: &Path) -> std::io::Result<()> {
    let file = Mutex::new(File::create(file)?);
    // An error would mean that there is one already.
    let _ = tracing::subscriber::set_global_default(Log(file));
    Ok(())
}

struct Log(Mutex<File>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("cache_runtime")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ms", now() / MILLISECOND));
        event.record(&mut line);
        if let Ok(mut file) = self.0.lock() {
            let _ = writeln!(file, "{}", line.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
