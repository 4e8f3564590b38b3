//! Plots as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::Plot;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x0b, 0x6e, 0x4f),
    RGBColor(0xc8, 0x55, 0x3d),
    RGBColor(0x2b, 0x59, 0xc3),
    RGBColor(0x8a, 0x6f, 0x00),
    RGBColor(0x7b, 0x2d, 0x8b),
    RGBColor(0x55, 0x55, 0x55),
];
const FONT: &str = "sans-serif";

/// Draws `plot` into `folder`.
///
/// # Errors
///
/// When the file can't be written.
pub fn draw(plot: &Plot, folder: &Path) -> Result<(), Box<dyn Error>> {
    let file = folder.join(format!("{}.svg", plot.name));
    if !plot.bars.is_empty() {
        return draw_bars(plot, &file);
    }
    let points = plot.lines.iter().flat_map(|line| &line.points);
    let (mut x, mut y) = (f64::INFINITY..0.0_f64, f64::INFINITY..0.0_f64);
    for (at, value) in points {
        x = x.start.min(*at)..x.end.max(*at);
        y = y.start.min(*value)..y.end.max(*value);
    }
    if x.start > x.end {
        return Ok(());
    }
    // What is counted has no label between one and two.
    let labels = match plot.log_x {
        true => 10,
        false => (x.end - x.start).round().clamp(1.0, 10.0) as usize + 1,
    };
    let y = if plot.log_y {
        // From a power of ten, of which each has its label.
        10_f64.powf(y.start.log10().floor())..y.end * 3.0
    } else {
        0.0..y.end * 1.35
    };
    match (plot.log_x, plot.log_y) {
        (true, true) => draw_over(plot, &file, labels, x.log_scale(), y.log_scale()),
        (true, false) => draw_over(plot, &file, labels, x.log_scale(), y),
        (false, true) => draw_over(plot, &file, labels, x, y.log_scale()),
        (false, false) => draw_over(plot, &file, labels, x, y),
    }
}

fn draw_over<X, Y>(
    plot: &Plot,
    file: &Path,
    labels: usize,
    x: X,
    y: Y,
) -> Result<(), Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = SVGBackend::new(file, (760, 420)).into_drawing_area();
    // Not transparent: readers in dark mode would see black on black.
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, (FONT, 18))
        .margin(12)
        // The last label of the axis is as wide as this.
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(78)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(&plot.x)
        .y_desc(&plot.y)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_labels(labels)
        .y_labels(if plot.log_y { 4 } else { 8 })
        .x_label_formatter(&|value| label(*value))
        .y_label_formatter(&|value| label(*value))
        .draw()?;
    for (index, line) in plot.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let style = colour.stroke_width(if index == 0 { 3 } else { 2 });
        let points = line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points.clone(), style))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(0xbb, 0xbb, 0xbb))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Lengths to compare, each with its name and its figure. Drawn by hand: it takes a rectangle and
/// two texts for each.
fn draw_bars(plot: &Plot, file: &Path) -> Result<(), Box<dyn Error>> {
    const NAMES: i32 = 210;
    const LENGTH: f64 = 460.0;
    const EACH: i32 = 34;
    let height = 84 + EACH * plot.bars.len() as i32;
    let area = SVGBackend::new(file, (760, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, across| {
        let style: TextStyle = (FONT, size).into_font().into();
        style.pos(Pos::new(across, VPos::Center))
    };
    let title = text(18, HPos::Center);
    area.draw(&Text::new(plot.title.clone(), (380, 24), title))?;
    let longest = plot.bars.iter().map(|(_, length)| *length);
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    for (place, (name, length)) in plot.bars.iter().enumerate() {
        let top = 48 + EACH * place as i32;
        let end = NAMES + (length / longest * LENGTH) as i32;
        let is_ours = name.starts_with("this project");
        let colour = COLOURS[if is_ours { 0 } else { COLOURS.len() - 1 }];
        let bar = [(NAMES, top), (end, top + EACH - 10)];
        area.draw(&Rectangle::new(bar, colour.mix(0.85).filled()))?;
        let middle = top + (EACH - 10) / 2;
        let name = Text::new(name.clone(), (NAMES - 8, middle), text(13, HPos::Right));
        area.draw(&name)?;
        let figure = Text::new(label(*length), (end + 6, middle), text(13, HPos::Left));
        area.draw(&figure)?;
    }
    let unit = text(14, HPos::Center);
    area.draw(&Text::new(plot.x.clone(), (380, height - 18), unit))?;
    area.present()?;
    Ok(())
}

fn label(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.1}");
        format!("{}{unit}", text.trim_end_matches(".0"))
    };
    match value.abs() {
        size if size >= 1e6 => short(value / 1e6, " M"),
        size if size >= 1e3 => short(value / 1e3, " k"),
        size if size >= 10.0 || size.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}
