//! How much memory a file may ask for.
//!
//! A file of a few bytes can ask for terabytes: a shape in a header, a constant that is to be made
//! up, a stream that unfolds without end. So whatever is made from a file is paid from one
//! [`Budget`] before it is allocated.

use std::cell::Cell;
use std::sync::OnceLock;

use relugrad::{Network, Scalar};

use crate::error::{Error, Result};

/// What every file may take, however short it is.
const FREE: u64 = 64 << 20;

/// What a file may take for each of its bytes. Half-precision weights, widened to eight bytes and
/// folded several times, take 40; the digits of MNIST, compressed, unfolded and widened, 40.
const TIMES: u64 = 64;

/// What a node costs with its name and its tables, besides its numbers.
const NODE: u64 = 2048;

/// What a value of a node takes while a network and its derivatives are computed: itself, and its
/// place in a row of the backward sweep and in one of the forward sweep. More rows are a matter of
/// the command that asks for them.
const VALUE: u64 = 24;

/// What an entry of a network's table of places takes.
const PLACE: u64 = 4;

static OF_PROCESS: OnceLock<Limits> = OnceLock::new();

/// How much one file may ask for.
///
/// By default all that is made from a file may take 64 MiB and 64 times the length of the file:
/// enough for every file whose numbers stand in it, and not for one that only asks for them.
///
/// ```
/// let limits = relugrad_io::Limits { memory: Some(1 << 20) };
/// let budget = limits.budget(500);
/// assert!(budget.array(&[100, 100], 8, || "the weight".into()).is_ok());
/// let error = budget.array(&[1000, 1000], 8, || "the weight".into()).unwrap_err();
/// assert!(error.to_string().contains("--file-memory"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for all that is made from one file; `None` for the default.
    pub memory: Option<u64>,
}

impl Limits {
    /// The limits for all files that this process reads from now on; they can be set once, as at
    /// the start of a program.
    ///
    /// Returns whether they are in force, which they are not if others were set before.
    pub fn set_for_process(self) -> bool {
        *OF_PROCESS.get_or_init(|| self) == self
    }

    /// The limits that were set for the process, or the default.
    pub fn of_process() -> Limits {
        OF_PROCESS.get().copied().unwrap_or_default()
    }

    /// Refuses what is longer than `usual`, which is more than any sound file has, unless these
    /// limits allow it.
    ///
    /// # Errors
    /// [`Error::TooLongToRead`].
    pub fn check_length(self, what: &'static str, bytes: u64, usual: u64) -> Result<()> {
        let limit = self.memory.unwrap_or(usual);
        match bytes <= limit {
            true => Ok(()),
            false => Err(Error::TooLongToRead { what, bytes, limit }),
        }
    }

    /// What a file of `length` bytes may take.
    pub fn budget(self, length: u64) -> Budget {
        let growth = if self.memory.is_some() { 0 } else { TIMES };
        let limit = self.memory.unwrap_or(FREE);
        let limit = limit.saturating_add(length.saturating_mul(growth));
        Budget {
            limit: Cell::new(limit),
            left: Cell::new(limit),
            growth,
        }
    }
}

/// What is left for the things that one file asks for.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: Cell<u64>,
    left: Cell<u64>,
    /// What one byte more of the file adds.
    growth: u64,
}

impl Budget {
    /// Pays for `bytes` that are about to be allocated for `what`.
    ///
    /// # Errors
    /// [`Error::Memory`] if less is left.
    pub fn take(&self, bytes: u64, what: impl FnOnce() -> String) -> Result<()> {
        // The largest number also stands for all beyond it.
        match self.left.get().checked_sub(bytes) {
            Some(left) if bytes < u64::MAX => {
                self.left.set(left);
                Ok(())
            }
            _ => Err(Error::Memory {
                what: what(),
                needed: bytes,
                left: self.left.get(),
                limit: self.limit.get(),
            }),
        }
    }

    /// Pays for an array of this shape, with `size` bytes an entry, and returns the number of its
    /// entries.
    ///
    /// An axis of length 0 does not make the others free: what goes through them one by one takes
    /// its time too.
    ///
    /// # Errors
    /// [`Error::Memory`] if less is left, [`Error::EmptyShape`] if there is such an axis: more
    /// memory would not help then.
    pub fn array(
        &self,
        shape: &[usize],
        size: usize,
        what: impl FnOnce() -> String,
    ) -> Result<usize> {
        let bytes = shape
            .iter()
            .map(|&n| n.max(1) as u64)
            .fold(size as u64, u64::saturating_mul);
        match self.take(bytes, what) {
            Err(Error::Memory { what, .. }) if shape.contains(&0) => {
                Err(Error::EmptyShape { what })
            }
            paid => paid.map(|()| shape.iter().product()),
        }
    }

