//! What rounding errors are proportional to: values, margins and Jacobian with all signs taken
//! away.
//!
//! To first order in `ε` the rounding error of a value that is computed node by node is at most
//! `n ε` times the sum of the absolute values of all products along all paths that lead to it, `n`
//! being the number of roundings on the longest of them (Higham 2002, *Accuracy and Stability of
//! Numerical Algorithms*, section 3.1; [theory](crate::theory), section 1.7). Where that sum is
//! much larger than the value, digits have cancelled.

use ndarray::{Array1, Array2, ArrayView1, Axis};

use crate::error::{Result, check_array};
use crate::network::map::{GateKind, GateMap, Map, SweepContext};
use crate::network::{Network, Node};
use crate::pattern::{ActivationPattern, LayerView};
use crate::scalar::Scalar;
use crate::trace::resize_buffers;

/// The sums of absolute values along all paths through the frozen network of a sample.
#[derive(Clone, Debug)]
pub struct PathSums {
    /// Of the logits; `[K]`.
    pub logits: Array1<f64>,
    /// Of the margins of all gates, in the order of [`Margins`](crate::Margins); `[N]`.
    pub margins: Array1<f64>,
    /// Of the entries of the Jacobian; `[K, D]`.
    pub jacobian: Array2<f64>,
}

impl<T: Scalar> Network<T> {
    /// The path sums at one sample; `x: [D]`.
    ///
    /// Cost: `D + 1` forward rows.
    ///
    /// # Errors
    /// Those of [`trace`](Self::trace), and [`Error::NotFinite`](crate::Error::NotFinite) for a sum
    /// that overflows.
    pub fn path_sums(&self, x: ArrayView1<T>) -> Result<PathSums> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        let input: Vec<f64> = x.iter().map(|x| x.into_f64().abs()).collect();
        Absolute::of(&self.widened(), trace.pattern()).sums(&input)
    }

    /// The path sums of all [`pieces`](Self::pieces) of `x + t z` for `t` from 0 to `length`, with
    /// the inputs `|x| + t |z|` at their ends: what the rounding errors of a [`walk`](Self::walk)
    /// are proportional to.
    ///
    /// Cost: a walk, and `D + 1` forward rows a piece.
    ///
    /// # Errors
    /// Those of [`pieces`](Self::pieces), and [`Error::NotFinite`](crate::Error::NotFinite) for a
    /// sum that overflows.
    pub fn path_sums_along(
        &self,
        x: ArrayView1<T>,
        z: ArrayView1<T>,
        length: f64,
    ) -> Result<Vec<PathSums>> {
        let (wide, mut walk) = (self.widened(), self.walk(x, z, length)?);
        let mut all = Vec::new();
        loop {
            let end = walk.end();
            let size = |(x, z): (&T, &T)| x.into_f64().abs() + end * z.into_f64().abs();
            let input: Vec<f64> = x.iter().zip(z).map(size).collect();
            all.push(Absolute::of(&wide, walk.pattern()).sums(&input)?);
            if walk.cross()?.is_none() {
                return Ok(all);
            }
        }
    }
}

/// The frozen network of a pattern with the absolute values of its numbers.
struct Absolute<'n> {
    network: &'n Network<f64>,
    pattern: &'n ActivationPattern,
    parameters: Vec<f64>,
    buffers: Vec<Vec<f64>>,
    margins: Vec<f64>,
}

