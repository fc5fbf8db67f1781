//! The picture of a slice.

use std::collections::BTreeMap;

use relugrad::{Edge, Polygon};

use super::arguments::Colour;
use super::drawing::{Canvas, class_colour, number, scale_colour, shaded, ticks};
use super::slice::{Shown, View, areas};
use crate::report::short;

/// The longer side of the window in pixels.
const SIDE: f64 = 720.0;

/// How wide a letter of the title is, at least.
const TITLE_LETTER: f64 = 8.5;

/// Where the window is on the canvas.
struct Place {
    left: f64,
    top: f64,
    scale: [f64; 2],
    window: [[f64; 2]; 2],
}

impl Place {
    fn new(window: [[f64; 2]; 2]) -> Place {
        let [width, height] = window.map(|[low, high]| high - low);
        let longer = SIDE / width.max(height);
        // A slice that is much longer than high is stretched, to stay legible.
        let [x, y] = [width, height].map(|side| (side * longer).max(0.4 * SIDE) / side);
        Place {
            left: 60.0,
            top: 50.0,
            scale: [x, y],
            window,
        }
    }

    fn size(&self) -> [f64; 2] {
        [0, 1].map(|axis| (self.window[axis][1] - self.window[axis][0]) * self.scale[axis])
    }

    fn at(&self, [a, b]: [f64; 2]) -> [f64; 2] {
        let x = self.left + (a - self.window[0][0]) * self.scale[0];
        [x, self.top + (self.window[1][1] - b) * self.scale[1]]
    }

    fn polygon(&self, polygon: &Polygon) -> Vec<[f64; 2]> {
        polygon
            .corners
            .iter()
            .map(|&corner| self.at(corner))
            .collect()
    }
}

/// Regions by colour, their outlines, the decision boundary, the marked points, and what the
/// colours mean.
pub(super) fn picture(title: &str, view: &View, shown: &[Shown], colour: Colour) -> String {
    let place = Place::new(view.window);
    let [width, height] = place.size();
    let classes = match colour {
        Colour::Class => areas(shown).len(),
        Colour::Jacobian | Colour::InputGradient | Colour::Curvature => 0,
    };
    let legend = 100.0 + f64::max(20.0 * classes as f64, 240.0);
    let words = TITLE_LETTER * title.chars().count() as f64;
    let mut canvas = Canvas::new(
        (width + 260.0).max(place.left + words + 20.0),
        (height + 120.0).max(place.top + legend),
    );
    canvas.text((place.left, 28.0), "start", 15.0, "#222", title);
    let range = scale_range(shown);
    for (fill, polygons) in fills(&place, shown, colour, range) {
        // A stroke of its own colour hides the seams between neighbours.
        let style = format!(
            "fill=\"{fill}\" stroke=\"{fill}\" stroke-width=\"0.5\" stroke-linejoin=\"round\""
        );
        canvas.polygons(polygons.iter().map(|p| &p[..]), &style);
    }
    let thin = (40.0 / (shown.len() as f64).sqrt()).clamp(0.08, 0.8);
    let outlines: Vec<Vec<[f64; 2]>> = shown
        .iter()
        .map(|s| place.polygon(&s.cell.polygon))
        .collect();
    let style =
        format!("fill=\"none\" stroke=\"#fff\" stroke-opacity=\"0.75\" stroke-width=\"{thin:.2}\"");
    canvas.polygons(outlines.iter().map(|p| &p[..]), &style);
    let boundary = boundary(&place, shown);
    canvas.lines(
        boundary.iter(),
        "stroke=\"#111\" stroke-width=\"2\" stroke-linecap=\"round\"",
    );
    frame(&mut canvas, &place, &view.axes);
    for (at, name) in &view.marks {
        let [x, y] = place.at(*at);
        canvas.circle(
            [x, y],
            5.0,
            "fill=\"#fff\" stroke=\"#111\" stroke-width=\"2\"",
        );
        let (anchor, x) = if x > place.left + 0.8 * width {
            ("end", x - 9.0)
        } else {
            ("start", x + 9.0)
        };
        halo(&mut canvas, (x, y - 8.0), anchor, name);
    }
    let legend = (place.left + width + 20.0, place.top + 10.0);
    match colour {
        Colour::Class => class_legend(&mut canvas, legend, shown),
        Colour::Jacobian | Colour::InputGradient | Colour::Curvature => {
            scale_legend(&mut canvas, legend, colour, range);
        }
    }
    canvas.finish(title)
}

