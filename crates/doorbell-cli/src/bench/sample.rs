//! What one measurement gives.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Everything that one measurement has counted.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Nanoseconds of each round trip; `None` where round trips are not timed one by one.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Messages (one way) or calls (round trip) that were finished.
    pub(crate) messages: u64,
    /// Time that took.
    pub(crate) elapsed: Duration,
    /// Payload bytes carried by one message, counted once even if it comes back.
    pub(crate) size_bytes: usize,
    /// System calls of both sides for each message, where they are counted.
    pub(crate) system_calls_per_message: Option<f64>,
}

impl Sample {
    /// Makes a sample of a measurement that timed only the whole.
    pub(crate) fn of_throughput(messages: u64, elapsed: Duration, size_bytes: usize) -> Self {
        Self {
            latency: None,
            messages,
            elapsed,
            size_bytes,
            system_calls_per_message: None,
        }
    }

    /// Returns the figures to print.
    pub(crate) fn figures(&self) -> Figures {
        let per_s = self.messages as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let quantile = |quantile| {
            self.latency
                .as_ref()
                .map(|latency| latency.value_at_quantile(quantile) as f64)
        };
        Figures {
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            per_s,
            bytes_per_s: per_s * self.size_bytes as f64,
            system_calls_per_message: self.system_calls_per_message,
        }
    }
}

/// The figures of one measurement, or the medians of several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    pub(crate) per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) system_calls_per_message: Option<f64>,
}

impl Figures {
    /// Returns the median of each figure.
    ///
    /// # Panics
    ///
    /// If `runs` is empty.
    pub(crate) fn median_of(runs: &[Self]) -> Self {
        let required =
            |pick: fn(&Self) -> f64| median(runs.iter().map(pick)).expect("at least one run");
        let optional = |pick: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(pick));
        Self {
            p50_ns: optional(|figures| figures.p50_ns),
            p99_ns: optional(|figures| figures.p99_ns),
            p999_ns: optional(|figures| figures.p999_ns),
            per_s: required(|figures| figures.per_s),
            bytes_per_s: required(|figures| figures.bytes_per_s),
            system_calls_per_message: optional(|figures| figures.system_calls_per_message),
        }
    }
}

/// Returns the middle one of `values`, the upper one of two, or `None` if there is none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_value_and_none_without_values() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), Some(5.0));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn figures_of_a_throughput_sample_have_a_rate_and_no_latency() {
        let figures = Sample::of_throughput(1000, Duration::from_millis(500), 64).figures();
        assert_eq!(figures.p50_ns, None);
        assert_eq!(figures.per_s, 2000.0);
        assert_eq!(figures.bytes_per_s, 128_000.0);
    }
}
