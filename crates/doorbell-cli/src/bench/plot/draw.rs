//! Pictures of plots, as SVG.
//!
//! Colours are those of a light page; the style sheet of the report finds each of them by its value and replaces it on a dark one.

use anyhow::anyhow;
use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, Rectangle};
use plotters::series::LineSeries;
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::ticks::Span;
use super::{Curve, Plot, Shape};

/// Draws a plot.
///
/// # Errors
///
/// If the library cannot, which no known plot makes it do.
pub(crate) fn svg(plot: &Plot) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let height = match plot.shape {
            Shape::Lines => HEIGHT,
            Shape::Bars => 78 + 30 * plot.curves.len() as u32,
        };
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let drawn = match plot.shape {
            Shape::Lines => lines(plot, &area),
            Shape::Bars => bars(plot, &area),
        };
        drawn.map_err(|error| anyhow!("cannot draw {:?}: {error}", plot.title))?;
        area.present()
            .map_err(|error| anyhow!("cannot draw {:?}: {error}", plot.title))?;
    }
    Ok(text)
}

/// Returns the colour of each curve.
pub(crate) fn colours(plot: &Plot) -> Vec<RGBColor> {
    let (mut subjects, mut references) = (COLOURS.iter().cycle(), GREYS.iter().cycle());
    let colour = |curve: &Curve| match curve.is_reference {
        true => references.next(),
        false => subjects.next(),
    };
    plot.curves
        .iter()
        .map(colour)
        .map(|colour| *colour.expect("a cycle has no end"))
        .collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn lines(plot: &Plot, area: &Area<'_>) -> Drawn {
    let points = || plot.curves.iter().flat_map(|curve| &curve.points);
    let x = plot.x.span(points().map(|point| point.0));
    let y = plot.y.span(points().map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(54)
        .y_label_area_size(100)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .label_style(small())
        .axis_desc_style(small())
        .x_desc(plot.x.name)
        .y_desc(plot.y.name)
        .x_label_formatter(&|place| plot.x.label(*place))
        .y_label_formatter(&|place| plot.y.label(*place))
        .draw()?;
    for (curve, colour) in plot.curves.iter().zip(colours(plot)) {
        let places = || {
            let place = |&(x, y): &(f64, f64)| (plot.x.place(x), plot.y.place(y));
            curve.points.iter().map(place)
        };
        chart.draw_series(LineSeries::new(places(), colour.stroke_width(2)))?;
        if curve.points.len() <= MOST_DOTS {
            chart.draw_series(places().map(|place| Circle::new(place, 3, colour.filled())))?;
        }
    }
    Ok(())
}

fn bars(plot: &Plot, area: &Area<'_>) -> Drawn {
    let length = |curve: &Curve| curve.points.first().map_or(0.0, |point| point.1);
    let span = plot.y.span(plot.curves.iter().map(length));
    let count = plot.curves.len();
    // The first curve stands above.
    let places = Span {
        from: count as f64,
        to: 0.0,
        marks: (0..count).map(|number| number as f64 + 0.5).collect(),
    };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(54)
        .y_label_area_size(250)
        .build_cartesian_2d(span, places)?;
    chart
        .configure_mesh()
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .disable_y_mesh()
        .label_style(small())
        .axis_desc_style(small())
        .x_desc(plot.y.name)
        .x_label_formatter(&|place| plot.y.label(*place))
        .y_label_formatter(&|middle| {
            let curve = plot.curves.get(*middle as usize);
            curve.map_or_else(String::new, |curve| curve.name.clone())
        })
        .draw()?;
    for (number, (curve, colour)) in plot.curves.iter().zip(colours(plot)).enumerate() {
        let (top, end) = (number as f64 + 0.18, plot.y.place(length(curve)));
        let corners = [(0.0, top), (end, top + 0.64)];
        chart.draw_series([Rectangle::new(corners, ShapeStyle::from(colour).filled())])?;
    }
    Ok(())
}

fn small() -> TextStyle<'static> {
    ("sans-serif", 16).into_font().color(&INK)
}

/// What a style sheet finds and replaces.
pub(crate) const INK: RGBColor = RGBColor(0x01, 0x01, 0x01);
pub(crate) const GRID: RGBColor = RGBColor(0xD0, 0xD0, 0xD1);

/// Colours that people who see fewer of them can tell apart too.
pub(crate) const COLOURS: [RGBColor; 9] = [
    RGBColor(0x00, 0x5F, 0xAF),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x8F, 0x6B),
    RGBColor(0xAA, 0x3A, 0x8C),
    RGBColor(0xB8, 0x86, 0x00),
    RGBColor(0x3A, 0x9B, 0xD0),
    RGBColor(0x7A, 0x4E, 0x2D),
    RGBColor(0x6A, 0x5A, 0xCD),
    RGBColor(0x5F, 0x7A, 0x00),
];

/// Colours of references.
pub(crate) const GREYS: [RGBColor; 3] = [
    RGBColor(0x8C, 0x8C, 0x8D),
    RGBColor(0x5C, 0x5C, 0x5D),
    RGBColor(0xB0, 0xB0, 0xB1),
];

const WIDTH: u32 = 680;
const HEIGHT: u32 = 380;

/// Curves with more points than this have no dots.
const MOST_DOTS: usize = 24;
