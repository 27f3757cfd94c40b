//! Rows as a table for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::case::Compared;
use super::row::Row;

/// Returns the rows as a table.
pub(crate) fn render(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADER);
    for row in rows {
        table.add_row(cells(row));
    }
    for column in table.column_iter_mut().skip(LEFT_ALIGNED_COLUMNS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(row: &Row) -> Vec<String> {
    let figures = &row.figures;
    vec![
        row.group.to_owned(),
        row.peer.to_owned(),
        row.mode.to_owned(),
        row.pin.to_owned(),
        bytes(row.size_bytes),
        row.window.to_string(),
        or_dash(figures.p50_ns, duration),
        or_dash(figures.p99_ns, duration),
        or_dash(figures.p999_ns, duration),
        rate(figures.per_s),
        format!("{}B/s", rate(figures.bytes_per_s)),
        or_dash(figures.system_calls_per_message, |calls| {
            format!("{calls:.4}")
        }),
        placement(row),
        or_dash(row.other_load, |cpus| format!("{:.0} %", cpus * 100.0)),
        row.runs.to_string(),
        comparison(row),
    ]
}

fn placement(row: &Row) -> String {
    match (row.placement, row.bounce_before_ns, row.bounce_after_ns) {
        (placement, Some(before), Some(after)) if !placement.is_steady() => {
            format!("{} {before:.0} → {after:.0}", placement.name())
        }
        (placement, Some(before), _) => format!("{} {before:.0}", placement.name()),
        (placement, None, _) => placement.name().to_owned(),
    }
}

fn comparison(row: &Row) -> String {
    let Some(reference) = &row.reference else {
        return "reference".into();
    };
    let of = match row.compared {
        Compared::Typical => "",
        Compared::P99 => " p99",
    };
    match row.ratio {
        Some(_) if !row.placement.is_steady() => format!("({}) {reference}", row.placement.name()),
        Some([median, ..]) if row.runs == 1 => format!("{median:.2} × {reference}{of}"),
        Some([median, least, greatest]) => {
            format!("{median:.2} ({least:.2}–{greatest:.2}) × {reference}{of}")
        }
        None => "–".into(),
    }
}

/// Returns a time in the unit in which it has one to three digits before the point.
pub(crate) fn duration(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        _ if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// Returns a number of things with a decimal unit, such as `4.83 M`; a unit of the thing can follow directly.
pub(crate) fn rate(per_s: f64) -> String {
    match per_s {
        _ if per_s < 1e3 => format!("{per_s:.0} "),
        _ if per_s < 1e6 => format!("{:.1} k", per_s / 1e3),
        _ if per_s < 1e9 => format!("{:.2} M", per_s / 1e6),
        _ => format!("{:.2} G", per_s / 1e9),
    }
}

/// Returns a size in the largest binary unit that divides it.
pub(crate) fn bytes(size: usize) -> String {
    match size {
        _ if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        _ if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        _ => format!("{size} B"),
    }
}

fn or_dash(value: Option<f64>, format: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| "–".into(), format)
}

const HEADER: [&str; 16] = [
    "group",
    "peer",
    "mode",
    "pin",
    "size",
    "window",
    "p50",
    "p99",
    "p99.9",
    "per s",
    "bytes",
    "calls/msg",
    "bounce ns",
    "other load",
    "runs",
    "compared",
];

/// Names stand left, numbers right.
const LEFT_ALIGNED_COLUMNS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_printed_in_a_readable_unit() {
        assert_eq!(duration(352.0), "352 ns");
        assert_eq!(duration(4_500.0), "4.50 µs");
        assert_eq!(rate(4_830_000.0), "4.83 M");
        assert_eq!(bytes(10 << 20), "10 MiB");
        assert_eq!(bytes(100), "100 B");
    }
}
