//! One sample with everything that the statements are about.

use std::cell::{Cell, OnceCell};

use ndarray::{Array1, Array2, ArrayView1, Axis, Zip, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{ActivationPattern, Error, Loss, Network, Node, PathSums, Penalty, Result, Scalar};

use super::derivatives::Derivatives;
use super::logits::Prediction;
use crate::data::Truth;

/// A network and what is claimed of its derivatives.
pub(super) struct Subject<'a, T> {
    pub(super) network: &'a Network<T>,
    pub(super) claims: &'a dyn Derivatives<T>,
    pub(super) loss: Loss,
    pub(super) seed: u64,
    pub(super) cure_step: f64,
}

/// The claims at one sample, in `f64`, and what follows from the logits.
pub(super) struct Point<'a, T> {
    pub(super) subject: &'a Subject<'a, T>,
    pub(super) x: ArrayView1<'a, T>,
    pub(super) truth: Truth<T>,
    /// Which sample it is; seeds its random numbers.
    index: usize,
    /// The logits, by the network's forward pass.
    pub(super) f: Array1<f64>,
    pub(super) at: Prediction,
    pub(super) j: Array2<f64>,
    /// `J Jᵀ`.
    pub(super) gram: Array2<f64>,
    pub(super) g: Array1<f64>,
    /// The margins of all gates and their gradients.
    pub(super) margins: (Array1<f64>, Array2<f64>),
    pattern: ActivationPattern,
    /// What rounding explains; see [`rounding`].
    pub(super) rounding: f64,
    /// Whether sizes are path sums instead of what they sum to.
    by_paths: Cell<bool>,
    sums: OnceCell<PathSums>,
}

/// Another input in the region or beyond, as the network sees it.
pub(super) struct Moved<T> {
    pub(super) x: Array1<T>,
    /// What was really added to the sample, after rounding.
    pub(super) delta: Array1<f64>,
    pub(super) f: Array1<f64>,
    /// Whether the pattern is that of the sample.
    pub(super) same_region: bool,
}

pub(super) fn wide<T: Scalar>(values: impl IntoIterator<Item = T>) -> Array1<f64> {
    values.into_iter().map(Scalar::into_f64).collect()
}

pub(super) fn narrow<T: Scalar>(values: &Array1<f64>) -> Array1<T> {
    values.mapv(T::from_f64)
}

pub(super) fn norm<'v>(values: impl IntoIterator<Item = &'v f64>) -> f64 {
    // Also where squares underflow, as those of a saturated sample do.
    let values: Vec<f64> = values.into_iter().copied().collect();
    let largest = values.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    scale
        * values
            .iter()
            .map(|v| (v / scale) * (v / scale))
            .sum::<f64>()
            .sqrt()
}

/// Sweeps of Jacobi's method after which it has converged long before; six to ten are usual.
const SWEEPS: usize = 60;

/// The largest eigenvalue of a symmetric matrix by Jacobi's method: rotations that each make a pair
/// of entries zero, until all beside the diagonal are negligible (Golub and Van Loan, *Matrix
/// Computations*, 4th edition, section 8.5). It shares nothing with the engine's methods.
pub(super) fn largest_eigenvalue(matrix: &Array2<f64>) -> Result<f64> {
    let (mut a, n) = (matrix.clone(), matrix.nrows());
    let largest = a
        .iter()
        .fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    let negligible = f64::EPSILON * largest / n as f64;
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            if a[[p, q]].abs() > negligible {
                rotate(&mut a, p, q);
                rotated = true;
            }
        }
        if !rotated {
            return Ok(a
                .diag()
                .fold(f64::NEG_INFINITY, |largest, &value| largest.max(value)));
        }
    }
    Err(Error::Eigenvalues { size: n })
}

/// Makes the entries `[p, q]` and `[q, p]` zero by a rotation of both rows and both columns.
fn rotate(a: &mut Array2<f64>, p: usize, q: usize) {
    let ratio = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
    let tangent = 1.0_f64.copysign(ratio) / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |x: &mut f64, y: &mut f64| {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    };
    let (first, second) = a.multi_slice_mut((s![p, ..], s![q, ..]));
    Zip::from(first).and(second).for_each(turn);
    let (first, second) = a.multi_slice_mut((s![.., p], s![.., q]));
    Zip::from(first).and(second).for_each(turn);
    (a[[p, q]], a[[q, p]]) = (0.0, 0.0);
}

/// The smallest number of full accuracy: smaller ones, such as residuals of saturated samples in
/// `f32`, are rounded as it is.
pub(super) fn smallest<T: Scalar>() -> f64 {
    (-T::EXPONENTS).exp2()
}

