//! What a session has seen: times, amounts, endings and differences.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::demo::link::{Ending, Failure};

/// Differences that are told one by one; the rest are counted.
const MAX_DIFFERENCES: usize = 20;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// From the request to the whole file.
    OpenFile,
    /// From the request to the first hit.
    FirstHit,
    /// From the request to the end of the hits.
    AllHits,
    /// From the request to the first token.
    FirstToken,
    /// From the request to the last of the tokens asked for.
    AllTokens,
    /// What the editor spends on one edit notification.
    Edit,
    /// From the query to the diagnostics.
    Diagnostics,
}

impl Timed {
    /// Everything that is timed, in the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::OpenFile,
        Self::FirstHit,
        Self::AllHits,
        Self::FirstToken,
        Self::AllTokens,
        Self::Edit,
        Self::Diagnostics,
    ];

    /// Name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OpenFile => "OpenFile",
            Self::FirstHit => "Search: first hit",
            Self::AllHits => "Search: all hits",
            Self::FirstToken => "Complete: first token",
            Self::AllTokens => "Complete: 64 tokens",
            Self::Edit => "Edit (notify)",
            Self::Diagnostics => "Diagnostics",
        }
    }
}

/// Times and amounts of one thing that is timed.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Payload bytes.
    pub(crate) bytes: u64,
    times_ns: Histogram<u64>,
}

impl Row {
    fn new() -> Self {
        Self {
            bytes: 0,
            times_ns: Histogram::new(3).expect("three digits are allowed"),
        }
    }

    /// Number of times.
    pub(crate) fn count(&self) -> u64 {
        self.times_ns.len()
    }

    /// Time that the given part of all did not exceed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.times_ns.value_at_quantile(part))
    }
}

/// Everything that a session has seen.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    rows: Vec<Row>,
    /// Searches that the editor dropped before their end.
    pub(crate) searches_dropped: u64,
    /// Completions that the editor dropped midway.
    pub(crate) completions_dropped: u64,
    /// Completions that the engine counts as stopped by that.
    pub(crate) completions_stopped: u64,
    /// Tokens that the editor read of the dropped completions.
    pub(crate) tokens_read: u64,
    /// Tokens that the engine made for the dropped completions.
    pub(crate) tokens_made: u64,
    /// Requests by how they failed.
    pub(crate) endings: Endings,
    /// Answers that differed from what was planned, and equalled the tree of that moment.
    pub(crate) changed_on_disk: u64,
    /// Comparisons made.
    pub(crate) comparisons: u64,
    /// Comparisons that failed.
    pub(crate) difference_count: u64,
    /// The first of them, in words.
    pub(crate) differences: Vec<String>,
}

/// Failed requests by ending.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endings {
    /// Not seen by the engine.
    pub(crate) not_executed: u64,
    /// Perhaps run by the engine.
    pub(crate) unknown: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            rows: Timed::ALL.map(|_| Row::new()).into(),
            searches_dropped: 0,
            completions_dropped: 0,
            completions_stopped: 0,
            tokens_read: 0,
            tokens_made: 0,
            endings: Endings::default(),
            changed_on_disk: 0,
            comparisons: 0,
            difference_count: 0,
            differences: Vec::new(),
        }
    }
}

impl Record {
    /// Returns the row of one thing.
    pub(crate) fn row(&self, timed: Timed) -> &Row {
        &self.rows[timed as usize]
    }

    /// Adds a time and the bytes that came with it.
    pub(crate) fn add(&mut self, timed: Timed, time: Duration, bytes: usize) {
        let row = &mut self.rows[timed as usize];
        row.bytes += bytes as u64;
        let _ = row.times_ns.record(time.as_nanos() as u64); // it grows as needed, so that every time fits
    }

    /// Counts a comparison; `difference` says in words what differed.
    pub(crate) fn compare(&mut self, is_equal: bool, difference: impl FnOnce() -> String) {
        self.comparisons += 1;
        if !is_equal {
            self.differ(difference());
        }
    }

    /// Counts a difference.
    pub(crate) fn differ(&mut self, difference: String) {
        self.difference_count += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }

    /// Counts a request that failed.
    pub(crate) fn add_failure(&mut self, failure: &Failure) {
        match failure.ending {
            Ending::NotExecuted => self.endings.not_executed += 1,
            Ending::Unknown => self.endings.unknown += 1,
            Ending::Refused => {}
        }
    }
}