impl<'n> Absolute<'n> {
    fn of(network: &'n Network<f64>, pattern: &'n ActivationPattern) -> Absolute<'n> {
        let parameters = network.parameters().values().iter();
        Absolute {
            network,
            pattern,
            parameters: parameters.map(|p| p.abs()).collect(),
            buffers: Vec::new(),
            margins: Vec::new(),
        }
    }

    /// All path sums, for an input without signs.
    fn sums(&mut self, input: &[f64]) -> Result<PathSums> {
        let (outputs, inputs) = (self.network.outputs(), self.network.inputs());
        let logits = Array1::from_vec(self.run(input, true));
        let margins = Array1::from_vec(std::mem::take(&mut self.margins));
        let mut jacobian = Array2::zeros((outputs, inputs));
        let mut unit = vec![0.0; inputs];
        for (i, mut column) in jacobian.columns_mut().into_iter().enumerate() {
            unit[i] = 1.0;
            column.assign(&ArrayView1::from(&self.run(&unit, false)));
            unit[i] = 0.0;
        }
        let entries = jacobian.as_slice().expect("standard layout");
        for (shape, values) in [
            (logits.shape(), logits.as_slice().expect("one row")),
            (margins.shape(), margins.as_slice().expect("one row")),
            (jacobian.shape(), entries),
        ] {
            check_array("a path sum", shape, values)?;
        }
        Ok(PathSums {
            logits,
            margins,
            jacobian,
        })
    }

    /// The logits of a row, without `affine` of its linear part.
    fn run(&mut self, input: &[f64], affine: bool) -> Vec<f64> {
        resize_buffers(&mut self.buffers, self.network, 1, |_| true);
        self.buffers[0].copy_from_slice(input);
        self.margins.clear();
        for node in self.network.nodes() {
            self.step(node, affine);
        }
        self.buffers[self.network.output().slot].clone()
    }

    fn step(&mut self, node: &Node, affine: bool) {
        let in_place = node.in_place(self.network.nodes());
        let mut out = std::mem::take(&mut self.buffers[node.slot]);
        let value = |input: usize| &self.buffers[self.network.nodes()[input].slot][..];
        if let Map::Gate(gate) = &node.map {
            let layer = self.pattern.view(gate.layer, &(0..1));
            let input = (!in_place).then(|| value(node.inputs[0]));
            write_sums(gate, &layer, input.unwrap_or(&out), &mut self.margins);
            gate.piece(&self.parameters, &layer, 1, input, affine, &mut out);
        } else if let (Map::Elementwise(map), false) = (&node.map, in_place) {
            map.absolute(&self.parameters, value(node.inputs[0]), affine, &mut out);
        } else {
            let at = SweepContext::new(&self.parameters, 1);
            node.apply(self.network.nodes(), at, &self.buffers, affine, &mut out);
        }
        // Slopes, bounds and fillings may be negative.
        out.iter_mut().for_each(|entry| *entry = entry.abs());
        self.buffers[node.slot] = out;
    }
}

/// Appends the path sums of the margins of a layer, in the order in which margins are written.
fn write_sums(gate: &GateMap, layer: &LayerView, arriving: &[f64], to: &mut Vec<f64>) {
    match &gate.kind {
        GateKind::Slope(slope) => match slope.bounds() {
            None => to.extend_from_slice(arriving),
            Some((min, max)) => {
                for bound in [min, max] {
                    to.extend(arriving.iter().map(|z| z + bound.abs()));
                }
            }
        },
        GateKind::Max(max) => {
            for unit in 0..max.units() {
                let winner = layer.unit(0, unit);
                let top = arriving[max.member(unit, winner)];
                let rivals = max.members(unit).enumerate();
                let rivals = rivals.filter(|(place, _)| *place != winner);
                to.extend(rivals.map(|(_, i)| top + arriving[i]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Builder, Gate};
    use ndarray::array;

    #[test]
    fn signs_are_taken_away_along_all_paths() {
        // z = (x1 − 2 x2 − 1, −x1) at (3, −1): (4, −3), then f = −2 (z1 − 5) + 3 |z2|.
        let mut builder = Builder::<f32>::new();
        let x = builder.input(2).unwrap();
        let weight = array![[1.0, -2.0], [-1.0, 0.0]];
        let z = builder.dense(x, weight, Some(array![-1.0, 0.0])).unwrap();
        let a = builder.gate(z, Gate::Abs).unwrap();
        let weight = array![[-2.0, 3.0]];
        let f = builder.dense(a, weight, Some(array![10.0])).unwrap();
        let network = builder.build(f).unwrap();
        let sums = network.path_sums(array![3.0, -1.0].view()).unwrap();
        assert_eq!(sums.margins, array![6.0, 3.0]);
        assert_eq!(sums.logits, array![2.0 * 6.0 + 3.0 * 3.0 + 10.0]);
        assert_eq!(sums.jacobian, array![[2.0 + 3.0, 4.0]]);
        // On the way to x1 = −1 only the second unit switches, at t = 3/4.
        let (x, z) = (array![3.0, -1.0], array![-4.0, 0.0]);
        let along = network.path_sums_along(x.view(), z.view(), 1.0).unwrap();
        let firsts: Vec<f64> = along.iter().map(|sums| sums.margins[1]).collect();
        assert_eq!(firsts, [6.0, 7.0]);
    }
}
