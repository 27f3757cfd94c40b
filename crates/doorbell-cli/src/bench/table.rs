//! Tables for people.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::case::Compared;
use super::options::Waiting;
use super::row::Row;

/// A table, for the terminal and for a page.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) lines: Vec<Vec<String>>,
    /// How many columns hold names, which stand left; numbers stand right.
    pub(crate) names: usize,
}

impl Sheet {
    /// Makes a table of rows, with the columns in which at least one row has something other than the default.
    pub(crate) fn of_rows(rows: &[Row]) -> Self {
        let is_default = |text: &String| *text == Waiting::Adaptive.name();
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter(|(_, cell)| {
                let mut cells = rows.iter().filter_map(cell);
                cells.any(|text| !is_default(&text))
            })
            .collect();
        let line = |row| {
            let cell = |(_, cell): &&(_, Cell)| cell(row).unwrap_or_else(|| "–".into());
            columns.iter().map(cell).collect()
        };
        Self {
            title: String::new(),
            header: columns.iter().map(|(name, _)| (*name).into()).collect(),
            lines: rows.iter().map(line).collect(),
            names: NAMES,
        }
    }

    /// Makes a table of lines; the first `names` columns hold names.
    pub(crate) fn new(
        title: impl Into<String>,
        header: &[&str],
        names: usize,
        lines: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self {
            title: title.into(),
            header: header.iter().map(|name| (*name).into()).collect(),
            lines: lines.into_iter().collect(),
            names,
        }
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_header(&self.header);
        table.add_rows(&self.lines);
        for column in table.column_iter_mut().skip(self.names) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if !self.title.is_empty() {
            writeln!(f, "{}", self.title)?;
        }
        table.fmt(f)
    }
}

/// What a row has to say in a column.
type Cell = fn(&Row) -> Option<String>;

const COLUMNS: [(&str, Cell); 21] = [
    ("group", |row| Some(row.group.into())),
    ("peer", |row| Some(row.peer.into())),
    ("mode", |row| Some(row.mode.into())),
    ("pin", |row| Some(row.pin.into())),
    ("compared", |row| Some(comparison(row))),
    ("spin", |row| {
        row.waiting.map(|waiting| waiting.name().into())
    }),
    ("pause", |row| {
        row.pause.map(|pause| duration(pause.as_nanos() as f64))
    }),
    ("size", |row| Some(bytes(row.size_bytes))),
    ("connections", |row| {
        (row.connections > 1).then(|| row.connections.to_string())
    }),
    ("window", |row| Some(row.window.to_string())),
    ("p50", |row| row.figures.p50_ns.map(duration)),
    ("p99", |row| row.figures.p99_ns.map(duration)),
    ("p99.9", |row| row.figures.p999_ns.map(duration)),
    ("per s", |row| Some(rate(row.figures.per_s))),
    ("with pauses", |row| row.figures.paced_per_s.map(rate)),
    ("bytes", |row| {
        Some(format!("{}B/s", rate(row.figures.bytes_per_s)))
    }),
    ("calls/msg", |row| {
        let calls = row.figures.system_calls_per_message;
        calls.map(|calls| format!("{calls:.4}"))
    }),
    ("CPUs", |row| {
        row.figures.cpus_used.map(|cpus| format!("{cpus:.3}"))
    }),
    ("server memory", |row| row.figures.server_bytes.map(memory)),
    ("bounce ns", |row| Some(placement(row))),
    ("other load", |row| {
        row.other_load.map(|cpus| format!("{:.0} %", cpus * 100.0))
    }),
];

/// References before and after a row differ by a tenth or two even on a quiet machine.
const DRIFT_SHOWN: f64 = 1.3;

/// The first columns hold names.
const NAMES: usize = 4;

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
        Compared::Rate => " rate",
    };
    let drift = match row.reference_drift {
        Some(drift) if drift > DRIFT_SHOWN => format!(", which changed by {drift:.1} ×"),
        _ => String::new(),
    };
    match row.ratio {
        Some(_) if !row.placement.is_steady() => format!("({}) {reference}", row.placement.name()),
        Some([median, ..]) if row.runs == 1 => format!("{median:.2} × {reference}{of}{drift}"),
        Some([median, least, greatest]) => {
            let runs = row.runs;
            format!("{median:.2} ({least:.2}–{greatest:.2}, {runs} runs) × {reference}{of}{drift}")
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

/// Returns an amount of memory in a unit in which it can be read.
pub(crate) fn memory(bytes: f64) -> String {
    match bytes.abs() {
        amount if amount < 10_240.0 * 1024.0 => format!("{:.0} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1_048_576.0),
    }
}

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
        assert_eq!(memory(2_500_000.0), "2441 KiB");
        assert_eq!(memory(20_971_520.0), "20.0 MiB");
    }
}
