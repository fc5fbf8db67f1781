//! What an optimizer remembers of earlier gradients.

use relugrad::Scalar;

use super::AnyOptimizer;

/// The arrays of an optimizer by their names, and how many steps it has taken.
#[derive(Clone, Debug, PartialEq)]
pub struct State<T> {
    steps: u64,
    buffers: Vec<(&'static str, Vec<T>)>,
}

impl<T: Scalar> State<T> {
    /// The number of the present step, from 1.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The arrays in the order of [`Optimizer::buffers`](super::Optimizer::buffers).
    ///
    /// # Panics
    /// If there are not `N`.
    pub fn buffers<const N: usize>(&mut self) -> [&mut [T]; N] {
        assert_eq!(self.buffers.len(), N, "as many buffers as were named");
        let mut buffers = self.buffers.iter_mut();
        std::array::from_fn(|_| &mut *buffers.next().expect("there are N").1)
    }
}

/// An optimizer and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState<T> {
    optimizer: AnyOptimizer,
    parameters: usize,
    state: State<T>,
}

impl<T: Scalar> OptimizerState<T> {
    /// The state before the first step, for `parameters` parameters.
    pub fn new(optimizer: impl Into<AnyOptimizer>, parameters: usize) -> OptimizerState<T> {
        let optimizer = optimizer.into();
        let buffers = optimizer.buffers(parameters).into_iter();
        let buffers = buffers.map(|(name, length)| (name, vec![T::ZERO; length]));
        let (steps, buffers) = (0, buffers.collect());
        OptimizerState {
            optimizer,
            parameters,
            state: State { steps, buffers },
        }
    }

    /// The arrays to be saved, by their names.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (&'static str, &[T])> {
        let buffers = self.state.buffers.iter();
        buffers.map(|(name, values)| (*name, &**values))
    }

    /// Puts saved arrays back; if they are not those of this optimizer, says what differs. Earlier
    /// versions saved an empty array for SGD, which nothing depends on.
    pub(crate) fn restore(
        &mut self,
        steps: u64,
        mut arrays: Vec<(String, Vec<T>)>,
    ) -> Result<(), String> {
        arrays.retain(|(_, values)| !values.is_empty());
        let shapes = |arrays: &mut dyn Iterator<Item = (&str, usize)>| -> Vec<String> {
            let mut shapes: Vec<String> = arrays
                .filter(|(_, length)| *length > 0)
                .map(|(name, length)| format!("{name} [{length}]"))
                .collect();
            shapes.sort();
            shapes
        };
        let found = shapes(&mut arrays.iter().map(|(name, values)| (&**name, values.len())));
        let ours = shapes(&mut self.buffers().map(|(name, values)| (name, values.len())));
        if found != ours {
            let list = |shapes: Vec<String>| match shapes.is_empty() {
                true => "none".to_owned(),
                false => shapes.join(", "),
            };
            return Err(format!(
                "it has the buffers of another optimizer ({}), not those of {} ({})",
                list(found),
                self.optimizer.name(),
                list(ours)
            ));
        }
        self.state.steps = steps;
        for (name, values) in arrays {
            let own = self.state.buffers.iter_mut().find(|own| own.0 == name);
            own.expect("the names are the same").1 = values;
        }
        Ok(())
    }

    /// Takes one step of learning rate `rate`.
    ///
    /// # Panics
    /// If the lengths differ from the number of parameters.
    pub fn step(&mut self, parameters: &mut [T], gradient: &[T], rate: f64) {
        let lengths = [parameters.len(), gradient.len()];
        assert_eq!(lengths, [self.parameters; 2], "of another network");
        self.state.steps += 1;
        let optimizer = &self.optimizer;
        optimizer.step(&mut self.state, parameters, gradient, rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{Adam, AdamW, OPTIMIZERS, Sgd};

    #[test]
    fn all_find_the_minimum_of_a_quadratic() {
        let nesterov = Sgd {
            nesterov: true,
            ..Sgd::default()
        };
        for optimizer in [
            AnyOptimizer::from(Sgd::default()),
            nesterov.into(),
            Adam::default().into(),
        ] {
            let mut state = OptimizerState::new(optimizer, 2);
            let mut p = [3.0, -2.0];
            for _ in 0..2000 {
                let gradient = [p[0] - 1.0, 4.0 * (p[1] - 0.5)];
                state.step(&mut p, &gradient, 0.01);
            }
            assert!(
                (p[0] - 1.0f64).abs() < 1e-4 && (p[1] - 0.5f64).abs() < 1e-4,
                "{p:?}"
            );
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let sgd = |momentum, nesterov, weight_decay| Sgd {
            momentum,
            nesterov,
            weight_decay,
        };
        let adamw = AdamW {
            epsilon: 0.0,
            ..AdamW::default()
        };
        for bad in [
            AnyOptimizer::from(sgd(1.0, false, 0.0)),
            sgd(f64::NAN, false, 0.0).into(),
            sgd(0.0, true, 0.0).into(),
            sgd(0.9, false, -1.0).into(),
            adamw.into(),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let error = "adma".parse::<AnyOptimizer>().unwrap_err().to_string();
        assert!(error.contains("did you mean `adam`"), "{error}");
    }

    /// Every entry is read from its name, has all of its options in its file, and says what they
    /// are.
    #[test]
    fn the_catalogue_is_complete() {
        for entry in OPTIMIZERS {
            let optimizer: AnyOptimizer = entry.name.parse().unwrap();
            optimizer.check().unwrap();
            let spec = crate::spec::Spec::from(optimizer.clone());
            let keys: Vec<&str> = spec.options.keys().map(String::as_str).collect();
            let mut named: Vec<&str> = entry.options.iter().map(|option| option.name).collect();
            named.sort_unstable();
            assert_eq!(keys, named, "{}", entry.name);
            assert!(entry.options.iter().all(|o| !o.meaning.is_empty()));
            assert_eq!(AnyOptimizer::try_from(spec).unwrap(), optimizer);
        }
    }
}