    /// Pays for `count` nodes of a network.
    ///
    /// # Errors
    /// [`Error::Memory`] if less is left.
    pub fn nodes(&self, count: usize) -> Result<()> {
        self.take((count as u64).saturating_mul(NODE), || {
            format!("a network of {count} nodes")
        })
    }

    /// Pays for the values that a network's nodes hold for one input and a row of each sweep.
    ///
    /// # Errors
    /// [`Error::Memory`] if less is left.
    pub fn values<T: Scalar>(&self, network: &Network<T>) -> Result<()> {
        let bytes = (network.values() as u64).saturating_mul(VALUE);
        self.take(bytes, || {
            let nodes = network.nodes().iter();
            let widest = nodes.rev().max_by_key(|node| node.width());
            let (name, shape) = widest.map_or(("", &[][..]), |node| (node.name(), node.shape()));
            format!(
                "a network of {} values for one input, most of them, of shape {shape:?}, in the node `{name}`,",
                network.values()
            )
        })
    }

    /// How many entries the tables of places of a network may have with what is left.
    pub fn room(&self) -> usize {
        usize::try_from(self.left.get() / PLACE).unwrap_or(usize::MAX)
    }

    /// The engine's error, or what it means if the tables of a network did not fit into the
    /// [`room`](Self::room).
    pub fn explain(&self, error: relugrad::Error) -> Error {
        let relugrad::Error::TooWide { node, shape, limit } = error else {
            return Error::Network(error);
        };
        if limit >= relugrad::MAX_WIDTH {
            return Error::Network(relugrad::Error::TooWide { node, shape, limit });
        }
        let entries = shape.iter().map(|&n| n as u64);
        Error::Memory {
            what: format!("`{node}`, with a table of places of shape {shape:?},"),
            needed: entries.fold(PLACE, u64::saturating_mul),
            left: self.left.get().min(limit as u64 * PLACE),
            limit: self.limit.get(),
        }
    }

    /// Adds what the file may take for `bytes` more of it, as when it is read piece by piece.
    pub fn grow(&self, bytes: u64) {
        let more = bytes.saturating_mul(self.growth);
        self.limit.set(self.limit.get().saturating_add(more));
        self.left.set(self.left.get().saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<impl Sized>) -> String {
        match result {
            Ok(_) => panic!("it was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn one_budget_is_for_everything_together() {
        let budget = Limits { memory: Some(1000) }.budget(1 << 40);
        let part = || "the part".into();
        assert_eq!(budget.array(&[10, 5], 8, part).unwrap(), 50);
        assert_eq!(budget.array(&[75], 8, part).unwrap(), 75);
        assert_eq!(
            refused(budget.array(&[1], 8, part)),
            "the part needs 8 bytes of memory, but only 0 bytes are left of the 1000 bytes that this file may take; \
             --file-memory SIZE allows more"
        );
    }

    #[test]
    fn an_empty_array_with_huge_axes_is_not_free() {
        let budget = Limits::default().budget(100);
        for shape in [[0, 1 << 40], [usize::MAX, 0]] {
            let text = refused(budget.array(&shape, 8, || "it".into()));
            assert!(text.contains("it has no entries"), "{text}");
            assert!(!text.contains("--file-memory"), "{text}");
        }
        let text = refused(budget.array(&[usize::MAX, usize::MAX], 8, || "it".into()));
        assert!(text.contains("more than 16 EiB"), "{text}");
        assert_eq!(budget.array(&[0, 5], 8, || "it".into()).unwrap(), 0);
    }

    #[test]
    fn a_given_limit_takes_the_place_of_every_usual_length() {
        let text = refused(Limits::default().check_length("a line", 11, 10));
        assert_eq!(
            text,
            "a line has 11 bytes, and at most 10 are read; --file-memory SIZE allows more"
        );
        let given = |memory| Limits {
            memory: Some(memory),
        };
        assert!(given(11).check_length("a line", 11, 10).is_ok());
        assert!(given(5).check_length("a line", 6, 10).is_err());
    }

    #[test]
    fn the_default_grows_with_the_file_and_a_given_limit_does_not() {
        let budget = Limits::default().budget(0);
        assert!(budget.take(FREE + TIMES, String::new).is_err());
        budget.grow(1);
        assert!(budget.take(FREE + TIMES, String::new).is_ok());
        let fixed = Limits { memory: Some(1) }.budget(1 << 50);
        fixed.grow(1 << 50);
        assert!(fixed.take(2, String::new).is_err());
        assert!(budget.nodes(usize::MAX).is_err());
    }
}
