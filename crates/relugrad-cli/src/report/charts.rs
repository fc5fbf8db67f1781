//! Charts as inline SVG.

use anyhow::{Result, anyhow};
use plotters::coord::combinators::BindKeyPoints;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::table::short;

/// Okabe and Ito's colours, which colour-blind readers tell apart, with black for plain training.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(140, 125, 0),
];

/// Width and height of a chart in pixels.
const SIZE: (u32, u32) = (520, 340);

/// A named sequence of points. `style` chooses colour and marker, the same for a regularizer
/// everywhere.
pub(crate) struct Series {
    pub(crate) style: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a chart shows.
pub(crate) struct Chart {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) logarithmic: (bool, bool),
    /// Whether the points of a series are joined.
    pub(crate) lines: bool,
    pub(crate) series: Vec<Series>,
}

/// Which marker a style has, so that styles of one colour differ.
fn marker(style: usize) -> usize {
    (style + style / COLOURS.len()) % 4
}

/// The colour of a style, as CSS.
pub(crate) fn css_colour(style: usize) -> String {
    let RGBColor(r, g, b) = COLOURS[style % COLOURS.len()];
    format!("rgb({r},{g},{b})")
}

impl Chart {
    /// The chart as an `<svg>` element, or `None` if there is nothing to show.
    pub(crate) fn svg(mut self) -> Result<Option<String>> {
        let (log_x, log_y) = self.logarithmic;
        for series in &mut self.series {
            let shown = |v: f64, log: bool| v.is_finite() && (!log || v > 0.0);
            series
                .points
                .retain(|&(x, y)| shown(x, log_x) && shown(y, log_y));
        }
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        if points().next().is_none() {
            return Ok(None);
        }
        let (x0, x1) = bounds(points().map(|p| p.0), log_x);
        let (y0, y1) = bounds(points().map(|p| p.1), log_y);
        let mut svg = String::new();
        let logarithmic = |low: f64, high: f64| {
            let ticks = logarithmic_ticks(low, high);
            (low..high).log_scale().with_key_points(ticks)
        };
        let drawn = match self.logarithmic {
            (false, false) => self.draw(&mut svg, x0..x1, y0..y1),
            (false, true) => self.draw(&mut svg, x0..x1, logarithmic(y0, y1)),
            (true, false) => self.draw(&mut svg, logarithmic(x0, x1), y0..y1),
            (true, true) => self.draw(&mut svg, logarithmic(x0, x1), logarithmic(y0, y1)),
        };
        drawn?;
        Ok(Some(svg))
    }

    fn draw<X, Y>(&self, svg: &mut String, x: X, y: Y) -> Result<()>
    where
        X: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
        Y: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
    {
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("cannot draw a chart: {error}");
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 62)
            .set_label_area_size(LabelAreaPosition::Bottom, 42)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(120, 120, 120))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .draw()
            .map_err(failed)?;
        for series in &self.series {
            let colour = COLOURS[series.style % COLOURS.len()];
            if self.lines {
                let points = series.points.iter().copied();
                let line = LineSeries::new(points, colour.stroke_width(2));
                chart.draw_series(line).map_err(failed)?;
            }
            let every = if self.lines {
                series.points.len().div_ceil(8).max(1)
            } else {
                1
            };
            let points = series.points.iter().copied().step_by(every);
            let drawn = match marker(series.style) {
                0 => chart.draw_series(points.map(|p| Circle::new(p, 4, colour.filled()))),
                1 => chart.draw_series(points.map(|p| TriangleMarker::new(p, 6, colour.filled()))),
                2 => chart.draw_series(points.map(|p| Cross::new(p, 4, colour.stroke_width(2)))),
                _ => chart.draw_series(points.map(|p| {
                    let square = Rectangle::new([(-4, -4), (4, 4)], colour.filled());
                    EmptyElement::at(p) + square
                })),
            };
            drawn.map_err(failed)?;
        }
        root.present().map_err(failed)
    }
}

/// A series' line and marker for a legend, as an `<svg>` element.
pub(crate) fn legend_mark(style: usize) -> String {
    let colour = css_colour(style);
    let shape = match marker(style) {
        0 => format!(r#"<circle cx="14" cy="7" r="4" fill="{colour}"/>"#),
        1 => format!(r#"<path d="M14 1l6 10h-12z" fill="{colour}"/>"#),
        2 => format!(r#"<path d="M10 3l8 8m0-8l-8 8" stroke="{colour}" stroke-width="2"/>"#),
        _ => format!(r#"<path d="M10 3h8v8h-8z" fill="{colour}"/>"#),
    };
    format!(
        r#"<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true"><path d="M0 7h28" stroke="{colour}" stroke-width="2"/>{shape}</svg>"#
    )
}

/// An interval that holds all values with some room, of positive length.
fn bounds(values: impl Iterator<Item = f64>, logarithmic: bool) -> (f64, f64) {
    let limits = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(limits, |(low, high), v| (low.min(v), high.max(v)));
    if logarithmic {
        let room = (high / low).powf(0.06).max(1.2);
        (low / room, high * room)
    } else {
        let room = if high > low {
            0.05 * (high - low)
        } else {
            0.05 * high.abs().max(1.0)
        };
        (low - room, high + room)
    }
}

/// Powers of ten between two positive numbers; where they are few, also their multiples by 2 and 5,
/// or by all digits.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let within = |factors: &[f64]| -> Vec<f64> {
        let ticks = decades
            .clone()
            .flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)));
        ticks.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let digits: Vec<f64> = (1..10).map(f64::from).collect();
    let mut ticks = within(&[1.0]);
    for finer in [&[1.0, 2.0, 5.0][..], &digits] {
        if ticks.len() < 3 {
            ticks = within(finer);
        }
    }
    ticks
}

/// A tick label: no digits that say nothing.
fn tick(value: f64) -> String {
    let text = short(value);
    let plain = text.contains('.') && !text.contains('e');
    if plain {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.replace(".00e", "e")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, logarithmic: (bool, bool)) -> Option<String> {
        let chart = Chart {
            x: "x".into(),
            y: "y".into(),
            logarithmic,
            lines: true,
            series: vec![Series { style: 1, points }],
        };
        chart.svg().unwrap()
    }

    #[test]
    fn what_a_logarithmic_axis_cannot_show_is_left_out() {
        assert!(chart(vec![(1.0, 0.0)], (false, true)).is_none());
        assert!(chart(vec![(1.0, f64::NAN)], (false, false)).is_none());
        let some = chart(vec![(1.0, 0.0), (2.0, 3.0)], (true, true)).unwrap();
        assert!(some.starts_with("<svg") && some.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn one_point_has_an_axis_of_positive_length() {
        assert!(chart(vec![(0.0, 0.0)], (false, false)).is_some());
        assert!(chart(vec![(2.0, 5.0)], (true, true)).is_some());
    }

    #[test]
    fn logarithmic_axes_have_ticks_whatever_they_span() {
        assert_eq!(logarithmic_ticks(0.8, 6.0), [1.0, 2.0, 5.0]);
        assert_eq!(logarithmic_ticks(0.5, 3e4), [1.0, 10.0, 100.0, 1e3, 1e4]);
        assert_eq!(logarithmic_ticks(2.1, 4.9), [3.0, 4.0]);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(10.0), "10");
        assert_eq!(tick(1e-7), "1e-7");
        assert_eq!(tick(0.0), "0");
    }
}
