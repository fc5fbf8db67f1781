//! What a formula's form shows about functions added to all logits alike.
//!
//! Under `f + c 1` and `J + 1 vᵀ`, for a loss that sees only differences of logits, `f` and `J` get
//! a term `1 wᵀ`, `G` one of either kind, and what stands beside them may take these terms away:
//! `C 1 = 0`, `S 1 = 0`, `rᵀ 1 = 0`.

use super::forms::Formed;
use super::graph::{Graph, Id, Leaf, Op, Zip};

/// What is added to a matrix by the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    /// A term `1 wᵀ`.
    down: bool,
    /// A term `w 1ᵀ`.
    across: bool,
    /// Anything.
    any: bool,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    change: Change,
    /// `1ᵀ A = 0`.
    down_null: bool,
    /// `A 1 = 0`.
    across_null: bool,
}

impl Change {
    const NONE: Change = Change {
        down: false,
        across: false,
        any: false,
    };
    const ANY: Change = Change {
        any: true,
        ..Change::NONE
    };

    fn is_none(self) -> bool {
        self == Change::NONE
    }

    fn with(self, other: Change) -> Change {
        Change {
            down: self.down || other.down,
            across: self.across || other.across,
            any: self.any || other.any,
        }
    }
}

impl Known {
    fn fixed(null: bool) -> Known {
        Known {
            down_null: null,
            across_null: null,
            ..Known::default()
        }
    }

    fn changing(change: Change) -> Known {
        Known {
            change,
            ..Known::default()
        }
    }

    fn transposed(self) -> Known {
        let Change { down, across, any } = self.change;
        Known {
            change: Change {
                down: across,
                across: down,
                any,
            },
            down_null: self.across_null,
            across_null: self.down_null,
        }
    }

    /// Of `A B`. With `A + 1 aᵀ + a' 1ᵀ` and `B + 1 bᵀ + b' 1ᵀ` the product gets terms of either
    /// kind, `1 (…)ᵀ` and `(…) 1ᵀ`, and besides `a' 1ᵀ B` and `A 1 bᵀ`, unless `1ᵀ B` or `A 1` is 0.
    fn times(self, other: Known) -> Known {
        let (a, b) = (self.change, other.change);
        let stays = (a.across && !other.down_null) || (b.down && !self.across_null);
        Known {
            change: Change {
                down: a.down,
                across: b.across,
                any: a.any || b.any || stays,
            },
            down_null: self.down_null && a.is_none(),
            across_null: other.across_null && b.is_none(),
        }
    }

    /// Of a sum.
    fn plus(self, other: Known) -> Known {
        Known {
            change: self.change.with(other.change),
            down_null: self.down_null && other.down_null,
            across_null: self.across_null && other.across_null,
        }
    }
}

impl Formed {
    /// Whether its form shows that its value stays the same.
    pub(super) fn sees_only_differences(&self) -> bool {
        let mut known = vec![Known::default(); self.root + 1];
        for id in self.graph.needed(self.root) {
            known[id] = of_node(&self.graph, id, &known);
        }
        known[self.root].change.is_none()
    }
}

fn of_node(graph: &Graph, id: Id, known: &[Known]) -> Known {
    let of = |id: &Id| known[*id];
    let op = graph.op(id);
    match op {
        Op::Leaf(leaf) => of_leaf(*leaf),
        Op::Centring => Known::fixed(true),
        Op::Transpose(a) => of(a).transposed(),
        Op::Chain(factors) => product(factors, known),
        Op::Zip(Zip::Add | Zip::Subtract, a, b) if graph.shape(*a) == graph.shape(*b) => {
            of(a).plus(of(b))
        }
        Op::Zip(Zip::Multiply, scale, a) if graph.shape(*scale).is_scalar() => {
            scaled(of(a), of(scale))
        }
        Op::Zip(Zip::Divide, a, scale) if graph.shape(*scale).is_scalar() => {
            scaled(of(a), of(scale))
        }
        // `softmax(f + c) = softmax(f)`; the logistic function is not so, but neither is its loss.
        Op::Softmax(a) | Op::Probabilities(a) if !of(a).change.any && !of(a).change.across => {
            Known::fixed(false)
        }
        // `S 1 = 0` on both sides of `G`.
        Op::LargestCurvature(..) => Known::fixed(false),
        Op::Trace(a) => match graph.op(*a) {
            Op::Chain(factors) => trace(factors, known),
            _ => unchanged_if(of(a).change.is_none()),
        },
        _ => unchanged_if(op.inputs().iter().all(|input| of(input).change.is_none())),
    }
}

fn of_leaf(leaf: Leaf) -> Known {
    let down = Change {
        down: true,
        ..Change::NONE
    };
    match leaf {
        Leaf::Logits | Leaf::Jacobian => Known::changing(down),
        Leaf::Gram => Known::changing(Change {
            across: true,
            ..down
        }),
        Leaf::Residual => Known {
            down_null: true,
            ..Known::default()
        },
        Leaf::Hessian => Known::fixed(true),
        Leaf::Target | Leaf::Gradient | Leaf::Loss => Known::fixed(false),
    }
}

fn unchanged_if(unchanged: bool) -> Known {
    match unchanged {
        true => Known::fixed(false),
        false => Known::changing(Change::ANY),
    }
}

fn scaled(a: Known, scale: Known) -> Known {
    match scale.change.is_none() {
        true => a,
        false => Known::changing(Change::ANY),
    }
}

fn product(factors: &[Id], known: &[Known]) -> Known {
    let all = factors.iter().map(|&factor| known[factor]);
    all.reduce(Known::times).unwrap_or_default()
}

/// Of the trace of a product, which is that of every rotation of it. Of a term `w 1ᵀ` it is `1ᵀ w`,
/// which is 0 where the first factor is `A` with `1ᵀ A = 0`.
fn trace(factors: &[Id], known: &[Known]) -> Known {
    let unchanged = |i: usize| {
        let rotated = [&factors[i..], &factors[..i]].concat();
        let Change { down, across, any } = product(&rotated, known).change;
        let (first, last) = (known[rotated[0]], known[rotated[rotated.len() - 1]]);
        !any && (!across || first.down_null) && (!down || last.across_null)
    };
    unchanged_if((0..factors.len()).any(unchanged))
}
