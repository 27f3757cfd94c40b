//! How far a benchmark is, on standard error and only when that is a terminal.
//!
//! It is drawn between two measurements and by nobody's clock: nothing may run while something is timed.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line that tells what is being measured.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts a line that is full after `measurements`.
    pub(crate) fn start(measurements: u64) -> Self {
        // The line hides itself when standard error is not a terminal.
        let bar = ProgressBar::with_draw_target(Some(measurements), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Shows what is measured next.
    pub(crate) fn next(&self, what: String) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// Counts so many measurements as done.
    pub(crate) fn done(&self, measurements: usize) {
        self.bar.inc(measurements as u64);
    }

    /// Says that so much of the whole is done.
    pub(crate) fn reach(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Takes the line away for as long as `print` prints.
    pub(crate) fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
