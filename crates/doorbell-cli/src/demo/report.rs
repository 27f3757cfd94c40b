//! The table at the end.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use super::session::{
    Report,
    record::{Record, Timed},
};

/// Renders the reports of the same session over one transport or two.
pub(crate) fn render(reports: &[Report]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", times(reports)); // writing to a string cannot fail
    let _ = writeln!(text, "{}", totals(reports));
    for report in reports {
        let _ = write!(text, "{}", verdict(report));
    }
    text
}

fn times(reports: &[Report]) -> Table {
    let mut head = vec!["".to_owned(), "calls".to_owned(), "bytes".to_owned()];
    for report in reports {
        head.extend(["p50", "p99"].map(|part| format!("{}\n{part}", report.transport.title())));
    }
    let mut table = table(head);
    for timed in Timed::ALL {
        let first = reports[0].record.row(timed);
        let mut row = vec![
            timed.title().to_owned(),
            first.count().to_string(),
            bytes(first.bytes),
        ];
        for report in reports {
            let measured = report.record.row(timed);
            row.extend([0.5, 0.99].map(|part| match measured.count() {
                0 => "-".to_owned(),
                _ => duration(measured.quantile(part)),
            }));
        }
        add_row(&mut table, row);
    }
    table
}

fn totals(reports: &[Report]) -> Table {
    let mut head = vec!["whole session".to_owned()];
    head.extend(
        reports
            .iter()
            .map(|report| report.transport.title().to_owned()),
    );
    let mut table = table(head);
    let mut line = |title: &str, value: &dyn Fn(&Report) -> String| {
        let mut row = vec![title.to_owned()];
        row.extend(reports.iter().map(value));
        add_row(&mut table, row);
    };
    line("time with an engine", &|it| duration(it.time));
    line("completions dropped / engine stopped", &|it| {
        format!(
            "{} / {}",
            it.record.completions_dropped, it.record.completions_stopped
        )
    });
    line("their tokens: read / made", &|it| {
        format!("{} / {}", it.record.tokens_read, it.record.tokens_made)
    });
    line("searches replaced by a newer one", &|it| {
        it.record.searches_dropped.to_string()
    });
    line("messages, both directions", &|it| {
        it.costs.messages.to_string()
    });
    line("wake-ups of the editor", &|it| {
        it.costs.wake_ups.to_string()
    });
    line("system calls of the editor, per message", &|it| {
        format!(
            "{:.3}",
            it.costs.system_calls as f64 / it.costs.messages.max(1) as f64
        )
    });
    line("at SIGKILL: Unknown / NotExecuted", &|it| {
        format!(
            "{} / {}",
            it.record.endings.unknown, it.record.endings.not_executed
        )
    });
    line("all outcomes known after", &|it| duration(it.kill.settled));
    line("next engine served after", &|it| {
        duration(it.kill.restarted)
    });
    table
}

fn verdict(report: &Report) -> String {
    let Record {
        comparisons,
        difference_count,
        differences,
        changed_on_disk,
        ..
    } = &report.record;
    let title = report.transport.title();
    let mut text = format!("{title}: {comparisons} comparisons, {difference_count} differences\n");
    if *changed_on_disk > 0 {
        let _ = writeln!(
            text,
            "  ({changed_on_disk} answers showed files as they were changed during the session)"
        );
    }
    for difference in differences {
        let _ = writeln!(text, "  {difference}");
    }
    if *difference_count > differences.len() as u64 {
        let _ = writeln!(
            text,
            "  and {} more",
            *difference_count - differences.len() as u64
        );
    }
    text
}

fn table(head: Vec<String>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head);
    table
}

fn add_row(table: &mut Table, row: Vec<String>) {
    let mut cells = row.into_iter();
    let title = cells.next().map(Cell::new);
    table.add_row(
        title
            .into_iter()
            .chain(cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right))),
    );
}

/// Writes a number of bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn duration(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        ..10.0 => format!("{us:.2} µs"),
        ..1e3 => format!("{us:.0} µs"),
        ..1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_or_three_digits() {
        assert_eq!(duration(Duration::from_nanos(1_234)), "1.23 µs");
        assert_eq!(duration(Duration::from_micros(56)), "56 µs");
        assert_eq!(duration(Duration::from_micros(2_345)), "2.3 ms");
        assert_eq!(duration(Duration::from_millis(2_346)), "2.35 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345), "12.3 kB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
    }
}
