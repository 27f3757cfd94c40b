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
    /// Round trips each second with the pauses between them, where there are pauses.
    pub(crate) paced_per_s: Option<f64>,
    /// Payload bytes carried by one message, counted once even if it comes back.
    pub(crate) size_bytes: usize,
    /// System calls of both sides for each message, where they are counted.
    pub(crate) system_calls_per_message: Option<f64>,
    /// CPUs that both sides together kept busy on average, where that is looked at.
    pub(crate) cpus_used: Option<f64>,
    /// Memory of the server with all its connections, where that is looked at.
    pub(crate) server_bytes: Option<u64>,
}

impl Sample {
    /// Makes a sample of a measurement that timed only the whole.
    pub(crate) fn of_throughput(messages: u64, elapsed: Duration, size_bytes: usize) -> Self {
        Self {
            latency: None,
            messages,
            elapsed,
            paced_per_s: None,
            size_bytes,
            system_calls_per_message: None,
            cpus_used: None,
            server_bytes: None,
        }
    }

    /// Makes a sample of round trips that were all timed.
    pub(crate) fn of_round_trips(
        latency: Histogram<u64>,
        elapsed: Duration,
        size_bytes: usize,
    ) -> Self {
        let messages = latency.len();
        Self {
            latency: Some(latency),
            ..Self::of_throughput(messages, elapsed, size_bytes)
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
            paced_per_s: self.paced_per_s,
            bytes_per_s: per_s * self.size_bytes as f64,
            system_calls_per_message: self.system_calls_per_message,
            cpus_used: self.cpus_used,
            server_bytes: self.server_bytes.map(|bytes| bytes as f64),
            distribution_ns: self.latency.as_ref().map(distribution_ns),
        }
    }
}

/// Returns an empty histogram of nanoseconds; times above its bound count as the bound.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("these bounds are valid")
}

/// Returns the times that the parts in [`QUANTILES`] of all do not exceed.
pub(crate) fn distribution_ns(latency: &Histogram<u64>) -> Distribution {
    let count = latency.len() as f64;
    QUANTILES.map(|quantile| {
        let is_seen = (1.0 - quantile) * count > 0.999; // rounding
        is_seen.then(|| latency.value_at_quantile(quantile) as f64)
    })
}

/// A time for each of [`QUANTILES`], as far as there was anything slower.
pub(crate) type Distribution = [Option<f64>; QUANTILES.len()];

/// Where a distribution is looked at: closer and closer to the slowest of all.
pub(crate) const QUANTILES: [f64; 12] = [
    0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999,
];

/// The figures of one measurement, or the medians of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    pub(crate) per_s: f64,
    pub(crate) paced_per_s: Option<f64>,
    pub(crate) bytes_per_s: f64,
    pub(crate) system_calls_per_message: Option<f64>,
    pub(crate) cpus_used: Option<f64>,
    pub(crate) server_bytes: Option<f64>,
    pub(crate) distribution_ns: Option<Distribution>,
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
        let at = |index: usize| {
            let runs = runs.iter();
            median(runs.filter_map(|run| run.distribution_ns?[index]))
        };
        Self {
            p50_ns: optional(|figures| figures.p50_ns),
            p99_ns: optional(|figures| figures.p99_ns),
            p999_ns: optional(|figures| figures.p999_ns),
            per_s: required(|figures| figures.per_s),
            paced_per_s: optional(|figures| figures.paced_per_s),
            bytes_per_s: required(|figures| figures.bytes_per_s),
            system_calls_per_message: optional(|figures| figures.system_calls_per_message),
            cpus_used: optional(|figures| figures.cpus_used),
            server_bytes: optional(|figures| figures.server_bytes),
            distribution_ns: at(0).map(|_| std::array::from_fn(at)),
        }
    }
}

/// Returns the middle one of `values`, the upper one of two, or `None` if there is none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Times longer than this count as this.
const LONGEST_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_value_and_none_without_values() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), Some(5.0));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn a_distribution_ends_where_nothing_slower_was_seen() {
        let mut latency = histogram();
        (1..=100).for_each(|ns| latency.record(ns).unwrap());
        let distribution = distribution_ns(&latency);
        let seen: Vec<_> = QUANTILES.iter().zip(distribution).collect();
        for (&quantile, ns) in seen {
            assert_eq!(ns.is_some(), quantile <= 0.99, "{quantile} {ns:?}");
        }
    }

    #[test]
    fn figures_of_a_throughput_sample_have_a_rate_and_no_latency() {
        let figures = Sample::of_throughput(1000, Duration::from_millis(500), 64).figures();
        assert_eq!(figures.p50_ns, None);
        assert_eq!(figures.per_s, 2000.0);
        assert_eq!(figures.bytes_per_s, 128_000.0);
    }
}
