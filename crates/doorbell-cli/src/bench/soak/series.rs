//! One kind of memory of a process over time, and what became of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::slope::{Slope, slope_per_hour};
use crate::bench::process_cost::Memory;
use crate::bench::sample::median;
use crate::bench::timeline::Timeline;

/// Bytes at moments since the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<(Duration, f64)>);

/// A part of the memory of a process.
pub(super) type Part = fn(&Memory) -> u64;

impl Series {
    /// Returns what was seen of one part.
    pub(super) fn of(timeline: &Timeline, part: Part) -> Self {
        let moments = timeline.moments().iter();
        Self(
            moments
                .map(|(at, memory)| (*at, part(memory) as f64))
                .collect(),
        )
    }

    /// Begins with nothing, but with memory for `count` moments that has been written to: what watches memory must not be what grows.
    pub(super) fn with_room(count: usize) -> Self {
        let mut points = vec![(Duration::MAX, f64::MAX); count];
        points.clear();
        Self(points)
    }

    pub(super) fn push(&mut self, at: Duration, bytes: u64) {
        self.0.push((at, bytes as f64));
    }

    pub(super) fn first(&self) -> Option<f64> {
        self.0.first().map(|point| point.1)
    }

    pub(super) fn last(&self) -> Option<f64> {
        self.0.last().map(|point| point.1)
    }

    pub(super) fn most(&self) -> Option<f64> {
        self.0.iter().map(|point| point.1).max_by(f64::total_cmp)
    }

    /// Returns the median of each tenth of all moments, the nearest moment where a tenth has none.
    pub(super) fn tenths(&self) -> Vec<Option<f64>> {
        let count = self.0.len();
        let tenth = |tenth: usize| {
            let from = (tenth * count / 10).min(count.saturating_sub(1));
            let to = ((tenth + 1) * count / 10)
                .clamp(from, count)
                .max((from + 1).min(count));
            median(self.0[from..to].iter().map(|point| point.1))
        };
        (0..10).map(tenth).collect()
    }

    /// Returns by how much the last tenth has more than the second, in parts of that.
    pub(super) fn growth(&self) -> Option<f64> {
        let tenths = self.tenths();
        let (early, late) = tenths[1].zip(tenths[9])?;
        (early > 0.0).then(|| late / early - 1.0)
    }

    /// Returns how fast it grows after the warm-up, the first tenth.
    pub(super) fn slope(&self) -> Option<Slope> {
        slope_per_hour(&self.0[self.0.len() / 10..])
    }

    pub(super) fn json(&self) -> Value {
        let slope = self.slope();
        json!({
            "first_bytes": self.first(),
            "last_bytes": self.last(),
            "most_bytes": self.most(),
            "bytes_by_tenth": self.tenths(),
            "growth": self.growth(),
            "slope_per_hour": slope.map(|slope| slope.part),
            "slope_bytes_per_hour": slope.map(|slope| slope.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(bytes: impl IntoIterator<Item = u64>) -> Series {
        let mut series = Series::default();
        for (minute, bytes) in (0..).zip(bytes) {
            series.push(Duration::from_secs(60 * minute), bytes);
        }
        series
    }

    #[test]
    fn the_warm_up_is_no_growth() {
        let warming_up = series((0..100).map(|minute| 100 * minute.min(10)));
        assert_eq!(warming_up.growth(), Some(0.0));
        assert_eq!(warming_up.slope().unwrap().part, 0.0);
        let ends = (warming_up.first(), warming_up.last(), warming_up.most());
        assert_eq!(ends, (Some(0.0), Some(1000.0), Some(1000.0)));
        let growing = series((0..100).map(|minute| 1000 + minute));
        assert!(growing.growth() > Some(0.07), "{growing:?}");
    }

    #[test]
    fn few_moments_have_ten_tenths_and_none_have_nothing() {
        assert_eq!(series([4, 6]).growth(), Some(0.5));
        assert_eq!(series([]).growth(), None);
        assert!(series([]).slope().is_none());
    }
}
