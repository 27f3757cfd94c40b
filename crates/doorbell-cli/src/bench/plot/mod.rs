//! Plots as data: what is drawn, on which axes.
//!
//! [`rows`] makes them of the rows of a benchmark, [`draw`] makes pictures of them.

pub(crate) mod draw;
pub(crate) mod rows;
mod ticks;

use super::sample::{Distribution, QUANTILES};

/// A picture of figures.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) curves: Vec<Curve>,
    pub(crate) shape: Shape,
}

impl Plot {
    /// Returns `true` if there is anything to see.
    pub(crate) fn has_points(&self) -> bool {
        self.curves.iter().any(|curve| !curve.points.is_empty())
    }
}

/// How the points are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Joined by lines.
    Lines,
    /// A bar for the first point of each curve, as long as its `y`.
    Bars,
}

/// What an axis shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    pub(crate) quantity: Quantity,
    pub(crate) scale: Scale,
}

/// How values are spread on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero, equal steps.
    Linear,
    /// Equal factors; values have to be above zero.
    Log,
}

/// What a value is, which decides its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Nanoseconds.
    Time,
    /// Seconds.
    Seconds,
    /// Something each second.
    PerSecond,
    /// Bytes each second.
    BytesPerSecond,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// 1 / (1 - q) for the quantile q: nine tenths are at 10, 99 % at 100.
    Rarity,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// References are drawn in grey.
    pub(crate) is_reference: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Axis {
    pub(crate) const fn linear(name: &'static str, quantity: Quantity) -> Self {
        Self {
            name,
            quantity,
            scale: Scale::Linear,
        }
    }

    pub(crate) const fn log(name: &'static str, quantity: Quantity) -> Self {
        Self {
            name,
            quantity,
            scale: Scale::Log,
        }
    }
}

/// Makes a plot of the distribution of times, each in nanoseconds for the quantiles of [`QUANTILES`].
pub(crate) fn of_distributions(
    title: String,
    curves: impl Iterator<Item = (String, bool, Distribution)>,
) -> Plot {
    let curve = |(name, is_reference, distribution_ns): (_, _, Distribution)| Curve {
        name,
        is_reference,
        points: QUANTILES
            .iter()
            .zip(distribution_ns)
            .filter_map(|(quantile, ns)| Some((1.0 / (1.0 - quantile), ns?.max(1.0))))
            .collect(),
    };
    Plot {
        title,
        x: Axis::log("part of all", Quantity::Rarity),
        y: Axis::log("took at most", Quantity::Time),
        curves: curves.map(curve).collect(),
        shape: Shape::Lines,
    }
}
