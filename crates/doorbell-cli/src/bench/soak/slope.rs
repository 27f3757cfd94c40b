//! How fast memory grows, in spite of its ups and downs.

use std::time::Duration;

use crate::bench::sample::median;

/// By how much memory grows in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slope {
    pub(super) bytes: f64,
    /// In parts of its median.
    pub(super) part: f64,
}

/// Returns the median of the slopes between any two points (after Theil and Sen), which a few moments with much or little memory do not bend.
/// `None` if there are fewer than two.
pub(super) fn slope_per_hour(points: &[(Duration, f64)]) -> Option<Slope> {
    let slopes = points.iter().enumerate().flat_map(|(place, from)| {
        let later = points[place + 1..].iter();
        later.map(|to| (to.1 - from.1) / hours(to.0.saturating_sub(from.0)))
    });
    let bytes = median(slopes)?;
    let typical = median(points.iter().map(|point| point.1))?;
    Some(Slope {
        bytes,
        part: bytes / typical.max(1.0),
    })
}

fn hours(time: Duration) -> f64 {
    (time.as_secs_f64() / 3600.0).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope_of(bytes: impl Fn(u64) -> u64) -> Slope {
        let point = |minute| (Duration::from_secs(60 * minute), bytes(minute) as f64);
        let points: Vec<_> = (0..=60).map(point).collect();
        slope_per_hour(&points).unwrap()
    }

    #[test]
    fn steady_growth_is_found_beside_ups_and_downs() {
        let growing = |minute| (10 << 20) + (1 << 20) * minute / 60; // by a tenth
        let slope = slope_of(growing);
        assert!((0.09..0.11).contains(&slope.part), "{slope:?}");
        assert!(
            (1_000_000.0..1_100_000.0).contains(&slope.bytes),
            "{slope:?}"
        );
        let with_bursts = |minute: u64| {
            let burst = if minute.is_multiple_of(7) { 1 << 28 } else { 0 };
            growing(minute) + burst
        };
        let slope = slope_of(with_bursts);
        assert!((0.08..0.12).contains(&slope.part), "{slope:?}");
    }

    #[test]
    fn what_stays_the_same_has_no_slope() {
        assert_eq!(slope_of(|_| 5 << 20).part, 0.0);
        assert_eq!(slope_per_hour(&[]), None);
    }
}
