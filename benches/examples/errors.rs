//! How wrong are finite differences, and how slow, beside exact derivatives?
//!
//! Prints Markdown tables of relative errors (`‖found − truth‖₂ / ‖truth‖₂`) and of median times,
//! all from one run. The truth is the exact result in `f64`; all precisions see the same problem.
//! Run it in release mode:
//!
//!     cargo run --release -p benches --example errors

use std::time::{Duration, Instant};

use benches::{
    Problem, SIZES, SMALL, Size, digits, forward_jacobian, median, objective, readable,
    relative_error,
};
use ndarray::{Array1, Array3, Axis};
use relugrad::{Error, FiniteDifference, Objective, Scalar, Workspace};

/// The steps that are compared. A time is the median over them, since it does not depend on the
/// step.
const STEPS: [f64; 5] = [1e-2, 1e-3, 1e-4, 1e-6, 1e-8];

/// Repeats of each exact evaluation.
const REPEATS: usize = 21;

/// Most samples of the largest network whose Jacobians are differenced.
const FEW: usize = 2;

/// Parameters of the larger networks along which an objective is differenced.
const DIRECTIONS: usize = 16;

type Result<T> = std::result::Result<T, Error>;

/// How a difference is taken, by its name.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Forward,
    ForwardOnce,
    Central,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Forward => "forward",
            Scheme::ForwardOnce => "forward, logits once",
            Scheme::Central => "central",
        }
    }

    fn difference(self, step: f64) -> Result<FiniteDifference> {
        match self {
            Scheme::Central => FiniteDifference::central(step),
            _ => FiniteDifference::forward(step),
        }
    }

    fn jacobian<T: Scalar>(self, problem: &Problem<T>, step: f64) -> Result<Array3<T>> {
        if self == Scheme::ForwardOnce {
            return forward_jacobian(problem, step);
        }
        let difference = self.difference(step)?;
        difference.jacobian(&problem.network, problem.inputs.view())
    }
}

/// One line of a table: an error for each step, and a time.
struct Row {
    name: String,
    errors: Vec<String>,
    time: Duration,
}

fn main() -> Result<()> {
    let [small, middle, large] = SIZES;
    for size in [small, middle, large.samples(FEW)] {
        jacobians(size)?;
    }
    for name in ["jacobian", "curvature-frobenius", "cure"] {
        whole_gradient(name)?;
    }
    for size in SIZES {
        some_of_the_gradient("jacobian", size)?;
    }
    Ok(())
}

fn jacobians(size: Size) -> Result<()> {
    let problem = Problem::<f64>::new(size);
    let truth = problem.network.trace(problem.inputs.view())?.jacobian()?;
    let mut rows = Vec::new();
    jacobian_rows::<f64>(size, &truth, &mut rows)?;
    jacobian_rows::<f32>(size, &truth, &mut rows)?;
    println!(
        "\n**Jacobian, {}**: error of the batch (of its worst sample)\n",
        size.label()
    );
    print_table(&rows);
    Ok(())
}

fn jacobian_rows<T: Scalar>(size: Size, truth: &Array3<f64>, rows: &mut Vec<Row>) -> Result<()> {
    let problem = Problem::<T>::new(size);
    let exact = || problem.network.trace(problem.inputs.view())?.jacobian();
    let (found, time) = repeated(exact)?;
    rows.push(Row {
        name: format!("exact, {}", T::NAME),
        errors: vec![jacobian_error(&found, truth)],
        time,
    });
    for scheme in [Scheme::Forward, Scheme::ForwardOnce, Scheme::Central] {
        let (mut errors, mut times) = (Vec::new(), Vec::new());
        for step in STEPS {
            let start = Instant::now();
            let found = scheme.jacobian(&problem, step)?;
            times.push(start.elapsed());
            errors.push(jacobian_error(&found, truth));
        }
        rows.push(Row {
            name: format!("{}, {}", scheme.name(), T::NAME),
            errors,
            time: median(times),
        });
    }
    Ok(())
}

/// The error of the batch, and in brackets that of the worst sample.
fn jacobian_error<T: Scalar>(found: &Array3<T>, truth: &Array3<f64>) -> String {
    let samples = found.axis_iter(Axis(0)).zip(truth.axis_iter(Axis(0)));
    let worst = samples
        .map(|(found, truth)| relative_error(found.iter().copied(), truth.iter().copied()))
        .fold(0.0, f64::max);
    let all = relative_error(found.iter().copied(), truth.iter().copied());
    format!("{} ({})", short(all), short(worst))
}

/// An error with one digit.
fn short(error: f64) -> String {
    match error {
        0.0 => "0".to_owned(),
        _ => format!("{error:.0e}"),
    }
}

/// The objective with one penalty.
fn with(name: &str) -> Result<Objective> {
    Ok(objective(&[name.parse()?]))
}