/// A name that can be read on any ground.
fn halo(canvas: &mut Canvas, at: (f64, f64), anchor: &str, name: &str) {
    for (dx, dy) in [(-1.2, 0.0), (1.2, 0.0), (0.0, -1.2), (0.0, 1.2)] {
        canvas.text((at.0 + dx, at.1 + dy), anchor, 13.0, "#fff", name);
    }
    canvas.text(at, anchor, 13.0, "#111", name);
}

/// Polygons by colour. Regions of one class differ a little in shade, so that neighbours can be
/// told apart.
fn fills(
    place: &Place,
    shown: &[Shown],
    colour: Colour,
    range: (f64, f64),
) -> BTreeMap<String, Vec<Vec<[f64; 2]>>> {
    let mut fills: BTreeMap<String, Vec<Vec<[f64; 2]>>> = BTreeMap::new();
    for (i, shown) in shown.iter().enumerate() {
        if colour != Colour::Class {
            let fill = scale_colour(share(shown.value, range));
            fills
                .entry(fill)
                .or_default()
                .push(place.polygon(&shown.cell.polygon));
            continue;
        }
        let shade = 0.12 + 0.07 * ((i * 7) % 6) as f64;
        for (class, part) in &shown.classes {
            let fill = shaded(class_colour(*class), shade);
            fills.entry(fill).or_default().push(place.polygon(part));
        }
    }
    fills
}

