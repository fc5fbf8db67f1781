//! A slice through the input space: every region as a polygon, drawn and written.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use ndarray::{Array1, Array2, Axis, Ix2};
use relugrad::{Cell, Edge, Loss, Network, Plane, Polygon};
use relugrad_train::data::{Dataset, Truth};
use relugrad_train::evaluate::predicted;
use serde_json::{Value, json};

use super::arguments::Colour;
use super::{Arguments, answer, picture, sample, write};
use crate::failure::Failure;
use crate::report::short;
use crate::waiting::Waiting;
use crate::{interrupt, print};

/// Regions whose quantities are computed together.
const BATCH: usize = 256;

/// A plane with what is shown of it.
pub(super) struct View {
    plane: Plane<f64>,
    pub(super) window: [[f64; 2]; 2],
    /// Points of the plane that are marked, with their names.
    pub(super) marks: Vec<([f64; 2], String)>,
    /// The label or values of the loss.
    truth: Truth<f64>,
    pub(super) colour: Colour,
    title: String,
    /// What the axes are, and their units.
    pub(super) axes: [String; 2],
    end: End,
}

/// How the search for regions ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// All are found.
    Complete,
    /// There are more than --limit.
    Limited,
    Interrupted,
}

impl View {
    /// The area of the window.
    fn area(&self) -> f64 {
        let [[left, right], [bottom, top]] = self.window;
        (right - left) * (top - bottom)
    }
}

/// A region of the slice with what is known about it.
pub(super) struct Shown {
    pub(super) cell: Cell,
    pub(super) classes: Vec<(usize, Polygon)>,
    /// What the colour tells, if not the class.
    pub(super) value: f64,
}

/// Finds all regions, prints a summary and writes the files.
pub(super) fn run(
    arguments: &Arguments,
    network: &Network<f64>,
    data: &Dataset,
) -> Result<(), Failure> {
    let colour = colour(arguments, data).map_err(Failure::Usage)?;
    let mut view = view(arguments, network, data, colour)?;
    let (plane, go_on) = (&view.plane, &interrupt::go_on);
    let waiting = Waiting::new("finding the regions of the slice");
    let slice = network.slice_while(plane, view.window, arguments.limit, go_on);
    let slice = slice.map_err(anyhow::Error::from)?;
    let loss = match colour {
        Colour::Class | Colour::Jacobian => None,
        Colour::InputGradient | Colour::Curvature => {
            Some(arguments.loss.of(data.kind(), network.outputs())?)
        }
    };
    waiting.set(format!("colouring {} regions", slice.cells.len()));
    let values = values(network, &view, &slice.cells, loss)?;
    drop(waiting);
    view.end = match slice.limited {
        _ if values.len() < slice.cells.len() => End::Interrupted,
        true => End::Limited,
        false if slice.complete => End::Complete,
        false => End::Interrupted,
    };
    let with_classes = |(cell, value): (Cell, f64)| Shown {
        classes: match data.values() {
            Some(_) => Vec::new(),
            None => cell.classes(),
        },
        cell,
        value,
    };
    let found = slice.cells.into_iter().zip(values);
    let shown: Vec<Shown> = found.map(with_classes).collect();
    if shown.is_empty() {
        return Err(Failure::nothing_finished());
    }
    let mut title = format!("{} regions {}", shown.len(), view.title);
    let why = match view.end {
        End::Complete => None,
        End::Limited => Some("no more are allowed"),
        End::Interrupted => Some("interrupted"),
    };
    if let Some(why) = why {
        let covered = 100.0 * covered(&shown) / view.area();
        title += &format!("; {why}, {covered:.1} % of the window are covered");
    }
    if let Some(path) = &arguments.svg {
        write(
            path,
            &picture::picture(&title, &view, &shown, colour),
            arguments.overwrite,
        )?;
    }
    if let Some(path) = &arguments.polygons {
        let all = polygons(arguments, data, &view, &shown);
        let text = serde_json::to_string(&all).context("cannot write JSON")? + "\n";
        write(path, &text, arguments.overwrite)?;
    }
    print::line(match arguments.json {
        true => summary(arguments, data, &view, &shown).to_string(),
        false => text(&title, &view, &shown),
    });
    match view.end {
        End::Complete => Ok(()),
        End::Limited => Err(Failure::Failed(anyhow!(
            "there are more than {} regions, and so many are shown; allow more by --limit, or take a smaller window",
            arguments.limit
        ))),
        End::Interrupted => Err(Failure::Interrupted(
            "the regions that are finished are shown".into(),
        )),
    }
}

