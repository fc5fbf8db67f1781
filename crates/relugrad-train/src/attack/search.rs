//! Samples under attack: looks at iterates, and what is kept of them.

use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use relugrad::loss::TargetKind;
use relugrad::{GoOn, Loss, Network, Scalar, Trace};

use super::{AttackOptions, Ball};
use crate::data::{Bounds, Truth};
use crate::prediction::classes;
use crate::stop::ask;

/// What an attack found for each sample of a batch.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    /// The misclassified iterate if there is one, otherwise the one of the highest loss; `[B, D]`.
    pub adversarial: Array2<T>,
    /// Whether the sample is misclassified, without or under the attack.
    pub fooled: Vec<bool>,
    /// The loss at the adversarial example.
    pub losses: Vec<f64>,
}

/// What is attacked.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, T> {
    pub(super) network: &'a Network<T>,
    pub(super) loss: &'a Loss,
    pub(super) go_on: GoOn<'a>,
}

/// Samples under attack, with what has been found of them.
pub struct Search<'a, T> {
    options: AttackOptions,
    bounds: Bounds,
    on: Target<'a, T>,
    clean: Array2<T>,
    truth: Truth<T>,
    /// The number of each sample in its data set.
    numbers: Vec<usize>,
    restart: usize,
    pub(super) outcome: Outcome<T>,
}

/// What is raised at some iterates, and where it grows.
#[derive(Clone, Debug)]
pub struct Look<T> {
    /// The objective of each sample; `[B]`.
    pub values: Vec<f64>,
    /// Its gradients with respect to the inputs; `[B, D]`.
    pub gradients: Array2<T>,
}

