//! The two plots, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A named line.
pub struct Line {
    /// What it is.
    pub name: &'static str,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// What an axis shows, and whether in powers of ten.
pub struct Axis {
    /// Quantity and unit.
    pub name: &'static str,
    /// Powers of ten.
    pub logarithmic: bool,
}

/// Draws lines over one axis.
pub fn draw(path: &Path, title: &str, x: &Axis, y: &str, lines: &[Line]) -> Result<()> {
    let exponent = |value: f64| if x.logarithmic { value.log10() } else { value };
    let points = || lines.iter().flat_map(|line| &line.points);
    let from = points()
        .map(|point| exponent(point.0))
        .fold(f64::INFINITY, f64::min);
    let to = points()
        .map(|point| exponent(point.0))
        .fold(f64::NEG_INFINITY, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.1;
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());

    let root = SVGBackend::new(path, (720, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(from..to, 0.0..top)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc(x.name)
        .y_desc(y)
        .x_label_formatter(&|value| {
            if x.logarithmic {
                format!("{:.0}", 10_f64.powf(*value))
            } else {
                format!("{value:.0}")
            }
        })
        .draw()
        .map_err(|error| failed(&error))?;
    for (index, line) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let points = || line.points.iter().map(|point| (exponent(point.0), point.1));
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(2)))
            .map_err(|error| failed(&error))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        chart
            .draw_series(points().map(|point| Circle::new(point, 3, color.filled())))
            .map_err(|error| failed(&error))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))?;
    Ok(())
}