/// The picture of a slice whose colours are classes, with the points that are marked.
pub(crate) fn class_picture(
    title: &str,
    plane: Plane<f64>,
    window: [[f64; 2]; 2],
    marks: Vec<([f64; 2], String)>,
    cells: &[Cell],
) -> String {
    let view = View {
        plane,
        window,
        marks,
        truth: Truth::Classes(Vec::new()),
        colour: Colour::Class,
        title: title.into(),
        axes: ["first", "second"]
            .map(|which| format!("along the {which} direction of the plane, in multiples of it")),
        end: End::Complete,
    };
    let shown = cells.iter().map(|cell| Shown {
        classes: cell.classes(),
        cell: cell.clone(),
        value: 0.0,
    });
    let shown: Vec<Shown> = shown.collect();
    picture::picture(title, &view, &shown, Colour::Class)
}

/// What the colours tell.
fn colour(arguments: &Arguments, data: &Dataset) -> anyhow::Result<Colour> {
    match (arguments.colour, data.values()) {
        (Some(Colour::Class), Some(_)) => bail!(
            "--colour class needs classes, but {} has values; take jacobian, input-gradient or curvature",
            data.name()
        ),
        (Some(colour), _) => Ok(colour),
        (None, None) => Ok(Colour::Class),
        (None, Some(_)) => Ok(Colour::Jacobian),
    }
}

fn view(
    arguments: &Arguments,
    network: &Network<f64>,
    data: &Dataset,
    colour: Colour,
) -> Result<View, Failure> {
    let Some(path) = &arguments.slice_file else {
        let samples = arguments.slice.iter().map(|&number| sample(data, number));
        let samples: Vec<(Array1<f64>, Truth<f64>)> = samples.collect::<anyhow::Result<_>>()?;
        let names = arguments.slice.iter().zip(&samples);
        let names = names
            .map(|(number, (_, truth))| format!("sample {number} ({})", answer(truth)))
            .collect();
        let points = samples.iter().map(|(x, _)| x.clone()).collect();
        let truth = samples[0].1.clone();
        return Ok(through(arguments, points, names, truth, colour)?);
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
    // Of values there are none to compare with but those that are predicted.
    let first = rows.row(0).insert_axis(Axis(0));
    let truth = match data.values() {
        Some(_) => Truth::Values(network.forward(first).map_err(anyhow::Error::from)?),
        None => Truth::Classes(predicted(network, first).map_err(anyhow::Error::from)?),
    };
    if let Some(extent) = arguments.extent {
        let [u, v] = [1, 2].map(|i| rows.row(i).to_owned());
        return Ok(View {
            plane: Plane {
                origin: rows.row(0).to_owned(),
                directions: [u, v],
            },
            window: [[-extent, extent]; 2],
            marks: vec![([0.0, 0.0], "point".into())],
            truth,
            colour,
            title: format!("around the point of {}", path.display()),
            axes: [1, 2].map(|row| format!("along row {row}, in multiples of it")),
            end: End::Interrupted,
        });
    }
    let names = (0..3).map(|i| format!("row {i}")).collect();
    let points = rows.outer_iter().map(|row| row.to_owned()).collect();
    Ok(through(arguments, points, names, truth, colour)?)
}

/// The shape `[3, D]` if an array of this shape can have it.
fn rows(shape: &[usize], inputs: usize) -> Option<[usize; 2]> {
    (shape.first() == Some(&3) && shape.iter().product::<usize>() == 3 * inputs)
        .then_some([3, inputs])
}

/// The plane through three points, with a window around them.
fn through(
    arguments: &Arguments,
    points: Vec<Array1<f64>>,
    names: Vec<String>,
    truth: Truth<f64>,
    colour: Colour,
) -> anyhow::Result<View> {
    let [a, b, c] = [&points[0], &points[1], &points[2]];
    let Some(plane) = Plane::through([a.view(), b.view(), c.view()]) else {
        bail!(
            "the three points {} lie on a line and span no plane; choose others",
            names.join(", ")
        );
    };
    let places = points.iter().map(|x| plane.project(x.view()));
    let places: Vec<[f64; 2]> = places.collect::<Result<_, _>>()?;
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
        axes: [
            format!(
                "l2 distance from {} towards {}, in units of the data",
                names[0], names[1]
            ),
            format!(
                "l2 distance across, towards {}, in units of the data",
                names[2]
            ),
        ],
        marks: places.into_iter().zip(names).collect(),
        truth,
        colour,
        end: End::Interrupted,
    })
}

