//! Plots of the rows of a benchmark.

use super::{Axis, Curve, Plot, Quantity, Shape, of_distributions};
use crate::bench::row::Row;
use crate::bench::table::bytes;

/// Draws how round-trip times are distributed: a plot for each group and size.
pub(crate) fn distributions(rows: &[Row]) -> Vec<Plot> {
    let title = |row: &Row| format!("{}, {}", row.group, bytes(row.size_bytes));
    let plot = |(title, rows): (String, Vec<&Row>)| {
        let curves = rows.iter().filter_map(|row| {
            let distribution = row.figures.distribution_ns?;
            Some((name(row, &rows), row.reference.is_none(), distribution))
        });
        of_distributions(title, curves)
    };
    let plots = grouped(rows, title).into_iter().map(plot);
    plots.filter(Plot::has_points).collect()
}

/// Draws the rate of each row as a bar: a plot for each group and size.
pub(crate) fn rates(rows: &[Row]) -> Vec<Plot> {
    let title = |row: &Row| format!("{}, {}", row.group, bytes(row.size_bytes));
    let plot = |(title, rows): (String, Vec<&Row>)| Plot {
        title,
        x: Axis::linear("", Quantity::Count),
        y: Axis::linear("messages each second", Quantity::PerSecond),
        curves: rows
            .iter()
            .map(|row| Curve {
                name: name(row, &rows),
                is_reference: row.reference.is_none(),
                points: vec![(0.0, row.figures.per_s)],
            })
            .collect(),
        shape: Shape::Bars,
    };
    grouped(rows, title).into_iter().map(plot).collect()
}

/// Draws how many bytes pass each second against the size of a message: a plot for each group.
pub(crate) fn bytes_by_size(rows: &[Row]) -> Vec<Plot> {
    by(
        rows,
        |row| row.group.to_owned(),
        Axis::log("size of a message", Quantity::Bytes),
        Axis::log("payload each second", Quantity::BytesPerSecond),
        |row| Some((row.size_bytes as f64, row.figures.bytes_per_s)),
    )
}

/// Draws the time and the bytes each second of large messages against their size, with one copy beside them.
pub(crate) fn large(rows: &[Row]) -> Vec<Plot> {
    let size = Axis::log("size of a message", Quantity::Bytes);
    let time = Axis::log("50 % took at most", Quantity::Time);
    let payload = Axis::log("payload each second", Quantity::BytesPerSecond);
    let times = by(
        rows,
        |_| "time of a round trip".into(),
        size,
        time,
        |row| Some((row.size_bytes as f64, row.figures.p50_ns?)),
    );
    let bytes = by(
        rows,
        |_| "payload".into(),
        size,
        payload,
        |row| Some((row.size_bytes as f64, row.figures.bytes_per_s)),
    );
    [times, bytes].concat()
}

/// Draws rates, slow round trips and memory against the number of connections.
pub(crate) fn scale(rows: &[Row]) -> Vec<Plot> {
    let connections = Axis::log("connections", Quantity::Count);
    let mut plots = by(
        rows,
        |row| format!("{}: messages", row.group),
        connections,
        Axis::linear("messages each second, all together", Quantity::PerSecond),
        |row| Some((row.connections as f64, row.figures.per_s)),
    );
    plots.extend(by(
        rows,
        |row| format!("{}: slow round trips", row.group),
        connections,
        Axis::log("99 % took at most", Quantity::Time),
        |row| Some((row.connections as f64, row.figures.p99_ns?)),
    ));
    plots.extend(by(
        rows,
        |row| format!("{}: memory", row.group),
        connections,
        Axis::log("memory of the server", Quantity::Bytes),
        |row| Some((row.connections as f64, row.figures.server_bytes?)),
    ));
    plots
}

/// Draws time and CPUs used against the rate of round trips.
///
/// A curve joins rates, and where the CPUs are may have changed between two of them: the table tells.
pub(crate) fn waking(rows: &[Row]) -> Vec<Plot> {
    let rate = Axis::log("round trips each second", Quantity::PerSecond);
    let pace = |row: &Row| row.figures.paced_per_s.unwrap_or(row.figures.per_s);
    let name = |row: &Row, _others: &[&Row]| match row.waiting {
        Some(waiting) => format!("{}, spin {}", row.peer, waiting.name()),
        None => row.peer.to_owned(),
    };
    let against_rate = |what: &str, y, value: fn(&Row) -> Option<f64>| {
        let title = |row: &Row| format!("{}: {what}", row.group);
        named(rows, title, name, rate, y, |row| {
            Some((pace(row), value(row)?))
        })
    };
    [
        against_rate(
            "half of all round trips",
            Axis::log("50 % took at most", Quantity::Time),
            |row| row.figures.p50_ns,
        ),
        against_rate(
            "slow round trips",
            Axis::log("99 % took at most", Quantity::Time),
            |row| row.figures.p99_ns,
        ),
        against_rate(
            "CPUs",
            Axis::linear("CPUs used by both processes", Quantity::Count),
            |row| row.figures.cpus_used,
        ),
    ]
    .concat()
}

/// Makes a plot for each group of rows with the same title, with a curve for each name in it.
fn by(
    rows: &[Row],
    title: impl Fn(&Row) -> String,
    x: Axis,
    y: Axis,
    point: impl Fn(&Row) -> Option<(f64, f64)>,
) -> Vec<Plot> {
    named(rows, title, name, x, y, point)
}

/// As [`by`], with other names for the curves.
fn named(
    rows: &[Row],
    title: impl Fn(&Row) -> String,
    name: impl Fn(&Row, &[&Row]) -> String,
    x: Axis,
    y: Axis,
    point: impl Fn(&Row) -> Option<(f64, f64)>,
) -> Vec<Plot> {
    let plot = |(title, rows): (String, Vec<&Row>)| {
        let mut curves: Vec<Curve> = Vec::new();
        for row in &rows {
            let name = name(row, &rows);
            let Some(point) = point(row) else { continue };
            match curves.iter_mut().find(|curve| curve.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    name,
                    is_reference: row.reference.is_none(),
                    points: vec![point],
                }),
            }
        }
        for curve in &mut curves {
            curve.points.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        Plot {
            title,
            x,
            y,
            curves,
            shape: Shape::Lines,
        }
    };
    let plots = grouped(rows, title).into_iter().map(plot);
    plots.filter(Plot::has_points).collect()
}

/// Puts rows with the same title together, in the order in which the titles come first.
fn grouped(rows: &[Row], title: impl Fn(&Row) -> String) -> Vec<(String, Vec<&Row>)> {
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let title = title(row);
        match groups.iter_mut().find(|(other, _)| *other == title) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((title, vec![row])),
        }
    }
    groups
}

/// Returns what a row is called among `others`: with its placement where that differs, and with how it waits.
fn name(row: &Row, others: &[&Row]) -> String {
    let mut name = format!("{} {}", row.peer, row.mode);
    if others
        .iter()
        .any(|other| other.waiting != row.waiting && other.waiting.is_some())
        && let Some(waiting) = row.waiting
    {
        name = format!("{name}, spin {}", waiting.name());
    }
    if others.iter().any(|other| other.placement != row.placement) {
        name = format!("{name} ({})", row.placement.name());
    }
    name
}
