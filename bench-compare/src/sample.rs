//! What one measurement gives.

use serde::{Deserialize, Serialize};

/// The figures of one measurement, or the medians of several, as the measuring process prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Messages or calls that were finished.
    pub(crate) messages: u64,
    /// Nanoseconds that took.
    pub(crate) elapsed_ns: f64,
    /// Nanoseconds that half of the round trips stay below; `None` where they are not timed one by one.
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    /// Messages of the caller that was served least, where there were many callers.
    #[serde(default)]
    pub(crate) least_messages: Option<u64>,
}

impl Figures {
    /// Makes the figures of a measurement that timed only the whole.
    pub(crate) fn of_rate(messages: u64, elapsed: std::time::Duration) -> Self {
        Self {
            messages,
            elapsed_ns: elapsed.as_nanos() as f64,
            ..Self::default()
        }
    }

    /// Returns messages per second.
    pub(crate) fn per_s(&self) -> f64 {
        self.messages as f64 * 1e9 / self.elapsed_ns.max(1.0)
    }

    /// Returns how many times faster `self` is than `other`: by the median time where both were timed, else by the rate.
    pub(crate) fn speed_ratio(&self, other: &Self, by: By) -> Option<f64> {
        match (by, self.p50_ns, other.p50_ns) {
            (By::Time, Some(ours), Some(theirs)) if ours > 0.0 => Some(theirs / ours),
            _ if other.messages > 0 => Some(self.per_s() / other.per_s()),
            _ => None,
        }
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The median time of a round trip.
    Time,
    /// Messages per second.
    Rate,
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
    fn a_shorter_time_or_a_higher_rate_is_a_ratio_above_one() {
        let fast = Figures {
            messages: 100,
            elapsed_ns: 1e9,
            p50_ns: Some(50.0),
            ..Figures::default()
        };
        let slow = Figures {
            messages: 50,
            p50_ns: Some(200.0),
            ..fast
        };
        assert_eq!(fast.speed_ratio(&slow, By::Time), Some(4.0));
        assert_eq!(fast.speed_ratio(&slow, By::Rate), Some(2.0));
        assert_eq!(fast.speed_ratio(&Figures::default(), By::Rate), None);
    }

    #[test]
    fn median_is_the_middle_value_and_none_without_values() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), Some(5.0));
        assert_eq!(median([].into_iter()), None);
    }
}
