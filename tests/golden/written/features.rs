//! What a network has of all that a builder accepts.

use std::collections::BTreeSet;

use relugrad::{Gate, Network, Node, Operation, Window};

/// Every operation with every kind of attribute.
pub(crate) const FEATURES: &[&str] = &[
    "abs plain",
    "abs rank 0",
    "abs rank 1",
    "abs rank 2",
    "abs rank 3",
    "abs rank 4",
    "add of 1",
    "add of 2",
    "add of 3",
    "add repeated false",
    "add repeated true",
    "average-pool count false ceil false dilated false",
    "average-pool count false ceil false dilated true",
    "average-pool count false ceil true dilated false",
    "average-pool count false ceil true dilated true",
    "average-pool count true ceil false dilated false",
    "average-pool count true ceil false dilated true",
    "average-pool count true ceil true dilated false",
    "average-pool count true ceil true dilated true",
    "average-pool dilations",
    "average-pool oblong kernel",
    "average-pool padded false",
    "average-pool padded true",
    "average-pool skew padding",
    "average-pool strides",
    "average-pool unequal dilations",
    "average-pool unequal strides",
    "batch-norm first",
    "batch-norm inner",
    "batch-norm last",
    "batch-norm rank 1",
    "batch-norm rank 2",
    "batch-norm rank 3",
    "batch-norm rank 4",
    "clip beyond f32 false false",
    "clip beyond f32 false true",
    "clip beyond f32 true false",
    "clip rank 0",
    "clip rank 1",
    "clip rank 2",
    "clip rank 3",
    "clip rank 4",
    "concat first",
    "concat inner",
    "concat last",
    "concat of 1",
    "concat of 2",
    "concat of 3",
    "concat repeated false",
    "concat repeated true",
    "conv2d a group for each channel",
    "conv2d bias false",
    "conv2d bias true",
    "conv2d dilations",
    "conv2d groups",
    "conv2d oblong kernel",
    "conv2d one group",
    "conv2d padded false",
    "conv2d padded true",
    "conv2d skew padding",
    "conv2d strides",
    "conv2d unequal dilations",
    "conv2d unequal strides",
    "dense bias false",
    "dense bias true",
    "dense rank 1",
    "dense rank 2",
    "dense rank 3",
    "dense rank 4",
    "gather filled false",
    "gather filled true",
    "gather to rank 0",
    "gather to rank 1",
    "gather to rank 2",
    "gather to rank 3",
    "gather to rank 4",
    "input rank 0",
    "input rank 1",
    "input rank 2",
    "input rank 3",
    "leaky-relu rank 0",
    "leaky-relu rank 1",
    "leaky-relu rank 2",
    "leaky-relu rank 3",
    "leaky-relu rank 4",
    "leaky-relu slope in f32 false",
    "leaky-relu slope in f32 true",
    "max first",
    "max inner",
    "max last",
    "max to rank 0",
    "max to rank 1",
    "max to rank 2",
    "max to rank 3",
    "max-pool ceil false dilated false",
    "max-pool ceil false dilated true",
    "max-pool ceil true dilated false",
    "max-pool ceil true dilated true",
    "max-pool dilations",
    "max-pool oblong kernel",
    "max-pool padded false",
    "max-pool padded true",
    "max-pool skew padding",
    "max-pool strides",
    "max-pool unequal dilations",
    "max-pool unequal strides",
    "mean over all",
    "mean over none",
    "mean over one",
    "mean over several",
    "names of all kinds",
    "output rank 0",
    "output rank 1",
    "output rank 2",
    "output rank 3",
    "output rank 4",
    "prelu plain",
    "prelu rank 0",
    "prelu rank 1",
    "prelu rank 2",
    "prelu rank 3",
    "prelu rank 4",
    "relu plain",
    "relu rank 0",
    "relu rank 1",
    "relu rank 2",
    "relu rank 3",
    "relu rank 4",
    "reshape from rank 0",
    "reshape from rank 1",
    "reshape from rank 2",
    "reshape from rank 3",
    "reshape from rank 4",
    "reshape to rank 1",
    "reshape to rank 3",
    "scale full",
    "scale learned",
    "scale ones",
    "scale partly ones",
    "scale scalar",
    "scale without leading axes",
    "shift full",
    "shift learned",
    "shift ones",
    "shift partly ones",
    "shift scalar",
    "shift without leading axes",
    "transpose rank 0 moved false",
    "transpose rank 1 moved false",
    "transpose rank 2 moved false",
    "transpose rank 2 moved true",
    "transpose rank 3 moved false",
    "transpose rank 3 moved true",
    "transpose rank 4 moved false",
    "transpose rank 4 moved true",
];

/// What there is of [`FEATURES`] in a network.
pub(crate) fn features(network: &Network<f64>) -> BTreeSet<String> {
    let nodes = network.nodes();
    let mut found = BTreeSet::new();
    for node in nodes {
        let read: Vec<&Node> = node.inputs().map(|i| &nodes[i.index()]).collect();
        let operation = node.operation().name();
        found.extend(
            of(node, &read)
                .into_iter()
                .map(|what| format!("{operation} {what}")),
        );
    }
    let last = nodes.last().expect("a network has its input");
    found.insert(format!("output rank {}", last.shape().len()));
    let named = |node: &Node| !node.name().starts_with(node.operation().name());
    if nodes.iter().any(named) {
        found.insert("names of all kinds".to_owned());
    }
    found
}

