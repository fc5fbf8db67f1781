//! Functions of one or two numbers with their derivatives.

/// `f(x)`, and `f'(x)` from `x` and `f(x)`.
pub(super) type Unary = (fn(f64) -> f64, fn(f64, f64) -> f64);

/// A function of a floating number that may change with it.
pub(super) fn unary(operator: &str) -> Option<Unary> {
    Some(match operator {
        "Neg" => (|x| -x, |_, _| -1.0),
        "Abs" => (f64::abs, |x, _| sign(x)),
        "Relu" => (
            |x| if x < 0.0 { 0.0 } else { x },
            |x, _| f64::from(u8::from(x > 0.0)),
        ),
        "Sqrt" => (f64::sqrt, |_, y| 0.5 / y),
        "Reciprocal" => (f64::recip, |_, y| -y * y),
        "Exp" => (f64::exp, |_, y| y),
        "Log" => (f64::ln, |x, _| 1.0 / x),
        "Sin" => (f64::sin, |x, _| x.cos()),
        "Cos" => (f64::cos, |x, _| -x.sin()),
        "Tanh" => (f64::tanh, |_, y| 1.0 - y * y),
        "Sigmoid" => (|x| 1.0 / (1.0 + (-x).exp()), |_, y| y * (1.0 - y)),
        _ => return None,
    })
}

/// A function of a floating number with steps, which does not change between them.
pub(super) fn step(operator: &str) -> Option<fn(f64) -> f64> {
    Some(match operator {
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        "Sign" => sign,
        _ => return None,
    })
}

/// −1, 0 or 1; NaN stays.
pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

/// `f(a, b)`, and its derivatives.
pub(super) type Binary = (fn(f64, f64) -> f64, fn(f64, f64) -> [f64; 2]);

/// A function of two floating numbers.
pub(super) fn binary(operator: &str) -> Option<Binary> {
    Some(match operator {
        "Add" | "Sum" | "Mean" => (|a, b| a + b, |_, _| [1.0, 1.0]),
        "Sub" => (|a, b| a - b, |_, _| [1.0, -1.0]),
        "Mul" => (|a, b| a * b, |a, b| [b, a]),
        "Div" => (|a, b| a / b, |a, b| [1.0 / b, -a / (b * b)]),
        "Pow" => (f64::powf, |a, b| [base_rate(a, b), power_rate(a, b)]),
        "Mod" => (|a, b| a % b, |a, b| [1.0, -(a / b).trunc()]),
        "Max" => (
            |a, b| if a >= b || a.is_nan() { a } else { b },
            |a, b| first(a >= b),
        ),
        "Min" => (
            |a, b| if a <= b || a.is_nan() { a } else { b },
            |a, b| first(a <= b),
        ),
        _ => return None,
    })
}

/// The derivative of `a^b` with respect to `a`; `a^0` is 1 for every `a`.
fn base_rate(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return 0.0;
    }
    b * a.powf(b - 1.0)
}

/// The derivative of `a^b` with respect to `b`.
fn power_rate(a: f64, b: f64) -> f64 {
    if a == 0.0 && b > 0.0 {
        return 0.0;
    }
    a.powf(b) * a.ln()
}

fn first(wins: bool) -> [f64; 2] {
    if wins { [1.0, 0.0] } else { [0.0, 1.0] }
}

/// A comparison of numbers, floating or whole.
pub(super) fn comparison<V: PartialOrd>(operator: &str) -> Option<fn(&V, &V) -> bool> {
    Some(match operator {
        "Equal" => V::eq,
        "Less" => V::lt,
        "LessOrEqual" => V::le,
        "Greater" => V::gt,
        "GreaterOrEqual" => V::ge,
        _ => return None,
    })
}

/// A function of two truth values.
pub(super) fn logic(operator: &str) -> Option<fn(bool, bool) -> bool> {
    Some(match operator {
        "And" => |a, b| a && b,
        "Or" => |a, b| a || b,
        "Xor" => |a, b| a != b,
        "Equal" => |a, b| a == b,
        _ => return None,
    })
}

/// A function of two whole numbers before it is wrapped to their type, or what is wrong with them.
pub(super) type Whole = fn(i128, i128) -> Result<i128, &'static str>;

/// A function of two whole numbers. A remainder has the divisor's sign if it is `floored`, else the
/// dividend's.
pub(super) fn whole(operator: &str, floored: bool) -> Option<Whole> {
    const BY_ZERO: &str = "it divides a whole number by 0";
    Some(match operator {
        "Add" | "Sum" => |a, b| Ok(a + b),
        "Sub" => |a, b| Ok(a - b),
        "Mul" => |a, b| Ok(a.wrapping_mul(b)),
        "Div" => |a, b| a.checked_div(b).ok_or(BY_ZERO),
        "Mod" if floored => |a, b| match a.checked_rem(b).ok_or(BY_ZERO)? {
            0 => Ok(0),
            rest if (rest < 0) != (b < 0) => Ok(rest + b),
            rest => Ok(rest),
        },
        "Mod" => |a, b| a.checked_rem(b).ok_or(BY_ZERO),
        "Max" => |a, b| Ok(a.max(b)),
        "Min" => |a, b| Ok(a.min(b)),
        "Pow" => |a, b| {
            let exponent = u32::try_from(b).map_err(|_| "its exponent is negative or too large")?;
            a.checked_pow(exponent).ok_or("its power is too large")
        },
        _ => return None,
    })
}