impl<'a, T: Scalar> Search<'a, T> {
    pub(super) fn new(
        on: Target<'a, T>,
        (options, bounds): (AttackOptions, Bounds),
        clean: Array2<T>,
        truth: Truth<T>,
        numbers: Vec<usize>,
    ) -> relugrad::Result<Search<'a, T>> {
        let mut search = Search {
            options,
            bounds,
            on,
            numbers,
            restart: 0,
            outcome: Outcome {
                adversarial: clean.clone(),
                fooled: vec![false; truth.len()],
                losses: vec![f64::NEG_INFINITY; truth.len()],
            },
            truth,
            clean,
        };
        let trace = on.network.trace(search.clean.view())?;
        search.take(&trace)?;
        drop(trace);
        Ok(search)
    }

    /// Where a restart begins.
    pub(super) fn start(&mut self, restart: usize) -> Array2<T> {
        self.restart = restart;
        let mut start = self.clean.clone();
        if self.options.random_start {
            for (i, mut row) in start.rows_mut().into_iter().enumerate() {
                let row = row.as_slice_mut().expect("rows are contiguous");
                let mut random = self.random(i);
                self.options
                    .norm
                    .perturb(self.options.epsilon, &mut random, row);
                self.project(i, row);
            }
        }
        start
    }

    /// Where, how long and how often is searched.
    pub fn options(&self) -> &AttackOptions {
        &self.options
    }

    /// The samples themselves; `[B, D]`.
    pub fn clean(&self) -> ArrayView2<'_, T> {
        self.clean.view()
    }

    /// Their classes, `[B]`, or their values, `[B, K]`.
    pub fn truth(&self) -> &Truth<T> {
        &self.truth
    }

    /// Their classes; `[B]`, or nothing of samples with values, for which
    /// [`Attack::classes`](super::Attack::classes) may be 0.
    pub fn labels(&self) -> &[usize] {
        self.truth.labels()
    }

    /// The number of the present restart, from 0.
    pub fn restart(&self) -> usize {
        self.restart
    }

    /// How many classes the network tells apart; 0 for samples with values.
    pub fn classes(&self) -> usize {
        match self.truth.kind() {
            TargetKind::Values => 0,
            TargetKind::Classes | TargetKind::Probabilities => classes(self.on.network.outputs()),
        }
    }

    /// The logits of the samples themselves; `[B, K]`.
    ///
    /// # Errors
    /// Those of [`Network::trace`].
    pub fn clean_logits(&self) -> relugrad::Result<Array2<T>> {
        let trace = self.on.network.trace(self.clean.view())?;
        Ok(trace.logits().to_owned())
    }

    /// Random numbers of a sample in this restart, the same whatever batch it is in. A random start
    /// begins with them.
    pub fn random(&self, sample: usize) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
        random.set_stream(((self.numbers[sample] as u64) << 16) | self.restart as u64);
        random
    }

    /// Back into the ball around a sample, and the box; `moved: [D]`. The result is in both: the box is
    /// convex and holds the sample, so clipping does not leave the ball.
    pub fn project(&self, sample: usize, moved: &mut [T]) {
        let centre = self.clean.row(sample);
        let centre = centre.as_slice().expect("rows are contiguous");
        let AttackOptions { norm, epsilon, .. } = self.options;
        norm.project(centre, epsilon, moved);
        self.bounds.clamp(moved);
    }

    /// Moves each sample's iterate by a step of the length `size` along which its objective grows
    /// fastest, and back into the ball and the box; `iterates` and `gradients: [B, D]`.
    pub fn climb(
        &self,
        iterates: &mut Array2<T>,
        mut gradients: Array2<T>,
        size: impl Fn(usize) -> f64,
    ) {
        let rows = iterates.rows_mut().into_iter().zip(gradients.rows_mut());
        for (i, (mut row, mut step)) in rows.enumerate() {
            let step = step.as_slice_mut().expect("rows are contiguous");
            self.options.norm.steepest(step, size(i));
            let row = row.as_slice_mut().expect("rows are contiguous");
            row.iter_mut().zip(&*step).for_each(|(x, &s)| *x += s);
            self.project(i, row);
        }
    }

    /// Looks at iterates, keeps what is worse than before, and tells the losses and where they
    /// grow; `images: [B, D]`.
    ///
    /// # Errors
    /// Those of [`Network::trace`]; [`relugrad::Error::OutOfRange`] for iterates outside the ball
    /// or the box; [`relugrad::Error::Stopped`].
    pub fn look(&mut self, images: &Array2<T>) -> relugrad::Result<Look<T>> {
        let trace = self.trace(images)?;
        let values = self.take(&trace)?;
        let gradients = trace.input_gradient(self.on.loss, &self.truth.targets())?;
        Ok(Look { values, gradients })
    }

    /// [`look`](Self::look) with another objective than the loss: a function of logits `[B, K]` and
    /// classes, with its derivatives with respect to the logits, `[B, K]`.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn look_by(
        &mut self,
        images: &Array2<T>,
        objective: impl Fn(ArrayView2<T>, &[usize]) -> (Vec<f64>, Array2<T>),
    ) -> relugrad::Result<Look<T>> {
        let trace = self.trace(images)?;
        self.take(&trace)?;
        let (values, slopes) = objective(trace.logits(), self.labels());
        let gradients = trace.vjp(slopes.view())?;
        Ok(Look { values, gradients })
    }

    /// Keeps what is worse than before, without a gradient.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn keep(&mut self, images: &Array2<T>) -> relugrad::Result<()> {
        let trace = self.trace(images)?;
        self.take(&trace).map(drop)
    }

    fn trace(&self, images: &Array2<T>) -> relugrad::Result<Trace<'a, T>> {
        ask(self.on.go_on)?;
        self.check(images)?;
        self.on.network.trace(images.view())
    }

    /// Refuses iterates outside the ball or the box, but for rounding.
    fn check(&self, images: &Array2<T>) -> relugrad::Result<()> {
        let AttackOptions { norm, epsilon, .. } = self.options;
        let rounding = 16.0 * T::EPSILON.into_f64() * (images.ncols() as f64).sqrt();
        let rows = images.rows().into_iter().zip(self.clean.rows());
        for (row, clean) in rows {
            let mut entries = row.iter().enumerate();
            let outside = entries.find(|(feature, x)| !self.bounds.contains(*feature, **x));
            let size = norm.length(row.iter().zip(clean).map(|(&x, &c)| x - c));
            let far = (size > epsilon * (1.0 + rounding) + rounding).then_some(size);
            let problem = outside
                .map(|(_, x)| {
                    (
                        "an input of an iterate",
                        x.into_f64(),
                        match self.bounds == Bounds::default() {
                            true => "in [0, 1]",
                            false => "in the box of the data",
                        },
                    )
                })
                .or(far.map(|size| ("the size of a perturbation", size, "at most epsilon")));
            if let Some((option, value, expected)) = problem {
                return Err(relugrad::Error::OutOfRange {
                    option: option.to_owned(),
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Keeps the iterates of a trace that are worse than before; returns their losses.
    fn take(&mut self, trace: &Trace<T>) -> relugrad::Result<Vec<f64>> {
        let losses = trace.losses(self.on.loss, &self.truth.targets())?.to_vec();
        let images = trace.inputs();
        let mistaken = self.truth.mistaken(trace.logits());
        for (i, (wrong, loss)) in mistaken.into_iter().zip(&losses).enumerate() {
            self.outcome.keep(i, images.row(i), wrong, *loss);
        }
        Ok(losses)
    }
}

impl<T: Scalar> Outcome<T> {
    /// Keeps an iterate of a sample if it is worse than the one before.
    fn keep(&mut self, i: usize, x: ArrayView1<T>, fooled: bool, loss: f64) {
        if (fooled, loss) > (self.fooled[i], self.losses[i]) {
            self.fooled[i] = fooled;
            self.losses[i] = loss;
            self.adversarial.row_mut(i).assign(&x);
        }
    }

    /// Keeps what was found for a sample elsewhere if it is worse.
    pub(super) fn take(&mut self, i: usize, found: &Outcome<T>, row: usize) {
        let x = found.adversarial.row(row);
        self.keep(i, x, found.fooled[row], found.losses[row]);
    }
}
