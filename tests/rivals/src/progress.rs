//! What the suite is doing now, and how far it is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A part of the suite that is under way: a spinner on a terminal, a line elsewhere.
#[derive(Debug)]
pub struct Step {
    bar: ProgressBar,
    name: String,
}

impl Step {
    /// It begins. `place` says how far the whole is, as in `3/9`.
    pub fn begin(place: &str, name: &str) -> Self {
        let name = format!("[{place}] {name}");
        let bar = ProgressBar::new_spinner();
        if bar.is_hidden() {
            eprintln!("{name}");
        }
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}");
        bar.set_style(style.expect("a template"));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_message(name.clone());
        Self { bar, name }
    }

    /// What it does now.
    pub fn say(&self, what: &str) {
        self.bar.set_message(format!("{}: {what}", self.name));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