/// `8 √n ε` with the number `n` of terms in all sums that a statement compares: those on the way
/// through the network, the `D` products of an entry of the Gram matrix, and `(K + 2)²` of each of
/// the four products of `K×K` matrices that a penalty is made of: to and from rows orthogonal to 1,
/// and with `S` from both sides.
pub(super) fn rounding<T: Scalar>(network: &Network<T>) -> f64 {
    let nodes = network.nodes().iter();
    let terms: usize = nodes.filter(|node| node.terms() > 1).map(Node::terms).sum();
    let (d, k) = (network.inputs(), network.outputs());
    8.0 * ((terms + d + 4 * (k + 2).pow(2)) as f64).sqrt() * T::EPSILON.into_f64()
}

impl<'a, T: Scalar> Point<'a, T> {
    pub(super) fn new(
        subject: &'a Subject<'a, T>,
        index: usize,
        x: ArrayView1<'a, T>,
        truth: Truth<T>,
    ) -> Result<Point<'a, T>> {
        let trace = subject.network.trace(x.insert_axis(Axis(0)))?;
        let f = wide(trace.logits().iter().copied());
        let j = subject.claims.jacobian(x)?.mapv(Scalar::into_f64);
        let g = subject
            .claims
            .input_gradient(x, &subject.loss, &truth.targets())?;
        let margins = subject.claims.margins(x)?;
        Ok(Point {
            at: Prediction::new(&subject.loss, &f, &truth.cast()).expect("the loss was checked"),
            gram: j.dot(&j.t()),
            g: wide(g),
            margins: (
                wide(margins.values),
                // In `f64` no second copy of what is the largest array of all.
                margins.gradients.mapv_into_any(Scalar::into_f64),
            ),
            pattern: trace.pattern().clone(),
            rounding: rounding(subject.network),
            by_paths: Cell::new(false),
            sums: OnceCell::new(),
            subject,
            x,
            truth,
            index,
            f,
            j,
        })
    }

    /// Number of logits `K`.
    pub(super) fn outputs(&self) -> usize {
        self.f.len()
    }

    /// What follows from other logits.
    pub(super) fn predict(&self, f: &Array1<f64>) -> Prediction {
        let found = Prediction::new(&self.subject.loss, f, &self.truth.cast());
        found.expect("the loss was checked")
    }

    /// Its class; statements about classes are checked only where there are some.
    pub(super) fn label(&self) -> usize {
        self.truth.labels()[0]
    }

    pub(super) fn claims(&self) -> &dyn Derivatives<T> {
        self.subject.claims
    }

    /// The claimed value of a penalty.
    pub(super) fn penalty(&self, penalty: &Penalty) -> Result<f64> {
        let loss = &self.subject.loss;
        let targets = self.truth.targets();
        self.claims().penalty(self.x, loss, &targets, penalty)
    }

    /// Calls `check` with sizes that are sums over all paths, to which rounding is proportional
    /// where digits cancel.
    pub(super) fn with_path_sums<R>(&self, check: impl FnOnce() -> Result<R>) -> Result<R> {
        if self.sums.get().is_none() {
            let sums = self.subject.network.path_sums(self.x)?;
            self.sums.get_or_init(|| sums);
        }
        self.by_paths.set(true);
        let found = check();
        self.by_paths.set(false);
        found
    }

    /// Whether sizes are sums over all paths.
    pub(super) fn is_by_paths(&self) -> bool {
        self.by_paths.get()
    }

    fn sums(&self) -> Option<&PathSums> {
        self.sums.get().filter(|_| self.by_paths.get())
    }

    /// `‖J‖_F`.
    pub(super) fn jacobian_norm(&self) -> f64 {
        norm(&self.j)
    }

    /// The size of the Jacobian: `‖J‖_F`, or that of its path sums.
    pub(super) fn jacobian_size(&self) -> f64 {
        let paths = self.sums().map_or(0.0, |sums| norm(&sums.jacobian));
        self.jacobian_norm().max(paths)
    }

    /// The size of the logits: `‖f‖`, or that of their path sums.
    pub(super) fn logits_size(&self) -> f64 {
        let paths = self.sums().map_or(0.0, |sums| norm(&sums.logits));
        norm(&self.f).max(paths)
    }

    /// The size of the numbers whose difference is a change of the logits: those here, those there,
    /// and what leads there.
    pub(super) fn change_size(&self, there: &Moved<T>) -> f64 {
        let step = self.jacobian_size() * norm(&there.delta);
        self.logits_size() + norm(&there.f) + step
    }

    /// `‖J‖_F ‖r‖`, of which `‖g‖` is what is left after cancellation.
    pub(super) fn gradient_size(&self) -> f64 {
        let smallest = smallest::<T>();
        self.jacobian_size() * (norm(&self.at.r) + smallest) + smallest
    }

    /// `‖J‖_F² tr S`, of which `tr H` is what is left after cancellation.
    pub(super) fn curvature_size(&self) -> f64 {
        let size = self.jacobian_size();
        size.powi(2) * self.at.s.diag().sum() + (size + 1.0) * smallest::<T>()
    }

    /// Size of the numbers whose difference is the loss, or a divergence, between the sample's
    /// logits and others.
    pub(super) fn loss_size(&self, there: &Moved<T>) -> f64 {
        let paths = self.sums().map_or(0.0, |_| self.change_size(there));
        let logits = norm(&self.f) + norm(&there.f);
        logits.max(paths) + (self.outputs() as f64).ln()
    }

    /// Whether the square of the curvature's size leaves the range in which numbers keep their
    /// digits.
    pub(super) fn curvature_underflows(&self) -> bool {
        self.curvature_size().powi(2) < f64::MIN_POSITIVE / f64::EPSILON
    }

    /// Whether the residual is so small that what sweeps make of it on the way has lost digits.
    pub(super) fn residual_underflows(&self) -> bool {
        let size = norm(&self.at.r);
        size > 0.0 && size < smallest::<T>() / T::EPSILON.into_f64()
    }

    /// `C J`, the rows without their mean.
    pub(super) fn centred(&self) -> Array2<f64> {
        let mean = self.j.mean_axis(Axis(0)).expect("there are logits");
        &self.j - &mean
    }

    /// `‖C J‖₂²`.
    pub(super) fn centred_spectral(&self) -> Result<f64> {
        let centred = self.centred();
        Ok(largest_eigenvalue(&centred.dot(&centred.t()))?.max(0.0))
    }

    /// The direction of `g`, unless it is lost in rounding.
    pub(super) fn gradient_direction(&self) -> Option<Array1<f64>> {
        let (size, whole) = (norm(&self.g), self.jacobian_norm() * norm(&self.at.r));
        (size > 1e-3 * whole).then(|| &self.g / size)
    }

    /// Whether rounding decides no sign of `g`, as far as the path sums tell if they are asked.
    pub(super) fn gradient_is_clear(&self) -> bool {
        let Some(sums) = self.sums() else {
            return true;
        };
        let sizes = sums.jacobian.t().dot(&self.at.r.mapv(f64::abs));
        let mut pairs = self.g.iter().zip(&sizes);
        pairs.all(|(g, size)| *size == 0.0 || g.abs() > self.rounding * size)
    }

    /// A random number generator for the check with this name.
    pub(super) fn random(&self, name: &str) -> ChaCha8Rng {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let stream = name.bytes().fold(self.index as u64, hash);
        let mut random = ChaCha8Rng::seed_from_u64(self.subject.seed);
        random.set_stream(stream);
        random
    }

    /// A random unit vector that the network's precision holds.
    pub(super) fn unit(&self, size: usize, random: &mut ChaCha8Rng) -> Array1<f64> {
        let vector: Array1<f64> = (0..size).map(|_| random.sample(StandardNormal)).collect();
        let unit = &vector / norm(&vector);
        wide(narrow::<T>(&unit))
    }

    /// The sample moved by `length · direction`.
    pub(super) fn moved(&self, direction: &Array1<f64>, length: f64) -> Result<Moved<T>> {
        let here = wide(self.x.iter().copied());
        let x: Array1<T> = narrow(&(&here + &(length * direction)));
        let trace = self.subject.network.trace(x.view().insert_axis(Axis(0)))?;
        Ok(Moved {
            delta: wide(x.iter().copied()) - here,
            f: wide(trace.logits().iter().copied()),
            same_region: self.pattern.same_region(0, trace.pattern(), 0),
            x,
        })
    }

    /// The step along a direction to the first kink, and the unit there; `None` if no gate moves
    /// towards its own.
    pub(super) fn first_kink(&self, direction: &Array1<f64>) -> Option<(f64, usize)> {
        let rates = self.margins.1.dot(direction);
        let steps = self.margins.0.iter().zip(&rates).enumerate();
        let towards = steps.filter(|(_, (_, rate))| **rate < 0.0);
        let steps = towards.map(|(unit, (value, rate))| (value / -rate, unit));
        steps.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The distance to the nearest kink and its unit; `None` without gates that move.
    pub(super) fn nearest_kink(&self) -> Option<(f64, usize)> {
        let rows = self.margins.1.rows().into_iter().zip(&self.margins.0);
        let distances = rows.enumerate().filter_map(|(unit, (gradient, value))| {
            let size = norm(gradient);
            (size > 0.0).then(|| (value / size, unit))
        });
        distances.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// How large a margin is by rounding alone.
    pub(super) fn margin_noise(&self) -> f64 {
        let largest = |values: &Array1<f64>| values.iter().fold(0.0, |a: f64, &b| a.max(b));
        let paths = self.sums().map_or(0.0, |sums| largest(&sums.margins));
        self.rounding * largest(&self.margins.0).max(paths)
    }

    /// Whether a unit that moves is at its kink, or would be but for rounding.
    pub(super) fn on_kink(&self) -> bool {
        let noise = self.margin_noise();
        let rows = self.margins.1.rows().into_iter().zip(&self.margins.0);
        rows.into_iter()
            .any(|(gradient, &value)| value <= noise && norm(gradient) > 0.0)
    }

    /// Whether `1 − p` of the likeliest class is less than the distance from 1 to the next larger
    /// number.
    pub(super) fn saturated(&self) -> bool {
        self.at.doubt < T::EPSILON.into_f64()
    }
}
