//! One plot for each group of rows, as SVG.
//!
//! Bars on a logarithmic scale, a line for each row of the table: the median time with a whisker to the 99th percentile, or the
//! rate. Doorbell and its rivals have different colours, near and far different shades.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peers::Peer;
use crate::placement::Placement;
use crate::row::Row;
use crate::sample::By;
use crate::table;

/// Returns the plot of the rows of one group, or `None` if none of them has figures.
///
/// # Errors
///
/// If it cannot be drawn.
pub(crate) fn svg(rows: &[&Row]) -> anyhow::Result<Option<String>> {
    let bars: Vec<_> = rows.iter().filter_map(|row| Bar::of_row(row)).collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let height = MARGIN + AXIS + BAR_HEIGHT * bars.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area, &bars, rows[0].group.by).map_err(|error| anyhow!("cannot plot: {error}"))?;
    }
    Ok(Some(svg))
}

/// One row as it is drawn.
struct Bar {
    label: String,
    value: f64,
    /// How far the whisker goes.
    whisker: Option<f64>,
    text: String,
    colour: RGBColor,
}

impl Bar {
    fn of_row(row: &Row) -> Option<Self> {
        if row.error.is_some() {
            return None;
        }
        let (value, whisker, text) = match row.group.by {
            By::Time => {
                let p50_ns = row.figures.p50_ns?;
                (p50_ns, row.figures.p99_ns, table::duration(p50_ns))
            }
            By::Rate => (row.per_s, None, format!("{}/s", table::rate(row.per_s))),
        };
        Some(Self {
            label: format!(
                "{} {}, {}",
                row.case.peer.name(),
                row.case.mode.name(),
                row.placement
            ),
            value,
            whisker,
            text,
            colour: colour(row.case.peer, row.placement),
        })
    }
}

fn draw<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    bars: &[Bar],
    by: By,
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let values = || {
        bars.iter()
            .flat_map(|bar| [Some(bar.value), bar.whisker])
            .flatten()
    };
    let least = values().fold(f64::INFINITY, f64::min);
    let greatest = values().fold(0.0, f64::max);
    // Room at both ends: a bar of the least value is visible, and the text fits behind the greatest.
    let (from, to) = (least / 3.0, greatest * 8.0);
    let rows = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS)
        .build_cartesian_2d((from..to).log_scale(), rows..0.0)?;
    let tick = |value: &f64| match by {
        By::Time => table::duration(*value),
        By::Rate => table::rate(*value),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&tick)
        .x_desc(match by {
            By::Time => "round trip, median with a line to the 99th percentile (shorter is better)",
            By::Rate => "messages per second (longer is better)",
        })
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let (top, bottom) = (index as f64 + 0.15, index as f64 + 0.85);
        let middle = f64::midpoint(top, bottom);
        let style = bar.colour.filled();
        chart.draw_series([Rectangle::new([(from, top), (bar.value, bottom)], style)])?;
        if let Some(whisker) = bar.whisker {
            let ends = [(bar.value, middle), (whisker, middle)];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(2))])?;
        }
        let at = bar.whisker.unwrap_or(bar.value).max(bar.value) * 1.1;
        let text = |right| {
            (FONT, 16)
                .into_font()
                .color(&BLACK)
                .pos(Pos::new(right, VPos::Center))
        };
        chart.draw_series([Text::new(bar.text.clone(), (at, middle), text(HPos::Left))])?;
        let (_, y) = chart.backend_coord(&(from, middle));
        area.draw_text(&bar.label, &text(HPos::Right), (LABELS as i32, y))?;
    }
    area.present()?;
    Ok(())
}

fn colour(peer: Peer, placement: Placement) -> RGBColor {
    match (peer, placement) {
        (Peer::Doorbell, Placement::Far) => RGBColor(120, 190, 240),
        (Peer::Doorbell, _) => RGBColor(20, 110, 190),
        (_, Placement::Far) => RGBColor(225, 205, 170),
        _ => RGBColor(215, 150, 60),
    }
}

const FONT: &str = "sans-serif";
const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 26;
const AXIS: u32 = 48;
const MARGIN: u32 = 16;
const LABELS: u32 = 240;
