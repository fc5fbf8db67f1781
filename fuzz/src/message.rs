//! ONNX files taken apart into their messages, so that graphs can be changed and not only their
//! bytes.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// A kind of message, by the numbers of its fields that are messages.
struct Kind(&'static [(u64, &'static Kind)]);

static MODEL: Kind = Kind(&[(7, &GRAPH), (8, &LEAF)]);
static GRAPH: Kind = Kind(&[(1, &NODE), (5, &TENSOR), (11, &VALUE), (12, &VALUE)]);
static NODE: Kind = Kind(&[(5, &ATTRIBUTE)]);
static ATTRIBUTE: Kind = Kind(&[(5, &TENSOR)]);
static TENSOR: Kind = Kind(&[(13, &LEAF)]);
static VALUE: Kind = Kind(&[(2, &TYPE)]);
static TYPE: Kind = Kind(&[(1, &TENSOR_TYPE)]);
static TENSOR_TYPE: Kind = Kind(&[(2, &SHAPE)]);
static SHAPE: Kind = Kind(&[(1, &LEAF)]);
static LEAF: Kind = Kind(&[]);

/// What a field holds.
#[derive(Clone)]
enum Content {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Clone)]
struct Field {
    number: u64,
    content: Content,
}

/// Operators, those that are read and some that are not.
const OPERATORS: [&str; 64] = [
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Div",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Sigmoid",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
    "HardSigmoid",
    "Range",
    "Tile",
    "Mod",
    "Floor",
    "Where",
    "Equal",
    "CastLike",
    "Mean",
    "Upsample",
    "ThresholdedRelu",
    "DepthToSpace",
    "Sign",
    "Loop",
];

const INTEGERS: [i64; 20] = [
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    7,
    8,
    -2,
    -3,
    16,
    100,
    65_536,
    1 << 26,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MIN,
    -(1 << 31),
];

/// A changed copy of a model; other bytes come back as they are.
pub(crate) fn mutated(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let Some(mut model) = parse(&MODEL, bytes) else {
        return bytes.to_vec();
    };
    change(&mut model, random);
    let mut written = Vec::with_capacity(bytes.len());
    write(&model, &mut written);
    written
}

/// Goes to a random message and changes it.
fn change(fields: &mut Vec<Field>, random: &mut ChaCha8Rng) {
    let inner: Vec<usize> = (0..fields.len())
        .filter(|&i| matches!(&fields[i].content, Content::Message(inner) if !inner.is_empty()))
        .collect();
    // The deeper, the more there is to change.
    if random.random_range(0..8) > 0
        && let Some(&i) = inner.choose(random)
        && let Content::Message(inner) = &mut fields[i].content
    {
        return change(inner, random);
    }
    if fields.is_empty() {
        return;
    }
    let (i, j) = (
        random.random_range(0..fields.len()),
        random.random_range(0..fields.len()),
    );
    match random.random_range(0..9) {
        0 => drop(fields.remove(i)),
        1 => fields.insert(j, fields[i].clone()),
        2 => fields.swap(i, j),
        // A name, a number or a whole message from a neighbour.
        3 | 4 => fields[i].content = fields[j].content.clone(),
        _ => fields[i].content = changed(&fields[i].content, random),
    }
}

fn changed(content: &Content, random: &mut ChaCha8Rng) -> Content {
    match content {
        Content::Number(_) => Content::Number(integer(random) as u64),
        Content::Fixed(bytes) => {
            let values = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30, 1e-30, 0.5];
            let value = values.choose(random).unwrap_or(&0.0).to_le_bytes();
            Content::Fixed(value.iter().copied().cycle().take(bytes.len()).collect())
        }
        Content::Message(_) => Content::Message(Vec::new()),
        Content::Bytes(bytes) => Content::Bytes(changed_bytes(bytes, random)),
    }
}

/// Other names, operators, packed numbers or raw entries.
fn changed_bytes(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut new = bytes.to_vec();
    match random.random_range(0..6) {
        0 => OPERATORS.choose(random).unwrap_or(&"").as_bytes().to_vec(),
        1 => {
            let count = random.random_range(0..6);
            let mut packed = Vec::new();
            for _ in 0..count {
                put_number(integer(random) as u64, &mut packed);
            }
            packed
        }
        2 => {
            let count = random.random_range(0..4);
            (0..count)
                .flat_map(|_| integer(random).to_le_bytes())
                .collect()
        }
        3 if !new.is_empty() => {
            new.truncate(random.random_range(0..new.len()));
            new
        }
        4 if !new.is_empty() => {
            let at = random.random_range(0..new.len());
            new[at] = random.random();
            new
        }
        _ => [bytes, bytes].concat(),
    }
}

fn integer(random: &mut ChaCha8Rng) -> i64 {
    match random.random_range(0..3) {
        0 => random.random_range(-4..12),
        _ => *INTEGERS.choose(random).unwrap_or(&0),
    }
}

/// The fields of a message, or `None` if the bytes are none.
fn parse(kind: &Kind, mut rest: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = take_number(&mut rest)?;
        let number = key >> 3;
        let content = match key & 7 {
            0 => Content::Number(take_number(&mut rest)?),
            1 => Content::Fixed(take(&mut rest, 8)?.to_vec()),
            5 => Content::Fixed(take(&mut rest, 4)?.to_vec()),
            2 => {
                let length = usize::try_from(take_number(&mut rest)?).ok()?;
                let part = take(&mut rest, length)?;
                let inner = kind.0.iter().find(|(field, _)| *field == number);
                let parsed = inner.and_then(|(_, kind)| parse(kind, part));
                parsed.map_or_else(|| Content::Bytes(part.to_vec()), Content::Message)
            }
            _ => return None,
        };
        fields.push(Field { number, content });
    }
    Some(fields)
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, content } in fields {
        let mut key = |wire: u64| put_number(number << 3 | wire, out);
        match content {
            Content::Number(value) => {
                key(0);
                put_number(*value, out);
            }
            Content::Fixed(bytes) => {
                key(if bytes.len() == 8 { 1 } else { 5 });
                out.extend(bytes);
            }
            Content::Bytes(bytes) => {
                key(2);
                put_number(bytes.len() as u64, out);
                out.extend(bytes);
            }
            Content::Message(inner) => {
                key(2);
                let mut bytes = Vec::new();
                write(inner, &mut bytes);
                put_number(bytes.len() as u64, out);
                out.extend(bytes);
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_taken_apart_and_put_together() {
        for seed in crate::seeds(crate::Format::Onnx) {
            let Some(fields) = parse(&MODEL, &seed.bytes) else {
                panic!("{}", seed.name)
            };
            let mut written = Vec::new();
            write(&fields, &mut written);
            assert_eq!(written, seed.bytes, "{}", seed.name);
        }
    }
}