/// What the colour tells of every region, in its middle; of the first ones only after an interrupt.
fn values(
    network: &Network<f64>,
    view: &View,
    cells: &[Cell],
    loss: Option<Loss>,
) -> anyhow::Result<Vec<f64>> {
    if view.colour == Colour::Class {
        return Ok(vec![0.0; cells.len()]);
    }
    let mut values = Vec::new();
    for cells in cells.chunks(BATCH) {
        if !interrupt::go_on() {
            break;
        }
        let mut inputs = Array2::zeros((cells.len(), network.inputs()));
        for (mut row, cell) in inputs.outer_iter_mut().zip(cells) {
            row.assign(&view.plane.at(cell.polygon.middle())?);
        }
        let trace = network.trace(inputs.view())?;
        let truth = view.truth.select(&vec![0; cells.len()]);
        match (view.colour, &loss) {
            (Colour::InputGradient, Some(loss)) => {
                let gradient = trace.input_gradient(loss, &truth.targets())?;
                values.extend(gradient.outer_iter().map(|g| g.dot(&g).sqrt()));
            }
            (Colour::Curvature, Some(loss)) => {
                values.extend(trace.curvature(loss)?.frobenius_norm()?);
            }
            (Colour::Class | Colour::Jacobian | Colour::InputGradient | Colour::Curvature, _) => {
                let jacobian = trace.jacobian()?;
                let norms = jacobian
                    .outer_iter()
                    .map(|j| j.iter().map(|j| j * j).sum::<f64>().sqrt());
                values.extend(norms);
            }
        }
    }
    Ok(values)
}

/// The area of all regions that are shown.
fn covered(shown: &[Shown]) -> f64 {
    shown.iter().map(|shown| shown.cell.polygon.area()).sum()
}

/// The area of the slice by class, largest first.
pub(super) fn areas(shown: &[Shown]) -> Vec<(usize, f64)> {
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
    let total = view.area();
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
        "{title}\nwindow {} by {}; median region {} of its area",
        short(right - left),
        short(top - bottom),
        short(sizes[sizes.len() / 2] / total),
    );
    if !found.is_empty() {
        let shares: Vec<String> = shares.collect();
        text += &format!("\nclasses by area: {}", shares.join(", "));
    }
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
        "window": view.window, "complete": view.end == End::Complete, "regions": shown.len(), "area_by_class": areas(shown),
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
        if view.colour != Colour::Class {
            region["value"] = shown.value.into();
        }
        region
    };
    let mut all = summary(arguments, data, view, shown);
    all["origin"] = view.plane.origin.to_vec().into();
    all["directions"] = json!(view.plane.directions.each_ref().map(|d| d.to_vec()));
    all["colour"] = view.colour.title().into();
    all["cells"] = shown.iter().map(region).collect();
    all
}
