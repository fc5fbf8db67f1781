//! SVG by hand: tens of thousands of polygons in few elements, and a pair of axes.

use std::fmt::Write;

use maud::html;

/// Colours of classes, which colour-blind readers tell apart as far as ten can be (Paul Tol's muted
/// scheme).
const CLASSES: [&str; 10] = [
    "#88ccee", "#ddcc77", "#117733", "#cc6677", "#4433aa", "#aa4499", "#44aa99", "#999933",
    "#882255", "#999999",
];

/// Anchors of a scale from dark to light that is even to the eye (close to viridis).
const SCALE: [[f64; 3]; 6] = [
    [68.0, 1.0, 84.0],
    [65.0, 68.0, 135.0],
    [42.0, 120.0, 142.0],
    [34.0, 168.0, 132.0],
    [122.0, 209.0, 81.0],
    [253.0, 231.0, 37.0],
];

/// The colour of a class.
pub(super) fn class_colour(class: usize) -> &'static str {
    CLASSES[class % CLASSES.len()]
}

/// The colour of a share from 0 to 1 on the scale, in 48 steps.
pub(super) fn scale_colour(share: f64) -> String {
    let share = (share.clamp(0.0, 1.0) * 47.0).round() / 47.0 * (SCALE.len() - 1) as f64;
    let low = (share.floor() as usize).min(SCALE.len() - 2);
    let part = share - low as f64;
    let mix = |i: usize| (SCALE[low][i] + part * (SCALE[low + 1][i] - SCALE[low][i])).round();
    format!(
        "#{:02x}{:02x}{:02x}",
        mix(0) as u8,
        mix(1) as u8,
        mix(2) as u8
    )
}

/// The same colour lighter or darker, `share` from −1 (black) to 1 (white).
pub(super) fn shaded(colour: &str, share: f64) -> String {
    let channel = |i: usize| u8::from_str_radix(&colour[i..i + 2], 16).unwrap_or(0);
    let shade = |value: u8| {
        let to = if share > 0.0 { 255.0 } else { 0.0 };
        (f64::from(value) + share.abs() * (to - f64::from(value))).round() as u8
    };
    let [r, g, b] = [1, 3, 5].map(|i| shade(channel(i)));
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// An SVG that is being drawn.
pub(super) struct Canvas {
    size: (f64, f64),
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Canvas {
        Canvas {
            size: (width, height),
            body: String::new(),
        }
    }

    fn push(&mut self, arguments: std::fmt::Arguments) {
        self.body.write_fmt(arguments).expect("a String takes all");
        self.body.push('\n');
    }

    /// Closed outlines as one element.
    pub(super) fn polygons<'p>(
        &mut self,
        polygons: impl Iterator<Item = &'p [[f64; 2]]>,
        style: &str,
    ) {
        let mut path = String::new();
        for corners in polygons {
            for (i, [x, y]) in corners.iter().enumerate() {
                let command = if i == 0 { 'M' } else { 'L' };
                write!(path, "{command}{x:.2} {y:.2}").expect("a String takes all");
            }
            path.push('Z');
        }
        if !path.is_empty() {
            self.push(format_args!("<path d=\"{path}\" {style}/>"));
        }
    }

    /// Straight lines as one element.
    pub(super) fn lines<'p>(
        &mut self,
        lines: impl Iterator<Item = &'p [[f64; 2]; 2]>,
        style: &str,
    ) {
        let mut path = String::new();
        for [[x1, y1], [x2, y2]] in lines {
            write!(path, "M{x1:.2} {y1:.2}L{x2:.2} {y2:.2}").expect("a String takes all");
        }
        if !path.is_empty() {
            self.push(format_args!("<path d=\"{path}\" fill=\"none\" {style}/>"));
        }
    }

    pub(super) fn segment(&mut self, from: [f64; 2], to: [f64; 2], colour: &str, width: f64) {
        let style = format!("stroke=\"{colour}\" stroke-width=\"{width}\"");
        self.lines([[from, to]].iter(), &style);
    }

    pub(super) fn rectangle(&mut self, [x, y, width, height]: [f64; 4], style: &str) {
        self.push(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" {style}/>"
        ));
    }

    pub(super) fn circle(&mut self, [x, y]: [f64; 2], radius: f64, style: &str) {
        self.push(format_args!(
            "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" {style}/>"
        ));
    }

    /// `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(
        &mut self,
        (x, y): (f64, f64),
        anchor: &str,
        size: f64,
        colour: &str,
        text: &str,
    ) {
        let text = html! { (text) }.into_string();
        self.push(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{colour}\">{text}</text>"
        ));
    }

    /// The whole file; `title` is for screen readers.
    pub(super) fn finish(self, title: &str) -> String {
        let (width, height) = self.size;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, sans-serif\" role=\"img\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            html! { (title) }.into_string(),
            self.body
        )
    }
}