/// The least positive and the largest value of the regions.
fn scale_range(shown: &[Shown]) -> (f64, f64) {
    let positive = shown
        .iter()
        .map(|shown| shown.value)
        .filter(|&value| value > 0.0);
    positive.fold((f64::INFINITY, 0.0), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// Where a value is on the logarithmic scale; what spans more than six powers of ten is cut below.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    let low = low.max(1e-6 * high);
    if high <= low {
        return 0.5;
    }
    (value.max(low) / low).ln() / (high / low).ln()
}

/// The decision boundary: the lines between two classes of a region.
fn boundary(place: &Place, shown: &[Shown]) -> Vec<[[f64; 2]; 2]> {
    let parts = shown.iter().flat_map(|shown| &shown.classes);
    let lines = parts.flat_map(|(class, part)| {
        let between = |i: &usize| match part.edges[*i] {
            // Each line is a side of two parts; the one of the smaller class draws it.
            Edge::Classes(a, b) => *class == a.min(b),
            Edge::Window | Edge::Kink(_) => false,
        };
        (0..part.edges.len())
            .filter(between)
            .map(|i| [place.at(part.corners[i]), place.at(part.next(i))])
    });
    lines.collect()
}

fn frame(canvas: &mut Canvas, place: &Place, [across, up]: &[String; 2]) {
    let [width, height] = place.size();
    canvas.rectangle(
        [place.left, place.top, width, height],
        "fill=\"none\" stroke=\"#444\"",
    );
    let [x, y] = place.at([place.window[0][0], place.window[1][0]]);
    canvas.text((x + 0.5 * width, y + 38.0), "middle", 12.0, "#444", across);
    canvas.text((x, place.top - 7.0), "start", 12.0, "#444", up);
    let [[left, right], [bottom, top]] = place.window;
    for tick in ticks((left, right)) {
        let [x, y] = place.at([tick, bottom]);
        canvas.segment([x, y], [x, y + 5.0], "#444", 1.0);
        canvas.text((x, y + 19.0), "middle", 11.0, "#444", &number(tick));
    }
    for tick in ticks((bottom, top)) {
        let [x, y] = place.at([left, tick]);
        canvas.segment([x - 5.0, y], [x, y], "#444", 1.0);
        canvas.text((x - 8.0, y + 4.0), "end", 11.0, "#444", &number(tick));
    }
}

fn class_legend(canvas: &mut Canvas, (x, y): (f64, f64), shown: &[Shown]) {
    canvas.text((x, y), "start", 12.0, "#444", "predicted class");
    let mut classes: Vec<usize> = areas(shown).into_iter().map(|(class, _)| class).collect();
    classes.sort_unstable();
    let last = classes.len();
    for (i, class) in classes.into_iter().enumerate() {
        let y = y + 12.0 + 20.0 * i as f64;
        let style = format!("fill=\"{}\"", shaded(class_colour(class), 0.3));
        canvas.rectangle([x, y, 14.0, 14.0], &style);
        canvas.text(
            (x + 20.0, y + 12.0),
            "start",
            12.0,
            "#222",
            &class.to_string(),
        );
    }
    boundary_legend(canvas, (x, y + 32.0 + 20.0 * last as f64));
}

fn boundary_legend(canvas: &mut Canvas, (x, y): (f64, f64)) {
    canvas.segment([x, y - 4.0], [x + 14.0, y - 4.0], "#111", 2.0);
    canvas.text((x + 20.0, y), "start", 12.0, "#222", "decision boundary");
}

fn scale_legend(canvas: &mut Canvas, (x, y): (f64, f64), colour: Colour, (low, high): (f64, f64)) {
    canvas.text((x, y), "start", 12.0, "#444", colour.title());
    let (low, steps, height) = (low.max(1e-6 * high), 48, 240.0);
    for i in 0..steps {
        let share = (i as f64 + 0.5) / f64::from(steps);
        let style = format!("fill=\"{}\"", scale_colour(share));
        let top = y + 12.0 + height * (1.0 - (i as f64 + 1.0) / f64::from(steps));
        canvas.rectangle([x, top, 16.0, height / f64::from(steps) + 0.5], &style);
    }
    if high > 0.0 {
        for share in [0.0, 0.5, 1.0] {
            let value = low * (high / low).powf(share);
            let at = y + 12.0 + height * (1.0 - share) + 4.0;
            canvas.text((x + 22.0, at), "start", 11.0, "#444", &short(value));
        }
    }
    boundary_legend(canvas, (x, y + 20.0 + height + 24.0));
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use relugrad::{Mlp, Plane};

    use crate::regions::class_picture;

    /// The numbers of an attribute in all elements, or in the first one.
    fn attribute(element: &str, name: &str) -> f64 {
        let rest = element.split(&format!(" {name}=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    /// Every word of a picture is on it, with many classes and a long title, too.
    #[test]
    fn no_word_is_clipped() {
        for (classes, window) in [
            (2, [[0.0, 3.0], [0.0, 1.0]]),
            (60, [[-40.0, 40.0], [-9.0, 9.0]]),
        ] {
            let network = Mlp::new(&[2, 6, classes])
                .build::<f64>(classes as u64)
                .unwrap();
            let plane = Plane {
                origin: array![0.0, 0.0],
                directions: [array![1.0, 0.0], array![0.0, 1.0]],
            };
            let cells = network.slice(&plane, window, 1000).unwrap();
            let title = "a title of many words ".repeat(classes / 2);
            let svg = class_picture(&title, plane, window, Vec::new(), &cells);
            let (width, height) = (attribute(&svg, "width"), attribute(&svg, "height"));
            let texts: Vec<&str> = svg
                .lines()
                .filter(|line| line.starts_with("<text"))
                .collect();
            assert!(texts.iter().any(|text| text.contains("decision boundary")));
            assert_eq!(
                texts
                    .iter()
                    .filter(|text| text.contains("in multiples of it"))
                    .count(),
                2
            );
            for text in texts {
                let words = text.split('>').nth(1).unwrap().trim_end_matches("</text");
                let reach = 0.55 * attribute(text, "font-size") * words.chars().count() as f64;
                let (x, y) = (attribute(text, "x"), attribute(text, "y"));
                let [left, right] = match text.split("text-anchor=\"").nth(1).unwrap().as_bytes()[0]
                {
                    b's' => [x, x + reach],
                    b'm' => [x - 0.5 * reach, x + 0.5 * reach],
                    _ => [x - reach, x],
                };
                assert!(
                    left >= 0.0 && right <= width && y <= height,
                    "{text} {width} {height}"
                );
            }
        }
    }
}
