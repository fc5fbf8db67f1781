//! `relugrad inspect`.

use clap::Args;
use ndarray::{ArrayD, Axis};
use relugrad::{Gate, Network, Node, Operation};
use relugrad_io::printable;
use serde_json::json;

use crate::failure::Failure;
use crate::model::ModelFile;
use crate::print::{self, abridged};
use crate::table::table;

/// Show the layers of a model, their shapes, parameters, gates and multiply-adds
///
/// Warnings tell of units that are dead for every input (all their weights are 0 and their bias is
/// not positive, before a ReLU), of units whose value no later layer uses, and of arrays with exact
/// zeros.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad inspect model.onnx
  relugrad inspect result/models/none-seed0.safetensors --json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelFile,

    /// Print one line of JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.load()?;
    let network = model.network();
    let warnings = warnings(network);
    if arguments.json {
        let layers: Vec<_> = network
            .nodes()
            .iter()
            .map(|node| layer(network, node))
            .collect();
        let json = json!({
            "model": arguments.model.path().display().to_string(),
            "inputs": network.inputs(), "input_shape": network.input_shape(), "outputs": network.outputs(),
            "parameters": network.parameters().len(), "gates": network.gates(),
            "multiply_adds": multiply_adds(network), "layers": layers,
            "notes": model.notes(), "warnings": warnings,
        });
        print::line(json);
        return Ok(());
    }
    print::line(self::layers(network));
    print::line(format_args!(
        "{} inputs, {} logits, {} parameters, {} gates, {} multiply-adds",
        network.inputs(),
        network.outputs(),
        network.parameters().len(),
        network.gates(),
        multiply_adds(network)
    ));
    for note in model.notes() {
        print::line(format_args!("note: {note}"));
    }
    for warning in warnings {
        print::line(format_args!("warning: {}", printable(&warning)));
    }
    Ok(())
}

fn multiply_adds(network: &Network<f64>) -> usize {
    network.nodes().iter().map(Node::multiply_adds).sum()
}

fn parameters(network: &Network<f64>, node: &Node) -> usize {
    network
        .parameters_of(node)
        .map(|info| info.range().len())
        .sum()
}

fn gates(node: &Node) -> usize {
    if node.operation().selects() {
        node.width()
    } else {
        0
    }
}

/// The first names of a list, and how many more there are: a table gives all its rows the width of
/// the widest.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = &names[..names.len().min(SHOWN)];
    let mut shown: Vec<String> = shown.iter().map(|name| abridged(name)).collect();
    if names.len() > SHOWN {
        shown.push(format!("… ({} more)", names.len() - SHOWN));
    }
    shown.join(", ")
}

fn inputs<'n>(network: &'n Network<f64>, node: &Node) -> Vec<&'n str> {
    node.inputs()
        .map(|input| network.nodes()[input.index()].name())
        .collect()
}

fn layer(network: &Network<f64>, node: &Node) -> serde_json::Value {
    json!({
        "name": node.name(), "operation": node.operation().name(), "inputs": inputs(network, node),
        "shape": node.shape(), "parameters": parameters(network, node), "gates": gates(node),
        "multiply_adds": node.multiply_adds(),
    })
}

fn layers(network: &Network<f64>) -> String {
    let headings = [
        "name",
        "operation",
        "reads",
        "shape",
        "parameters",
        "gates",
        "multiply-adds",
    ];
    let number = |n: usize| match n {
        0 => "–".to_owned(),
        n => n.to_string(),
    };
    let row = |node: &Node| {
        let shape: Vec<String> = node.shape().iter().map(usize::to_string).collect();
        [
            printable(&abridged(node.name())).into_owned(),
            node.operation().name().to_owned(),
            printable(&listed(&inputs(network, node))).into_owned(),
            shape.join("×"),
            number(parameters(network, node)),
            number(gates(node)),
            number(node.multiply_adds()),
        ]
    };
    table(headings, network.nodes().iter().map(row), 2, |column| {
        column >= 4
    })
}

/// What is odd about the weights.
fn warnings(network: &Network<f64>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, node) in network.nodes().iter().enumerate() {
        if !matches!(
            node.operation(),
            Operation::Dense { .. } | Operation::Conv2d { .. }
        ) {
            continue;
        }
        let arrays: Vec<ArrayD<f64>> = network
            .parameters_of(node)
            .map(|info| {
                let values = network.parameters().values()[info.range()].to_vec();
                ArrayD::from_shape_vec(info.shape(), values).expect("the layout fits")
            })
            .collect();
        let relu = network.nodes().iter().any(|reader| {
            reader.gate() == Some(Gate::Relu) && reader.inputs().any(|input| input.index() == i)
        });
        let empty = |output: usize| {
            let zero = arrays[0]
                .index_axis(Axis(0), output)
                .iter()
                .all(|&w| w == 0.0);
            zero && arrays.get(1).is_none_or(|bias| bias[output] <= 0.0)
        };
        let dead = (0..arrays[0].shape()[0])
            .filter(|&output| relu && empty(output))
            .count();
        if dead > 0 {
            warnings.push(format!(
                "{dead} units of `{}` are dead: no weight, no positive bias",
                node.name()
            ));
        }
        let unused = (0..arrays[0].shape()[1])
            .filter(|&input| {
                arrays[0]
                    .index_axis(Axis(1), input)
                    .iter()
                    .all(|&w| w == 0.0)
            })
            .count();
        if unused > 0 {
            warnings.push(format!(
                "{unused} inputs of `{}` are not used: all their weights are 0",
                node.name()
            ));
        }
        let zeros = arrays[0].iter().filter(|&&w| w == 0.0).count();
        if zeros > 0 {
            warnings.push(format!(
                "{zeros} of {} weights of `{}` are exactly 0",
                arrays[0].len(),
                node.name()
            ));
        }
    }
    warnings
}
