//! The page: a plot and a table for each group of rows, in one file that needs nothing else.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::peers::Peer;
use crate::plot;
use crate::row::Row;
use crate::table;

/// Writes the page.
///
/// # Errors
///
/// If a plot cannot be drawn or the file cannot be written.
pub(crate) fn write(path: &Path, rows: &[Row], notes: &[String]) -> anyhow::Result<()> {
    fs::write(path, page(rows, notes)?).with_context(|| format!("cannot write {}", path.display()))
}

fn page(rows: &[Row], notes: &[String]) -> anyhow::Result<String> {
    let mut page = String::from(HEAD);
    for note in notes {
        writeln!(page, "<p>{}</p>", escaped(note))?;
    }
    page.push_str(HOW_TO_READ);
    for group in rows.chunk_by(|left, right| left.group.name == right.group.name) {
        writeln!(page, "<h2>{}</h2>", escaped(&group[0].group.title))?;
        if let Some(svg) = plot::svg(&group.iter().collect::<Vec<_>>())? {
            writeln!(page, "<figure>{svg}</figure>")?;
        }
        page.push_str("<table><tr>");
        for name in table::HEADER {
            write!(page, "<th>{name}</th>")?;
        }
        page.push_str("</tr>\n");
        for row in group {
            page.push_str(row_class(row));
            for cell in table::cells(&row.group.name, row) {
                write!(page, "<td>{}</td>", escaped(&cell))?;
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table>\n");
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

/// Returns the beginning of a row, marked by who it is and who is ahead.
fn row_class(row: &Row) -> &'static str {
    let is_behind = row.doorbell_ahead.is_some_and(|[median, ..]| median < 1.0);
    match row.case.peer {
        Peer::Doorbell => "<tr class=\"doorbell\">",
        _ if row.error.is_some() => "<tr class=\"failed\">",
        _ if is_behind => "<tr class=\"ahead\">",
        _ => "<tr>",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Doorbell beside its rivals</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
h2 { font-size: 1.1em; margin-top: 2.5em }
figure { margin: 0 }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: 2px 9px; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
td:last-child { white-space: normal }
.doorbell { background: #e8f2fb }
.ahead { background: #fbeadd }
.failed { color: #a00 }
</style></head><body>
<h1>Doorbell beside its rivals</h1>
";

const HOW_TO_READ: &str = "<p>Two processes for each row. The last column says how many times faster Doorbell was in the
same run, by the median time of a round trip or by the rate; below 1 the rival is ahead, and its row is shaded. <em>near</em> and
<em>far</em> say how far the two CPUs were from each other, with the nanoseconds in which a cache line goes there and back;
figures of the two are never mixed. <em>least</em> is the number of messages of the caller that was served least.</p>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("a < b & c > d"), "a &lt; b &amp; c &gt; d");
    }

    #[test]
    fn a_page_without_rows_is_complete() {
        let page = page(&[], &["a note".to_owned()]).unwrap();
        assert!(page.contains("<p>a note</p>") && page.ends_with("</html>\n"));
    }
}
