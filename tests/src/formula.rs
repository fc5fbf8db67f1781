//! Random formulas whose shapes fit, and random texts.

use std::fmt::Write;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What a formula, or a part of it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Scalar,
    /// A column of logits.
    Logits,
    /// A column of inputs.
    Inputs,
    /// `[K, K]`.
    Square,
    /// `[K, D]`.
    Rows,
}

use Kind::{Inputs, Logits, Rows, Scalar, Square};

/// A random formula of a kind with so many levels of operations. It is defined everywhere: logarithms,
/// roots and denominators are of `1 + x²`, exponentials of `−x²`.
pub fn formula(kind: Kind, levels: usize, random: &mut ChaCha8Rng) -> String {
    if levels == 0 {
        return leaf(kind, random).to_owned();
    }
    if random.random_range(0..2) == 0 {
        let same = formula(kind, levels - 1, random);
        return each(kind, same, levels, random);
    }
    match kind {
        Scalar => scalar(levels, random),
        Logits | Inputs | Square | Rows => matrix(kind, levels, random),
    }
}

/// An operation on entries.
fn each(kind: Kind, a: String, levels: usize, random: &mut ChaCha8Rng) -> String {
    let choice = random.random_range(0..11);
    let other = match choice {
        0..3 => formula(kind, levels - 1, random),
        _ => formula(Scalar, levels - 1, random),
    };
    match choice {
        0 => format!("({a} + {other})"),
        1 => format!("({a} - {other})"),
        2 => format!("({a}).*({other})"),
        3 => format!("({other})*({a})"),
        4 => format!("({a})/(2 + ({other})^2)"),
        5 => format!("exp(-({a})^2)"),
        6 => format!("log(1 + ({a})^2)"),
        7 => format!("sqrt(1 + ({a})^2)"),
        8 => format!("abs({a})"),
        9 => format!("relu({a})"),
        _ => format!("({a} + {other})"),
    }
}

fn scalar(levels: usize, random: &mut ChaCha8Rng) -> String {
    let of = [Logits, Inputs, Square, Rows][random.random_range(0..4)];
    let mut part = |kind| formula(kind, levels - 1, random);
    let a = part(of);
    let (b, square) = (part(of), part(Square));
    let names = ["sum", "norm1", "norm2", "norminf", "max", "min", "lse"];
    match random.random_range(0..12) {
        i @ 0..7 => format!("{}({a})", names[i]),
        7 => format!("dot({a}, {b})"),
        8 => format!("tr({square})"),
        9 => format!("eigmax({square} + ({square})^T)"),
        10 => format!("logdet(I + ({square})*({square})^T)"),
        _ => format!("trsqrt(I + ({square})*({square})^T)"),
    }
}

fn matrix(kind: Kind, levels: usize, random: &mut ChaCha8Rng) -> String {
    let mut part = |kind| formula(kind, levels - 1, random);
    let (square, rows, logits, inputs) = (part(Square), part(Rows), part(Logits), part(Inputs));
    match (kind, random.random_range(0..4)) {
        (Logits, 0) => format!("({square})*({logits})"),
        (Logits, 1) => format!("({rows})*({inputs})"),
        (Logits, 2) => {
            let norm = ["1", "2", "inf"][random.random_range(0..3)];
            format!("rownorms{norm}({rows})")
        }
        (Logits, _) if random.random_range(0..2) == 0 => format!("softmax({logits})"),
        (Logits, _) => format!("diag({square})"),
        (Inputs, 0..2) => format!("({rows})'*({logits})"),
        (Inputs, _) => format!("(({logits})^T*({rows}))^T"),
        (Square, 0) => format!("({square})*({square})'"),
        (Square, 1) => format!("({rows})*({rows})^T"),
        (Square, 2) => format!("outer({logits}, {logits})"),
        (Square, _) => format!("diag({logits})"),
        (Rows, 0) => format!("({square})*({rows})"),
        (Rows, 1) => format!("({logits})*({inputs})^T"),
        (Rows, _) => format!("({rows} - one*(({logits})^T*({rows})))"),
        (Scalar, _) => scalar(levels, random),
    }
}

fn leaf(kind: Kind, random: &mut ChaCha8Rng) -> &'static str {
    let names: &[&str] = match kind {
        Scalar => &["loss", "0.5", "eps", "K", "2", "1e-1", "hold(loss)"],
        Logits => &["f", "p", "y", "r", "one", "C*f"],
        Inputs => &["g", "J'*r", "J'*p", "g"],
        Square => &["G", "S", "C", "I", "G", "J*J'", "S*G"],
        Rows => &["J", "J", "C*J", "S*J", "hold(J)"],
    };
    names[random.random_range(0..names.len())]
}

/// A random text of the language's characters, which is hardly ever a formula.
pub fn garbage(length: usize, random: &mut ChaCha8Rng) -> String {
    const PARTS: [&str; 40] = [
        "(",
        ")",
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        ".*",
        "./",
        "^",
        "^T",
        "'",
        ",",
        " ",
        "f",
        "J",
        "G",
        "g",
        "S",
        "C",
        "I",
        "r",
        "y",
        "one",
        "K",
        "D",
        "1",
        "0.5",
        "1e9",
        "tr(",
        "sum(",
        "norm2(",
        "eigmax(",
        "dot(",
        "lse(",
        "rownorms1(",
        "hold(",
        "ε",
        "@",
    ];
    let mut text = String::new();
    for _ in 0..length {
        let part = PARTS[random.random_range(0..PARTS.len())];
        text.write_str(part).expect("a string takes all");
    }
    text
}