/// A pair of axes in a box of the canvas.
pub(super) struct Axes {
    /// Left, top, width, height.
    place: [f64; 4],
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    /// Axes of these ranges; the second is widened a little.
    pub(super) fn new(place: [f64; 4], x: (f64, f64), (low, high): (f64, f64)) -> Axes {
        let room = if high > low { 0.05 * (high - low) } else { 0.5 };
        Axes {
            place,
            x,
            y: (low - room, high + room),
        }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.place[0] + self.place[2] * (value - self.x.0) / (self.x.1 - self.x.0)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.place[1] + self.place[3] * (self.y.1 - value) / (self.y.1 - self.y.0)
    }

    /// Frame, ticks and names.
    pub(super) fn frame(&self, canvas: &mut Canvas, x_name: &str, y_name: &str) {
        let [left, top, width, height] = self.place;
        canvas.rectangle(self.place, "fill=\"none\" stroke=\"#bbb\"");
        for tick in ticks(self.y) {
            let y = self.y(tick);
            canvas.segment([left, y], [left + width, y], "#eee", 1.0);
            canvas.text((left - 6.0, y + 4.0), "end", 11.0, "#444", &number(tick));
        }
        for tick in ticks(self.x) {
            let x = self.x(tick);
            canvas.segment([x, top + height], [x, top + height + 4.0], "#888", 1.0);
            canvas.text(
                (x, top + height + 17.0),
                "middle",
                11.0,
                "#444",
                &number(tick),
            );
        }
        canvas.text((left, top - 8.0), "start", 12.0, "#444", y_name);
        canvas.text(
            (left + 0.5 * width, top + height + 34.0),
            "middle",
            12.0,
            "#444",
            x_name,
        );
    }

    pub(super) fn line(&self, canvas: &mut Canvas, points: &[[f64; 2]], colour: &str, width: f64) {
        let place = |p: &[f64; 2]| [self.x(p[0]), self.y(p[1])];
        let lines: Vec<[[f64; 2]; 2]> = points
            .windows(2)
            .map(|pair| [place(&pair[0]), place(&pair[1])])
            .collect();
        let style = format!(
            "stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linecap=\"round\" stroke-linejoin=\"round\""
        );
        canvas.lines(lines.iter(), &style);
    }
}

/// About five round numbers in a range.
pub(super) fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps
        .into_iter()
        .find(|&step| step >= raw * 0.999)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A tick's number without rounding dust.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" | "" => "0".into(),
        "0" if value != 0.0 => format!("{value:.1e}"),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks((0.0, 1.0)),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        let found: Vec<String> = ticks((-3.0, 17.0)).into_iter().map(number).collect();
        assert_eq!(found, ["0", "5", "10", "15"]);
        assert_eq!(number(1e-9), "1.0e-9");
    }

    #[test]
    fn colours_are_mixed() {
        assert_eq!(
            (scale_colour(0.0), scale_colour(2.0)),
            ("#440154".into(), "#fde725".into())
        );
        assert_eq!(shaded("#000000", 0.5), "#808080");
        assert_eq!(shaded("#ffffff", -0.5), "#808080");
    }

    #[test]
    fn names_are_escaped() {
        let mut canvas = Canvas::new(1.0, 1.0);
        canvas.text((0.0, 0.0), "start", 1.0, "#000", "a<b>&c");
        assert!(canvas.finish("<").contains("a&lt;b&gt;&amp;c"));
    }
}
