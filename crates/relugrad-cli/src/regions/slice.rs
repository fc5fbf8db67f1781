//! A slice through the input space: every region as a polygon, drawn and written.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, anyhow, bail};
use ndarray::{Array1, Array2, ArrayView1, Axis, Ix2};
use relugrad::{Cell, Edge, Loss, Network, Plane, Polygon, Targets};
use relugrad_train::data::Dataset;
use serde_json::{Value, json};

use super::arguments::Colour;
use super::drawing::{Canvas, class_colour, number, scale_colour, shaded, ticks};
use super::{Arguments, sample, write};
use crate::failure::Failure;
use crate::report::short;

/// Regions whose quantities are computed together.
const BATCH: usize = 256;

/// The longer side of the window in pixels.
const SIDE: f64 = 720.0;

/// A plane with what is shown of it.
struct View {
    plane: Plane<f64>,
    window: [[f64; 2]; 2],
    /// Points of the plane that are marked, with their names.
    marks: Vec<([f64; 2], String)>,
    /// The label of the loss.
    label: usize,
    title: String,
}

/// A region of the slice with what is known about it.
struct Shown {
    cell: Cell,
    classes: Vec<(usize, Polygon)>,
    /// What the colour tells, if not the class.
    value: f64,
}

/// Finds all regions, prints a summary and writes the files.
pub(super) fn run(
    arguments: &Arguments,
    network: &Network<f64>,
    data: &Dataset,
) -> Result<(), Failure> {
    let view = view(arguments, network, data)?;
    let cells = network.slice(&view.plane, view.window, arguments.limit);
    let cells = cells.map_err(anyhow::Error::from)?;
    let values = values(network, &view, &cells, arguments.colour)?;
    let with_classes = |(cell, value): (Cell, f64)| Shown {
        classes: cell.classes(),
        cell,
        value,
    };
    let shown: Vec<Shown> = cells.into_iter().zip(values).map(with_classes).collect();
    let title = format!("{} regions {}", shown.len(), view.title);
    if let Some(path) = &arguments.svg {
        write(
            path,
            &picture(&title, &view, &shown, arguments.colour),
            arguments.overwrite,
        )?;
    }
    if let Some(path) = &arguments.polygons {
        let all = polygons(arguments, data, &view, &shown);
        let text = serde_json::to_string(&all).context("cannot write JSON")? + "\n";
        write(path, &text, arguments.overwrite)?;
    }
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        writeln!(stdout, "{}", summary(arguments, data, &view, &shown))?;
    } else {
        writeln!(stdout, "{}", text(&title, &view, &shown))?;
    }
    Ok(())
}

fn view(arguments: &Arguments, network: &Network<f64>, data: &Dataset) -> Result<View, Failure> {
    let Some(path) = &arguments.slice_file else {
        let samples = arguments.slice.iter().map(|&number| sample(data, number));
        let samples: Vec<(Array1<f64>, usize)> = samples.collect::<anyhow::Result<_>>()?;
        let names = arguments.slice.iter().zip(&samples);
        let names = names
            .map(|(number, (_, label))| format!("sample {number} (label {label})"))
            .collect();
        let points = samples.iter().map(|(x, _)| x.clone()).collect();
        return Ok(through(arguments, points, names, samples[0].1)?);
    };
    let array = relugrad_io::load_npy(path)
        .map_err(anyhow::Error::from)?
        .values;
    let rows = rows(array.shape(), network.inputs());
    let rows = rows.map(|shape| array.to_shape(shape).map(|a| a.to_owned()));
    let Some(Ok(rows)) = rows else {
        let problem = anyhow!(
            "{} has shape {:?}; three inputs of {} features are needed",
            path.display(),
            array.shape(),
            network.inputs()
        );
        return Err(problem.into());
    };
    let rows: Array2<f64> = rows.into_dimensionality::<Ix2>().expect("two axes");
    let label = predicted(network, rows.row(0))?;
    if let Some(extent) = arguments.extent {
        let [u, v] = [1, 2].map(|i| rows.row(i).to_owned());
        return Ok(View {
            plane: Plane {
                origin: rows.row(0).to_owned(),
                directions: [u, v],
            },
            window: [[-extent, extent]; 2],
            marks: vec![([0.0, 0.0], "point".into())],
            label,
            title: format!("around the point of {}", path.display()),
        });
    }
    let names = (0..3).map(|i| format!("row {i}")).collect();
    let points = rows.outer_iter().map(|row| row.to_owned()).collect();
    Ok(through(arguments, points, names, label)?)
}

