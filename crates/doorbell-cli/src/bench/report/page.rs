//! The page itself.

use std::fmt::Write;

use plotters::style::RGBColor;

use crate::bench::output::Section;
use crate::bench::plot::{Plot, Shape, draw};
use crate::bench::table::Sheet;

/// Returns the page.
///
/// # Errors
///
/// If a plot cannot be drawn.
pub(super) fn of_sections(
    sections: &[Section],
    facts: &[(&str, String)],
    is_quick: bool,
) -> anyhow::Result<String> {
    let title = match sections {
        [one] => format!("doorbell bench {}", one.bench),
        _ => "doorbell bench".to_owned(),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        colours()
    );
    if is_quick {
        page += "<p class=\"warning\">Measured with --quick, to see that it works: the figures mean nothing.</p>\n";
    }
    page += "<dl>\n";
    for (name, fact) in facts {
        writeln!(page, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(fact))?;
    }
    write!(page, "</dl>\n{METHOD}")?;
    if sections.len() > 1 {
        contents(&mut page, sections)?;
    }
    for one in sections {
        section(&mut page, one)?;
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

fn contents(page: &mut String, sections: &[Section]) -> anyhow::Result<()> {
    *page += "<nav>";
    for section in sections {
        write!(page, "<a href=\"#{0}\">{0}</a> ", section.bench)?;
    }
    *page += "</nav>\n";
    Ok(())
}

fn section(page: &mut String, section: &Section) -> anyhow::Result<()> {
    let Section { bench, about, .. } = section;
    write!(page, "<section id=\"{bench}\">\n<h2>{bench}</h2>\n")?;
    write!(page, "<p>{}</p>\n<div class=\"plots\">\n", escaped(about))?;
    for plot in section.plots.iter().filter(|plot| plot.has_points()) {
        figure(page, plot)?;
    }
    *page += "</div>\n";
    for sheet in &section.sheets {
        table(page, sheet)?;
    }
    *page += "</section>\n";
    Ok(())
}

fn figure(page: &mut String, plot: &Plot) -> anyhow::Result<()> {
    let title = escaped(&plot.title);
    write!(page, "<figure>\n<figcaption>{title}</figcaption>\n")?;
    if plot.shape == Shape::Lines {
        *page += "<ul class=\"legend\">";
        for (curve, colour) in plot.curves.iter().zip(draw::colours(plot)) {
            let colour = hexadecimal(colour);
            write!(
                page,
                "<li><svg width=\"18\" height=\"10\" aria-hidden=\"true\"><rect y=\"3\" width=\"18\" height=\"4\" rx=\"2\" \
                 fill=\"{colour}\"/></svg>{}</li>",
                escaped(&curve.name)
            )?;
        }
        *page += "</ul>\n";
    }
    let svg = draw::svg(plot)?;
    *page += &svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{title}\" "),
        1,
    );
    *page += "</figure>\n";
    Ok(())
}

fn table(page: &mut String, sheet: &Sheet) -> anyhow::Result<()> {
    let cell = |page: &mut String, tag: &str, number: usize, text: &str| {
        let class = if number < sheet.names {
            ""
        } else {
            " class=\"number\""
        };
        write!(page, "<{tag}{class}>{}</{tag}>", escaped(text))
    };
    *page += "<div class=\"table\"><table>\n";
    if !sheet.title.is_empty() {
        writeln!(page, "<caption>{}</caption>", escaped(&sheet.title))?;
    }
    *page += "<thead><tr>";
    for (number, name) in sheet.header.iter().enumerate() {
        cell(page, "th", number, name)?;
    }
    *page += "</tr></thead>\n<tbody>\n";
    for line in &sheet.lines {
        *page += "<tr>";
        for (number, text) in line.iter().enumerate() {
            cell(page, "td", number, text)?;
        }
        *page += "</tr>\n";
    }
    *page += "</tbody></table></div>\n";
    Ok(())
}

/// Returns the part of the style sheet that gives the pictures the colours of a dark page.
fn colours() -> String {
    let mut style = String::from("@media (prefers-color-scheme: dark) {\n");
    let subjects = draw::COLOURS.iter().zip(DARK_COLOURS);
    let greys = draw::GREYS.iter().zip(DARK_GREYS);
    let page = [(&draw::INK, "#d6d9dd"), (&draw::GRID, "#3a3f47")];
    for (light, dark) in subjects.chain(greys).chain(page) {
        let light = hexadecimal(*light);
        style += &format!(
            "svg [fill=\"{light}\"] {{ fill: {dark} }} svg [stroke=\"{light}\"] {{ stroke: {dark} }}\n"
        );
    }
    style + "}\n"
}

/// Returns a colour as it stands in a picture.
fn hexadecimal(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = include_str!("style.css");

const METHOD: &str = "\
<p>Doorbell and its references run between two processes or more. A reference is measured right before what is compared with \
it, and a cache line is bounced between the two CPUs before and after: <em>near</em> if that takes less than 200 ns, else \
<em>far</em>. Ratios hold within a placement only; where the host moved the CPUs meanwhile, the row is marked <em>moved</em>, and \
where something else ran on one of them, <em>busy</em>. Figures of several runs are medians.</p>
";

/// The colours of curves, and then of references, on a dark page.
const DARK_COLOURS: [&str; 9] = [
    "#6cb4f5", "#ff9d4d", "#3ed2a4", "#e58acb", "#e6c04a", "#9fd8f5", "#c49a78", "#b3a8ff",
    "#b5cc4b",
];
const DARK_GREYS: [&str; 3] = ["#9a9fa6", "#c4c8ce", "#757b84"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plot::{Axis, Curve, Quantity};

    #[test]
    fn a_page_holds_plots_and_tables_and_nothing_from_elsewhere() {
        let curve = Curve {
            name: "a < b".into(),
            is_reference: false,
            points: vec![(1.0, 2.0), (3.0, 4.0)],
        };
        let plot = |shape| Plot {
            title: "a plot".into(),
            x: Axis::log("x", Quantity::Bytes),
            y: Axis::linear("y", Quantity::Time),
            curves: vec![curve.clone()],
            shape,
        };
        let section = Section {
            bench: "rtt",
            about: "about",
            sheets: vec![Sheet::new(
                "",
                &["name", "value"],
                1,
                [vec!["<".into(), "1".into()]],
            )],
            plots: vec![plot(Shape::Lines), plot(Shape::Bars)],
        };
        let page = of_sections(&[section], &[("CPU", "fast & near".into())], false).unwrap();
        assert_eq!(page.matches("<figure>").count(), 2);
        assert!(page.contains("a &lt; b") && page.contains("fast &amp; near"));
        assert!(page.contains("<td>&lt;</td><td class=\"number\">1</td>"));
        assert!(!page.contains("<script") && !page.contains("http-equiv"));
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http:") && !links.contains("https:"));
    }
}
