//! How fast memory grows, in spite of its ups and downs.

use std::time::Duration;

use crate::bench::process_cost::Memory;
use crate::bench::sample::median;

/// Returns by how much of its median memory grows in an hour: the median of the slopes between any two moments (after Theil and
/// Sen), which a few moments with much or little of it do not bend. `None` if there are fewer than three.
pub(super) fn slope_per_hour(moments: &[(Duration, Memory)]) -> Option<f64> {
    if moments.len() < 3 {
        return None;
    }
    let points = moments
        .iter()
        .map(|(at, memory)| (at.as_secs_f64() / 3600.0, memory.all() as f64));
    let points: Vec<_> = points.collect();
    let slopes = points.iter().enumerate().flat_map(|(place, from)| {
        let later = points[place + 1..].iter();
        later.map(|to| (to.1 - from.1) / (to.0 - from.0).max(f64::MIN_POSITIVE))
    });
    let slope = median(slopes)?;
    median(points.iter().map(|point| point.1)).map(|typical| slope / typical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope_of(bytes: impl Fn(u64) -> u64) -> Option<f64> {
        let moment = |minute| {
            let memory = Memory {
                private_bytes: bytes(minute),
                region_bytes: 1 << 20,
            };
            (Duration::from_secs(60 * minute), memory)
        };
        let moments: Vec<_> = (0..=60).map(moment).collect();
        slope_per_hour(&moments)
    }

    #[test]
    fn steady_growth_is_found_beside_ups_and_downs() {
        let growing = |minute| (9 << 20) + (1 << 20) * minute / 60; // by a tenth
        let slope = slope_of(growing).unwrap();
        assert!((0.09..0.11).contains(&slope), "{slope}");
        let with_bursts = |minute: u64| {
            let burst = if minute.is_multiple_of(7) { 1 << 28 } else { 0 };
            growing(minute) + burst
        };
        let slope = slope_of(with_bursts).unwrap();
        assert!((0.08..0.12).contains(&slope), "{slope}");
    }

    #[test]
    fn what_stays_the_same_has_no_slope() {
        assert_eq!(slope_of(|_| 5 << 20), Some(0.0));
        assert_eq!(slope_per_hour(&[]), None);
    }
}
