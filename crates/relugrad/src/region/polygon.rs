//! Convex polygons in a plane, cut by lines.

use super::face::Kink;

/// What bounds a polygon of a [`slice`](crate::Network::slice) at one of its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The window.
    Window,
    /// A gate that switches there; `from` is what it selects on one of the two sides.
    Kink(Kink),
    /// The line where the logits of two classes are equal.
    Classes(usize, usize),
}

/// A convex polygon, its corners counter-clockwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    /// The corners.
    pub corners: Vec<[f64; 2]>,
    /// What bounds it between each corner and the next.
    pub edges: Vec<Edge>,
}

/// An affine function `c + a x + b y` as `[c, a, b]`.
pub(super) type Affine = [f64; 3];

/// Distance of a value from 0 that is rounding, relative to the terms that it is a sum of.
const ROUNDING: f64 = 1e-13;

/// Where a polygon is of a line: where a function is at most 0, nowhere negative, or on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Below,
    Above,
    Both,
}

/// The value of a function, 0 if it is within rounding of that.
fn rounded([c, a, b]: Affine, [x, y]: [f64; 2]) -> f64 {
    let (ax, by) = (a * x, b * y);
    let value = c + ax + by;
    let rounding = ROUNDING * (c.abs() + ax.abs() + by.abs());
    if value.abs() <= rounding { 0.0 } else { value }
}

impl Polygon {
    /// `[left, right] × [bottom, top]`.
    pub(super) fn rectangle([[left, right], [bottom, top]]: [[f64; 2]; 2]) -> Polygon {
        Polygon {
            corners: vec![[left, bottom], [right, bottom], [right, top], [left, top]],
            edges: vec![Edge::Window; 4],
        }
    }

    /// Its area, which is finite for a polygon of a [`slice`](crate::Network::slice): a window
    /// whose area overflows is refused.
    pub fn area(&self) -> f64 {
        let [x0, y0] = self.corners[0];
        let pairs = self.corners[1..].windows(2);
        let doubled = pairs.map(|pair| {
            let ([x1, y1], [x2, y2]) = (pair[0], pair[1]);
            (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        });
        0.5 * doubled.sum::<f64>()
    }

    /// The mean of its corners, a point inside; finite, as the corners are: no part of the sum is
    /// larger than the largest of them.
    pub fn middle(&self) -> [f64; 2] {
        let count = self.corners.len() as f64;
        let mean = |axis: usize| self.corners.iter().map(|c| c[axis] / count).sum::<f64>();
        [mean(0), mean(1)]
    }

    /// Whether a point is inside or on the boundary.
    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        (0..self.corners.len()).all(|i| {
            let ([x1, y1], [x2, y2]) = (self.corners[i], self.next(i));
            (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= 0.0
        })
    }

    /// The corner behind the `i`-th.
    pub fn next(&self, i: usize) -> [f64; 2] {
        self.corners[(i + 1) % self.corners.len()]
    }

    /// On which side of a line it is, as [`cut`](Self::cut) tells.
    pub(super) fn side(&self, function: Affine) -> Side {
        let (mut below, mut above) = (true, true);
        for &corner in &self.corners {
            let value = rounded(function, corner);
            below &= value <= 0.0;
            above &= value >= 0.0;
            if !(below || above) {
                return Side::Both;
            }
        }
        match below {
            true => Side::Below,
            false => Side::Above,
        }
    }

    /// The parts where an affine function is at most 0 and where it is positive; a part without
    /// inside is `None`, and if the function is 0 everywhere all is the first.
    pub(super) fn cut(self, function: Affine, edge: Edge) -> (Option<Polygon>, Option<Polygon>) {
        match self.side(function) {
            Side::Below => return (Some(self), None),
            Side::Above => return (None, Some(self)),
            Side::Both => {}
        }
        let values = self.corners.iter().map(|&corner| rounded(function, corner));
        let values: Vec<f64> = values.collect();
        let mut parts = [false, true].map(|_| Polygon {
            corners: Vec::with_capacity(self.corners.len() + 1),
            edges: Vec::with_capacity(self.corners.len() + 1),
        });
        let count = values.len();
        for i in 0..count {
            let (here, there) = (values[i], values[(i + 1) % count]);
            for (part, side) in parts.iter_mut().zip([-1.0, 1.0]) {
                if here * side >= 0.0 {
                    part.corners.push(self.corners[i]);
                    // From the line on, the part goes along it unless the next corner is on its
                    // side too.
                    let along = here == 0.0 && there * side < 0.0;
                    part.edges.push(if along { edge } else { self.edges[i] });
                }
            }
            if here * there < 0.0 {
                let share = here / (here - there);
                let ([x1, y1], [x2, y2]) = (self.corners[i], self.next(i));
                let crossing = [x1 + share * (x2 - x1), y1 + share * (y2 - y1)];
                for (part, side) in parts.iter_mut().zip([-1.0, 1.0]) {
                    part.corners.push(crossing);
                    let leaves = here * side > 0.0;
                    part.edges.push(if leaves { edge } else { self.edges[i] });
                }
            }
        }
        let [below, above] = parts;
        (Some(below), Some(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Edge = Edge::Classes(0, 1);

    #[test]
    fn a_square_is_cut_with_its_edges() {
        let square = Polygon::rectangle([[0.0, 2.0], [0.0, 1.0]]);
        let (below, above) = square.clone().cut([-0.5, 1.0, 0.0], LINE);
        let (below, above) = (below.unwrap(), above.unwrap());
        assert_eq!((below.area(), above.area()), (0.5, 1.5));
        let lines = |p: &Polygon| -> Vec<[[f64; 2]; 2]> {
            let on_line = (0..p.edges.len()).filter(|&i| p.edges[i] == LINE);
            on_line.map(|i| [p.corners[i], p.next(i)]).collect()
        };
        assert_eq!(lines(&below), [[[0.5, 0.0], [0.5, 1.0]]]);
        assert_eq!(lines(&above), [[[0.5, 1.0], [0.5, 0.0]]]);
        assert!(below.contains([0.2, 0.3]) && !below.contains([0.7, 0.3]));
        assert_eq!(square.middle(), [1.0, 0.5]);
    }

    #[test]
    fn a_line_through_corners_adds_none_and_one_outside_cuts_nothing() {
        let square = || Polygon::rectangle([[0.0, 1.0], [0.0, 1.0]]);
        let (below, above) = square().cut([0.0, 1.0, -1.0], LINE);
        for part in [below.unwrap(), above.unwrap()] {
            assert_eq!((part.corners.len(), part.area()), (3, 0.5));
            assert_eq!(part.edges.iter().filter(|&&e| e == LINE).count(), 1);
        }
        assert!(square().cut([1.0, 1.0, 0.0], LINE).0.is_none());
        assert!(square().cut([0.0, 1.0, 0.0], LINE).0.is_none());
        assert!(square().cut([0.0, -1.0, 0.0], LINE).1.is_none());
        assert!(square().cut([0.0, 0.0, 0.0], LINE).1.is_none());
    }
}