/// The shape `[3, D]` if an array of this shape can have it.
fn rows(shape: &[usize], inputs: usize) -> Option<[usize; 2]> {
    (shape.first() == Some(&3) && shape.iter().product::<usize>() == 3 * inputs)
        .then_some([3, inputs])
}

fn predicted(network: &Network<f64>, x: ArrayView1<f64>) -> anyhow::Result<usize> {
    let logits = network.forward(x.insert_axis(Axis(0)))?;
    let row = logits.row(0);
    Ok((0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }))
}

/// The plane through three points, with a window around them.
fn through(
    arguments: &Arguments,
    points: Vec<Array1<f64>>,
    names: Vec<String>,
    label: usize,
) -> anyhow::Result<View> {
    let [a, b, c] = [&points[0], &points[1], &points[2]];
    let Some(plane) = Plane::through([a.view(), b.view(), c.view()]) else {
        bail!(
            "the three points {} lie on a line and span no plane; choose others",
            names.join(", ")
        );
    };
    let places: Vec<[f64; 2]> = points.iter().map(|x| plane.project(x.view())).collect();
    let side = |axis: usize| {
        let values = || places.iter().map(|place| place[axis]);
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let room = arguments.margin * (high - low);
        [low - room, high + room]
    };
    Ok(View {
        window: [side(0), side(1)],
        plane,
        title: format!("in the plane through {}", names.join(", ")),
        marks: places.into_iter().zip(names).collect(),
        label,
    })
}

/// What the colour tells of every region, in its middle.
fn values(
    network: &Network<f64>,
    view: &View,
    cells: &[Cell],
    colour: Colour,
) -> anyhow::Result<Vec<f64>> {
    if colour == Colour::Class {
        return Ok(vec![0.0; cells.len()]);
    }
    let (loss, mut values) = (Loss::softmax_cross_entropy(), Vec::new());
    for cells in cells.chunks(BATCH) {
        let mut inputs = Array2::zeros((cells.len(), network.inputs()));
        for (mut row, cell) in inputs.outer_iter_mut().zip(cells) {
            row.assign(&view.plane.at(cell.polygon.middle()));
        }
        let trace = network.trace(inputs.view())?;
        let labels = vec![view.label; cells.len()];
        match colour {
            Colour::Class => {}
            Colour::Jacobian => {
                let jacobian = trace.jacobian();
                let norms = jacobian
                    .outer_iter()
                    .map(|j| j.iter().map(|j| j * j).sum::<f64>().sqrt());
                values.extend(norms);
            }
            Colour::InputGradient => {
                let gradient = trace.input_gradient(&loss, &Targets::Classes(&labels))?;
                values.extend(gradient.outer_iter().map(|g| g.dot(&g).sqrt()));
            }
            Colour::Curvature => values.extend(trace.curvature(&loss)?.frobenius_norm()),
        }
    }
    Ok(values)
}

/// The area of the slice by class, largest first.
fn areas(shown: &[Shown]) -> Vec<(usize, f64)> {
    let mut areas: BTreeMap<usize, f64> = BTreeMap::new();
    for (class, polygon) in shown.iter().flat_map(|shown| &shown.classes) {
        *areas.entry(*class).or_default() += polygon.area();
    }
    let mut areas: Vec<(usize, f64)> = areas.into_iter().collect();
    areas.sort_by(|a, b| b.1.total_cmp(&a.1));
    areas
}