/// What there is of the attributes of a node.
fn of(node: &Node, read: &[&Node]) -> Vec<String> {
    let rank = node.shape().len();
    let before = read.first().map_or(&[][..], |node| node.shape());
    let tensor = || match node.constants().first() {
        Some(constant) => extent(constant.shape(), node.shape()),
        None => "learned".to_owned(),
    };
    let place = |axis: usize| match (axis, axis + 1 == before.len()) {
        (0, _) => "first",
        (_, true) => "last",
        _ => "inner",
    };
    match node.operation() {
        Operation::Input => vec![format!("rank {rank}")],
        Operation::Dense { bias } => vec![format!("rank {rank}"), format!("bias {bias}")],
        Operation::Conv2d {
            window,
            groups,
            bias,
        } => {
            let groups = match *groups {
                1 => "one group",
                n if n == before[0] => "a group for each channel",
                _ => "groups",
            };
            let mut all = of_window(window);
            all.extend([groups.to_owned(), format!("bias {bias}")]);
            all
        }
        Operation::AveragePool {
            window,
            count_padding,
        } => {
            let mut all = of_window(window);
            let [ceil, dilated] = [window.ceil, window.dilation != [1, 1]];
            all.push(format!(
                "count {count_padding} ceil {ceil} dilated {dilated}"
            ));
            all
        }
        Operation::MaxPool { window } => {
            let mut all = of_window(window);
            let [ceil, dilated] = [window.ceil, window.dilation != [1, 1]];
            all.push(format!("ceil {ceil} dilated {dilated}"));
            all
        }
        Operation::Mean { axes } => vec![
            match (axes.len(), before.len()) {
                (0, _) => "over none",
                (n, all) if n == all => "over all",
                (1, _) => "over one",
                _ => "over several",
            }
            .to_owned(),
        ],
        Operation::Max { axis } => vec![place(*axis).to_owned(), format!("to rank {rank}")],
        Operation::BatchNorm { axis, .. } => vec![place(*axis).to_owned(), format!("rank {rank}")],
        Operation::Scale { .. } | Operation::Shift { .. } => vec![tensor()],
        Operation::Add => vec![format!("of {}", read.len().min(3)), twice(read)],
        Operation::Concat { axis } => vec![
            format!("of {}", read.len().min(3)),
            twice(read),
            place(*axis).to_owned(),
        ],
        Operation::Reshape => vec![
            format!("from rank {}", before.len()),
            format!("to rank {rank}"),
        ],
        Operation::Transpose { axes } => vec![format!("rank {rank} moved {}", !axes.is_sorted())],
        Operation::Gather { .. } => {
            let filled = node.constants()[0].values().contains(&-1.0);
            vec![format!("filled {filled}"), format!("to rank {rank}")]
        }
        Operation::Gate(gate) => vec![of_gate(*gate), format!("rank {rank}")],
    }
}

/// How often a node is read.
fn twice(read: &[&Node]) -> String {
    let names: BTreeSet<&str> = read.iter().map(|node| node.name()).collect();
    format!("repeated {}", names.len() < read.len())
}

/// How much of a shape an array has before it is broadcast.
fn extent(array: &[usize], shape: &[usize]) -> String {
    match (array, array.iter().all(|&n| n == 1)) {
        ([], _) => "scalar",
        (array, _) if array == shape => "full",
        (_, true) => "ones",
        (array, _) if array.len() == shape.len() => "partly ones",
        _ => "without leading axes",
    }
    .to_owned()
}

fn of_window(window: &Window) -> Vec<String> {
    let Window {
        kernel,
        stride,
        dilation,
        padding,
        ceil: _,
    } = *window;
    let mut all = vec![format!("padded {}", padding != [[0, 0], [0, 0]])];
    let square = |pair: [usize; 2]| pair[0] == pair[1];
    let skew = padding.iter().any(|&pads| !square(pads));
    for (what, is) in [
        ("oblong kernel", !square(kernel)),
        ("strides", stride != [1, 1]),
        ("unequal strides", !square(stride)),
        ("dilations", dilation != [1, 1]),
        ("unequal dilations", !square(dilation)),
        ("skew padding", skew),
    ] {
        if is {
            all.push(what.to_owned());
        }
    }
    all
}

fn of_gate(gate: Gate) -> String {
    let beyond = |bound: f64| bound.abs() > f64::from(f32::MAX);
    match gate {
        Gate::Relu | Gate::Abs | Gate::PRelu { .. } => "plain".to_owned(),
        Gate::LeakyRelu { slope } => {
            format!("slope in f32 {}", f64::from(slope as f32) == slope)
        }
        Gate::Clip { min, max } => format!("beyond f32 {} {}", beyond(min), beyond(max)),
    }
}
