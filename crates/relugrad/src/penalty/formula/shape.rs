//! Shapes of matrices, of which sizes are letters until a network is known.

use std::fmt;

/// A number of rows or columns. Letters are sizes of their own, even where they stand for 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dim {
    One,
    /// Logits.
    K,
    /// Inputs.
    D,
}

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rows: Dim,
    pub(super) columns: Dim,
}

/// `K` and `D` of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) k: usize,
    pub(super) d: usize,
}

impl Sizes {
    pub(super) fn of(self, dim: Dim) -> usize {
        match dim {
            Dim::One => 1,
            Dim::K => self.k,
            Dim::D => self.d,
        }
    }

    pub(super) fn entries(self, shape: Shape) -> usize {
        self.of(shape.rows) * self.of(shape.columns)
    }
}

impl Shape {
    pub(super) const SCALAR: Shape = Shape::column(Dim::One);

    pub(super) const fn new(rows: Dim, columns: Dim) -> Shape {
        Shape { rows, columns }
    }

    pub(super) const fn column(rows: Dim) -> Shape {
        Shape::new(rows, Dim::One)
    }

    pub(super) fn is_scalar(self) -> bool {
        self == Shape::SCALAR
    }

    /// A row or a column.
    pub(super) fn is_vector(self) -> bool {
        self.rows == Dim::One || self.columns == Dim::One
    }

    pub(super) fn has(self, dim: Dim) -> bool {
        self.rows == dim || self.columns == dim
    }

    pub(super) fn transposed(self) -> Shape {
        Shape::new(self.columns, self.rows)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dim::One => "1",
            Dim::K => "K",
            Dim::D => "D",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rows, self.columns) {
            (Dim::One, Dim::One) => f.write_str("a number"),
            (rows, Dim::One) => write!(f, "[{rows}]"),
            (rows, columns) => write!(f, "[{rows}, {columns}]"),
        }
    }
}
