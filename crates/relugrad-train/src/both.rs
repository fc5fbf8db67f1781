//! One object for both types of numbers.

use std::any::Any;
use std::sync::Arc;

/// The same object behind a trait of `f32` and that of `f64`: what a trait with generic functions
/// becomes when its type is known at run time only.
#[derive(Debug)]
pub(crate) struct Both<S: ?Sized, D: ?Sized> {
    single: Arc<S>,
    double: Arc<D>,
}

impl<S: ?Sized + 'static, D: ?Sized + 'static> Both<S, D> {
    pub(crate) fn new(single: Arc<S>, double: Arc<D>) -> Both<S, D> {
        Both { single, double }
    }

    /// The one whose trait is `W`, which is `S` or `D`.
    pub(crate) fn of<W: ?Sized + 'static>(&self) -> &W {
        let both: [&dyn Any; 2] = [&self.single, &self.double];
        let found = both
            .into_iter()
            .find_map(|one| one.downcast_ref::<Arc<W>>());
        found.expect("numbers are f32 or f64")
    }
}

impl<S: ?Sized, D: ?Sized> Clone for Both<S, D> {
    fn clone(&self) -> Both<S, D> {
        Both {
            single: Arc::clone(&self.single),
            double: Arc::clone(&self.double),
        }
    }
}
