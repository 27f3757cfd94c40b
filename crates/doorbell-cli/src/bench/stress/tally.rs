//! What many clients have done, by kind of work.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::client::Moved;
use super::mix::Kind;
use crate::bench::sample::histogram;

/// Counts the work of all clients.
pub(crate) struct Tally {
    kinds: Mutex<Vec<Count>>,
}

/// What was done of one kind.
#[derive(Clone)]
pub(crate) struct Count {
    pub(crate) name: &'static str,
    /// Nanoseconds that pieces of work took.
    pub(crate) latency: Histogram<u64>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// What the first error was.
    pub(crate) first_error: Option<String>,
}

impl Count {
    fn new(name: &'static str) -> Self {
        let mut latency = histogram();
        latency.clear(); // touches all of it: what comes later would look like memory that grows
        Self {
            name,
            latency,
            messages: 0,
            bytes: 0,
            errors: 0,
            first_error: None,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("all have the same bounds");
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error.clone());
    }
}

impl Tally {
    /// Begins with nothing.
    pub(crate) fn new() -> Self {
        let kinds = Kind::ALL.iter().map(|kind| Count::new(kind.name()));
        Self {
            kinds: Mutex::new(kinds.collect()),
        }
    }

    /// Counts a piece of work that took so long.
    pub(crate) fn count(&self, kind: Kind, took: Duration, result: &anyhow::Result<Moved>) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let count = &mut kinds[kind as usize];
        match result {
            Ok(moved) => {
                count.latency.saturating_record(took.as_nanos() as u64);
                count.messages += moved.messages;
                count.bytes += moved.bytes;
            }
            Err(error) => {
                count.errors += 1;
                count
                    .first_error
                    .get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// Returns how many messages there were so far.
    pub(crate) fn messages(&self) -> u64 {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().map(|count| count.messages).sum()
    }

    /// Returns the kinds of which there was something, and after them all together.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Count::new("all together");
        kinds.iter().for_each(|count| all.add(count));
        let is_there = |count: &&Count| count.messages + count.errors > 0;
        let there = kinds.iter().filter(is_there).cloned();
        there.chain([all]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_and_the_first_is_kept() {
        let tally = Tally::new();
        let moved = Moved {
            messages: 2,
            bytes: 20,
        };
        tally.count(Kind::Burst, Duration::from_micros(1), &Ok(moved));
        for text in ["first", "second"] {
            let error = Err(anyhow::anyhow!(text));
            tally.count(Kind::Huge, Duration::ZERO, &error);
        }
        let counts = tally.counts();
        let names: Vec<_> = counts.iter().map(|count| count.name).collect();
        assert_eq!(names, ["call to 10 MB", "burst of calls", "all together"]);
        assert_eq!((counts[2].messages, counts[2].errors), (2, 2));
        assert_eq!(counts[2].first_error.as_deref(), Some("first"));
    }
}
