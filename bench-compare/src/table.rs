//! Rows as a table for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::peers::Peer;
use crate::row::Row;

/// Returns the rows as one table, grouped by what is done.
pub(crate) fn render(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADER);
    let mut group = "";
    for row in rows {
        let name = if row.group.name == group {
            ""
        } else {
            row.group.name.as_str()
        };
        group = &row.group.name;
        table.add_row(cells(name, row));
    }
    for column in table
        .column_iter_mut()
        .skip(LEFT_ALIGNED_COLUMNS)
        .take(NUMBER_COLUMNS)
    {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns the row as text, a cell for each of [`HEADER`].
pub(crate) fn cells(group: &str, row: &Row) -> Vec<String> {
    let figures = &row.figures;
    let has_failed = row.error.is_some();
    vec![
        group.to_owned(),
        row.case.peer.name().to_owned(),
        row.case.mode.name().to_owned(),
        row.group.pin.name().to_owned(),
        or_dash(row.bounce_ns, |ns| format!("{} {ns:.0}", row.placement)),
        or_dash(figures.p50_ns, duration),
        or_dash(figures.p99_ns, duration),
        or_dash(figures.p999_ns, duration),
        or_dash((!has_failed).then_some(row.per_s), rate),
        or_dash(figures.least_messages, |least| least.to_string()),
        row.runs.to_string(),
        verdict(row),
    ]
}

/// Says who is ahead and by how much.
fn verdict(row: &Row) -> String {
    if let Some(error) = &row.error {
        return format!("FAILED: {error}");
    }
    let Some([median, least, greatest]) = row.doorbell_ahead else {
        return if row.doorbell_is_base() {
            "the others are compared with this".into()
        } else {
            format!("not compared ({})", row.placement)
        };
    };
    let spread = if row.runs > 1 {
        format!(" ({least:.2}–{greatest:.2})")
    } else {
        String::new()
    };
    let who = match row.case.peer {
        Peer::Doorbell => return format!("first row {median:.2} ×{spread}"),
        _ if median < 1.0 => ", this is AHEAD of Doorbell",
        _ => "",
    };
    let doubt = if row.placement.is_steady() {
        String::new()
    } else {
        format!(", {}", row.placement)
    };
    format!("Doorbell {median:.2} ×{spread}{who}{doubt}")
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

/// Returns a number of things with a decimal unit, such as `4.83 M`.
pub(crate) fn rate(per_s: f64) -> String {
    match per_s {
        _ if per_s < 1e3 => format!("{per_s:.0}"),
        _ if per_s < 1e6 => format!("{:.1} k", per_s / 1e3),
        _ => format!("{:.2} M", per_s / 1e6),
    }
}

fn or_dash<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".into(), format)
}

/// The columns of the table and of the page.
pub(crate) const HEADER: [&str; 12] = [
    "work",
    "peer",
    "mode",
    "pin",
    "bounce ns",
    "p50",
    "p99",
    "p99.9",
    "per s",
    "least",
    "runs",
    "Doorbell is faster by",
];

/// Names stand left, numbers right.
const LEFT_ALIGNED_COLUMNS: usize = 5;
const NUMBER_COLUMNS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_printed_in_a_readable_unit() {
        assert_eq!(duration(352.0), "352 ns");
        assert_eq!(duration(4_500.0), "4.50 µs");
        assert_eq!(rate(4_830_000.0), "4.83 M");
    }
}