fn text(title: &str, view: &View, shown: &[Shown]) -> String {
    let [[left, right], [bottom, top]] = view.window;
    let total = (right - left) * (top - bottom);
    let found = areas(shown);
    let shares = found
        .iter()
        .map(|(class, area)| format!("{class}: {:.1} %", 100.0 * area / total));
    let mut sizes: Vec<f64> = shown
        .iter()
        .map(|shown| shown.cell.polygon.area())
        .collect();
    sizes.sort_by(f64::total_cmp);
    let mut text = format!(
        "{title}\nwindow {} by {}; median region {} of its area\nclasses by area: {}",
        short(right - left),
        short(top - bottom),
        short(sizes[sizes.len() / 2] / total),
        shares.collect::<Vec<String>>().join(", "),
    );
    let values = shown.iter().map(|shown| shown.value);
    let range = values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| {
        (low.min(v), high.max(v))
    });
    if range.1 > 0.0 {
        text += &format!("\ncolours from {} to {}", short(range.0), short(range.1));
    }
    text
}

fn summary(arguments: &Arguments, data: &Dataset, view: &View, shown: &[Shown]) -> Value {
    json!({
        "model": arguments.model.path().display().to_string(), "data": data.name(),
        "window": view.window, "regions": shown.len(), "area_by_class": areas(shown),
        "points": view.marks.iter().map(|(place, name)| json!({"at": place, "name": name})).collect::<Vec<Value>>(),
    })
}

/// Everything as JSON.
fn polygons(arguments: &Arguments, data: &Dataset, view: &View, shown: &[Shown]) -> Value {
    let edge = |edge: &Edge| match edge {
        Edge::Window => json!("window"),
        Edge::Kink(kink) => json!({"layer": kink.layer, "unit": kink.unit}),
        Edge::Classes(a, b) => json!({"classes": [a, b]}),
    };
    let shape = |polygon: &Polygon| {
        json!({
            "corners": polygon.corners,
            "edges": polygon.edges.iter().map(edge).collect::<Vec<Value>>(),
        })
    };
    let region = |shown: &Shown| {
        let classes = shown
            .classes
            .iter()
            .map(|(class, part)| json!({"class": class, "polygon": shape(part)}));
        let mut region = json!({
            "polygon": shape(&shown.cell.polygon),
            "logits": shown.cell.logits,
            "classes": classes.collect::<Vec<Value>>(),
        });
        if arguments.colour != Colour::Class {
            region["value"] = shown.value.into();
        }
        region
    };
    let mut all = summary(arguments, data, view, shown);
    all["origin"] = view.plane.origin.to_vec().into();
    all["directions"] = json!(view.plane.directions.each_ref().map(|d| d.to_vec()));
    all["colour"] = arguments.colour.title().into();
    all["cells"] = shown.iter().map(region).collect();
    all
}

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

fn picture(title: &str, view: &View, shown: &[Shown], colour: Colour) -> String {
    let place = Place::new(view.window);
    let [width, height] = place.size();
    let mut canvas = Canvas::new(width + 200.0, height + 100.0);
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
    frame(&mut canvas, &place);
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
        _ => scale_legend(&mut canvas, legend, colour, range),
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

/// Polygons by colour. Regions of one class differ a little in shade, so that neighbours can be told apart.
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
            _ => false,
        };
        (0..part.edges.len())
            .filter(between)
            .map(|i| [place.at(part.corners[i]), place.at(part.next(i))])
    });
    lines.collect()
}

fn frame(canvas: &mut Canvas, place: &Place) {
    let [width, height] = place.size();
    canvas.rectangle(
        [place.left, place.top, width, height],
        "fill=\"none\" stroke=\"#444\"",
    );
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
