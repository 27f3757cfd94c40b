//! Times of round trips, and a form in which processes hand them to each other.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::sample::Figures;

/// Times of round trips in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    /// Makes an empty histogram with `digits` significant digits.
    pub(crate) fn new(digits: u8) -> Self {
        Self(
            Histogram::new_with_bounds(1, LONGEST_NS, digits)
                .expect("the bounds are valid for every number of digits in use"),
        )
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what another process or task has timed.
    pub(crate) fn add(&mut self, other: &Self) {
        for value in other.0.iter_recorded() {
            self.0
                .saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
    }

    /// Returns the figures of round trips that together took `elapsed`.
    pub(crate) fn figures(&self, elapsed: Duration) -> Figures {
        let quantile = |at| (self.count() > 0).then(|| self.0.value_at_quantile(at) as f64);
        Figures {
            messages: self.count(),
            elapsed_ns: elapsed.as_nanos() as f64,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            least_messages: None,
        }
    }

    /// Returns the times in the form in which they travel.
    pub(crate) fn packed(&self) -> Packed {
        let pair = |value: hdrhistogram::iterators::IterationValue<u64>| {
            (value.value_iterated_to(), value.count_at_value())
        };
        Packed(self.0.iter_recorded().map(pair).collect())
    }
}

/// Values and how often each occurred.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packed(Vec<(u64, u64)>);

impl Packed {
    /// Adds the times to `times`.
    pub(crate) fn add_to(&self, times: &mut Times) {
        for &(value, count) in &self.0 {
            times.0.saturating_record_n(value, count);
        }
    }
}

/// No round trip takes longer: it would be given up.
const LONGEST_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_times_come_out_as_they_went_in() {
        let mut times = Times::new(3);
        for ns in [100, 100, 5_000] {
            times.record(ns);
        }
        let mut other = Times::new(3);
        times.packed().add_to(&mut other);
        let length = Duration::from_secs(1);
        assert_eq!(times.figures(length), other.figures(length));
        assert_eq!(other.count(), 3);
    }
}