fn whole_gradient(name: &str) -> Result<()> {
    let parameters = Problem::<f64>::new(SMALL).network.parameters().len();
    let along: Vec<usize> = (0..parameters).collect();
    println!(
        "\n**Gradient of loss + 0.01 {name}, {}**: all {parameters} parameters\n",
        SMALL.label()
    );
    gradient_table(name, SMALL, &along)
}

fn some_of_the_gradient(name: &str, size: Size) -> Result<()> {
    let parameters = Problem::<f64>::new(size).network.parameters().len();
    // Evenly spread over all layers.
    let along: Vec<usize> = (0..DIRECTIONS)
        .map(|i| (2 * i + 1) * parameters / (2 * DIRECTIONS))
        .collect();
    println!(
        "\n**Gradient of loss + 0.01 {name}, {}**: {DIRECTIONS} of {parameters} parameters; times of differences are \
         extrapolated to all\n",
        size.label()
    );
    gradient_table(name, size, &along)
}

fn gradient_table(name: &str, size: Size, along: &[usize]) -> Result<()> {
    let (truth, _) = exact_gradient::<f64>(name, size)?;
    let truth: Vec<f64> = along.iter().map(|&i| truth[i]).collect();
    let mut rows = Vec::new();
    gradient_rows::<f64>(name, size, along, &truth, &mut rows)?;
    gradient_rows::<f32>(name, size, along, &truth, &mut rows)?;
    print_table(&rows);
    Ok(())
}

fn exact_gradient<T: Scalar>(name: &str, size: Size) -> Result<(Vec<T>, Duration)> {
    let (problem, objective) = (Problem::<T>::new(size), with(name)?);
    let mut workspace = Workspace::new();
    let (_, time) = repeated(|| {
        let (network, inputs) = (&problem.network, problem.inputs.view());
        objective.gradient_into(network, inputs, &problem.targets(), &mut workspace)
    })?;
    let gradient = workspace.gradient().expect("it was just computed");
    Ok((gradient.values().to_vec(), time))
}

fn gradient_rows<T: Scalar>(
    name: &str,
    size: Size,
    along: &[usize],
    truth: &[f64],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let (gradient, time) = exact_gradient::<T>(name, size)?;
    let found = along.iter().map(|&i| gradient[i]);
    rows.push(Row {
        name: format!("exact, {}", T::NAME),
        errors: vec![short(relative_error(found, truth.iter().copied()))],
        time,
    });
    for scheme in [Scheme::Forward, Scheme::Central] {
        rows.push(difference_row::<T>(name, size, along, truth, scheme)?);
    }
    Ok(())
}

/// Differences along some parameters; the time is that of all parameters at the same speed.
fn difference_row<T: Scalar>(
    name: &str,
    size: Size,
    along: &[usize],
    truth: &[f64],
    scheme: Scheme,
) -> Result<Row> {
    let (problem, objective) = (Problem::<T>::new(size), with(name)?);
    let (network, inputs) = (&problem.network, problem.inputs.view());
    let mut direction = Array1::zeros(network.parameters().len());
    let (mut errors, mut times) = (Vec::new(), Vec::new());
    for step in STEPS {
        let (difference, start) = (scheme.difference(step)?, Instant::now());
        let mut found = Vec::new();
        for &i in along {
            direction[i] = T::ONE;
            let targets = problem.targets();
            found.push(difference.along(&objective, network, inputs, &targets, &direction)?);
            direction[i] = T::ZERO;
        }
        times.push(start.elapsed());
        errors.push(short(relative_error(found, truth.iter().copied())));
    }
    Ok(Row {
        name: format!("{}, {}", scheme.name(), T::NAME),
        errors,
        time: median(times).mul_f64(direction.len() as f64 / along.len() as f64),
    })
}

/// The result and the median time of an exact evaluation, after one that does not count.
fn repeated<R>(mut evaluate: impl FnMut() -> Result<R>) -> Result<(R, Duration)> {
    let mut result = evaluate()?;
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let start = Instant::now();
        result = evaluate()?;
        times.push(start.elapsed());
    }
    Ok((result, median(times)))
}

/// One column for each step, and one before them for exact results, which have none.
fn print_table(rows: &[Row]) {
    let steps = STEPS.map(|step| format!("h = {step:.0e}"));
    println!("| | no step | {} | time | times exact |", steps.join(" | "));
    println!("| --- |{} ---: | ---: |", " ---: |".repeat(STEPS.len() + 1));
    let mut exact = Duration::ZERO;
    for row in rows {
        let errors = row.errors.join(" | ");
        let cells = match row.errors.len() {
            1 => errors + &" | ".repeat(STEPS.len()),
            _ => format!("| {errors}"),
        };
        if row.errors.len() == 1 {
            exact = row.time;
        }
        let ratio = digits(row.time.as_secs_f64() / exact.as_secs_f64());
        let time = readable(row.time);
        println!("| {} | {cells} | {time} | {ratio} |", row.name);
    }
}
