//! What the user sees while the demo works: bars on a terminal, now and then a line elsewhere.

use std::{
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Progress of one session: some lanes, each with a known amount of work.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    lanes: Vec<Lane>,
    last_line: Mutex<Instant>,
}

#[derive(Debug)]
struct Lane {
    name: &'static str,
    total: u64,
    done: AtomicU64,
    bar: ProgressBar,
}

impl Progress {
    /// Starts with lanes of the given names and amounts.
    pub(crate) fn new(lanes: &[(&'static str, usize)]) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        let lanes = lanes
            .iter()
            .map(|(name, total)| Lane::new(name, *total as u64, bars.as_ref()))
            .collect();
        Self {
            bars,
            lanes,
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// Counts one piece of work of a lane as done.
    pub(crate) fn advance(&self, lane: usize) {
        let Lane { done, bar, .. } = &self.lanes[lane];
        done.fetch_add(1, Relaxed);
        bar.inc(1);
        if self.bars.is_none() && self.is_line_due() {
            eprintln!("  {}", self.summary());
        }
    }

    /// Prints a line about something that happened.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("  {line}")),
            None => eprintln!("  {line}"),
        }
    }

    /// Removes the bars.
    pub(crate) fn finish(&self) {
        self.lanes
            .iter()
            .for_each(|lane| lane.bar.finish_and_clear());
    }

    fn is_line_due(&self) -> bool {
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_due = last.elapsed() >= LINE_INTERVAL;
        if is_due {
            *last = Instant::now();
        }
        is_due
    }

    fn summary(&self) -> String {
        let parts = self
            .lanes
            .iter()
            .map(|lane| format!("{} {}/{}", lane.name, lane.done.load(Relaxed), lane.total));
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl Lane {
    fn new(name: &'static str, total: u64, bars: Option<&MultiProgress>) -> Self {
        let bar = match bars {
            Some(bars) => bars.add(
                ProgressBar::new(total)
                    .with_style(style())
                    .with_prefix(name),
            ),
            None => ProgressBar::hidden(),
        };
        Self {
            name,
            total,
            done: AtomicU64::new(0),
            bar,
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:<12} {bar:30} {pos}/{len}")
        .expect("the template is well formed")
}
