//! Where an axis has marks, and what stands beside them.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use super::{Axis, Quantity, Scale};

/// The part of an axis that is shown, in the coordinates in which it is drawn: a logarithm where the scale is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
    /// Where marks are.
    pub(super) marks: Vec<f64>,
}

impl Ranged for Span {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl Axis {
    /// Returns where `value` is drawn.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    /// Returns what stands beside a mark.
    pub(super) fn label(&self, place: f64) -> String {
        let value = match self.scale {
            Scale::Linear => place,
            Scale::Log => 10_f64.powf(place),
        };
        self.quantity.label(value)
    }

    /// Returns a span that shows all `values`.
    pub(super) fn span(&self, values: impl Iterator<Item = f64>) -> Span {
        let values: Vec<f64> = values.map(|value| self.place(value)).collect();
        let (least, greatest) = values.iter().fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(least, greatest), &place| (least.min(place), greatest.max(place)),
        );
        match self.scale {
            // What there are only a few of, such as numbers of connections, is marked one by one.
            Scale::Log if self.quantity == Quantity::Count => Span {
                from: least - 0.06,
                to: greatest + 0.1,
                marks: distinct(values),
            },
            Scale::Linear => linear(greatest.max(f64::MIN_POSITIVE), self.quantity),
            Scale::Log => logarithmic(least, greatest, self.quantity),
        }
    }
}

fn distinct(mut places: Vec<f64>) -> Vec<f64> {
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

fn linear(greatest: f64, quantity: Quantity) -> Span {
    let to = greatest * 1.08;
    // Bytes have units that are powers of two.
    let unit = match quantity {
        Quantity::Bytes => 2_f64.powf(10.0 * (to.log2() / 10.0).floor()),
        _ => 1.0,
    };
    let step = match quantity {
        Quantity::Seconds => clock_step(to / 5.0),
        _ => round_step(to / unit / 5.0) * unit,
    };
    let marks = (0..=(to / step) as u32).map(|number| f64::from(number) * step);
    Span {
        from: 0.0,
        to,
        marks: marks.collect(),
    }
}

/// Returns the next larger of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| factor * power >= least);
    factor.unwrap_or(10.0) * power
}

/// Returns the next larger step that divides minutes and hours.
fn clock_step(least: f64) -> f64 {
    let steps = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    let step = steps.into_iter().find(|step| *step >= least);
    match step {
        Some(step) if least > 5.0 => step,
        _ => round_step(least),
    }
}

fn logarithmic(least: f64, greatest: f64, quantity: Quantity) -> Span {
    let (from, to) = (least - 0.06, greatest + 0.1);
    let factors: &[f64] = match (quantity, to - from) {
        (Quantity::Bytes, _) => return powers_of_two(from, to),
        (Quantity::Rarity, _) => &[1.0, 2.0],
        (_, decades) if decades < 1.0 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        (_, decades) if decades < 3.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let decades = (from.floor() as i32)..=(to.ceil() as i32);
    let marks = decades.flat_map(|power| {
        factors
            .iter()
            .map(move |factor| f64::from(power) + factor.log10())
    });
    // The quantile 0.5 lies at 2; at 20 and at 200 nobody looks for a mark.
    let is_wanted = |mark: &f64| quantity != Quantity::Rarity || *mark < 0.5 || mark.fract() < 0.01;
    Span {
        from,
        to,
        marks: marks
            .filter(|mark| (from..=to).contains(mark))
            .filter(is_wanted)
            .collect(),
    }
}

fn powers_of_two(from: f64, to: f64) -> Span {
    let (first, last) = ((from / 2_f64.log10()).ceil(), (to / 2_f64.log10()).floor());
    let step = (((last - first) / 7.0).ceil() as usize).max(1);
    let marks = (first as i32..=last as i32).step_by(step);
    Span {
        from,
        to,
        marks: marks
            .map(|power| f64::from(power) * 2_f64.log10())
            .collect(),
    }
}

impl Quantity {
    /// Returns a value with its unit, as short as it can be.
    pub(super) fn label(self, value: f64) -> String {
        match self {
            Self::Time => scaled(value, 1000.0, &["ns", "µs", "ms", "s"]),
            Self::Seconds if value >= 60.0 && value % 60.0 == 0.0 => {
                format!("{} min", short(value / 60.0))
            }
            Self::Seconds => format!("{} s", short(value)),
            Self::PerSecond => scaled(value, 1000.0, &["/s", "k/s", "M/s", "G/s"]),
            Self::BytesPerSecond => scaled(value, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]),
            Self::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB"]),
            Self::Count => short(value),
            Self::Rarity => format!("{} %", short(100.0 - 100.0 / value)),
        }
    }
}

fn scaled(value: f64, factor: f64, units: &[&str]) -> String {
    let mut rest = value;
    let mut unit = 0;
    // A value that is a hair below a unit belongs to it.
    while rest >= factor * 0.9999 && unit + 1 < units.len() {
        rest /= factor;
        unit += 1;
    }
    format!("{} {}", short(rest), units[unit])
}

/// Returns a number without digits that say nothing.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        amount if amount >= 100.0 => 2,
        amount if amount >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_unit_and_no_superfluous_digits() {
        assert_eq!(Quantity::Time.label(1000.0), "1 µs");
        assert_eq!(Quantity::Time.label(1500.0), "1.5 µs");
        assert_eq!(Quantity::PerSecond.label(20e6), "20 M/s");
        assert_eq!(Quantity::Bytes.label(65536.0), "64 KiB");
        assert_eq!(Quantity::Rarity.label(1000.0), "99.9 %");
        assert_eq!(Quantity::Seconds.label(600.0), "10 min");
        assert_eq!(Quantity::Seconds.label(90.0), "90 s");
    }

    #[test]
    fn marks_lie_inside_their_span() {
        for axis in [
            Axis::linear("", Quantity::Bytes),
            Axis::log("", Quantity::Bytes),
            Axis::linear("", Quantity::Count),
            Axis::log("", Quantity::Time),
        ] {
            let span = axis.span([70.0, 3e6].into_iter());
            assert!((2..=9).contains(&span.marks.len()), "{axis:?} {span:?}");
            let inside = |mark: &f64| (span.from..=span.to).contains(mark);
            assert!(span.marks.iter().all(inside), "{axis:?} {span:?}");
        }
    }

    #[test]
    fn quantiles_have_marks_at_the_half_and_at_each_nine() {
        let span = Axis::log("", Quantity::Rarity).span([1.0, 10_000.0].into_iter());
        let axis = Axis::log("", Quantity::Rarity);
        let labels: Vec<_> = span.marks.iter().map(|&mark| axis.label(mark)).collect();
        assert_eq!(labels, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
