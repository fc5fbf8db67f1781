//! `relugrad convert`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use relugrad::{Network, Node, Scalar};
use relugrad_io::{
    Format, Metadata, Model, onnx_runs_in_double, onnx_to_bytes, printable, to_bytes, write_whole,
};

use crate::failure::{Failure, check_output};
use crate::model::ModelFile;
use crate::print;
use crate::values::Precision;

/// Write a model in another format
///
/// The endings of the names tell the formats: .safetensors (relugrad's own), .onnx, and, to be read
/// only, .nnet. What is left out or changed on the way is printed.
///
/// ONNX operators that are read, all others and whatever is not piecewise linear being refused by
/// name: Abs, Add, AveragePool, BatchNormalization, Cast, CastLike, Clip, Concat, Constant,
/// ConstantOfShape, Conv, ConvTranspose, DepthToSpace, Div, Dropout, Expand, Flatten, Gather,
/// GatherElements, Gemm, GlobalAveragePool, GlobalMaxPool, HardSigmoid, Identity, LeakyRelu,
/// MatMul, Max, MaxPool, Mean, Min, Mul, Neg, PRelu, Pad, ReduceL1, ReduceMax, ReduceMean,
/// ReduceMin, ReduceSum, Relu, Reshape, Resize, Shape, Size, Slice, SpaceToDepth, Split, Squeeze,
/// Sub, Sum, Tile, Transpose, Unsqueeze, Upsample, Where (with a constant condition), and a final
/// Softmax or LogSoftmax over all logits, or Sigmoid, which is dropped.
///
/// Of constants alone, in whole and floating numbers of 8 to 64 bits and truth values, also: And,
/// ArgMax, ArgMin, Ceil, Cos, CumSum, DequantizeLinear, Equal, Exp, EyeLike, Floor, GatherND,
/// Greater, GreaterOrEqual, IsInf, IsNaN, Less, LessOrEqual, Log, Mod, NonZero, Not, OneHot, Or,
/// Pow, Range, Reciprocal, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceProd, ReduceSumSquare,
/// Round, ScatterND, Sigmoid, Sign, Sin, Sqrt, Tanh, Trilu, Xor.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad convert model.onnx model.safetensors
  relugrad convert model.safetensors model.onnx --dtype f32
  relugrad convert resnet.onnx plain.onnx --fold-batch-norm --max-pool-to-relu
  relugrad convert state.safetensors model.onnx --model lenet --input-shape 1,28,28")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelFile,

    /// The file to write
    #[arg(value_name = "OUTPUT")]
    to: PathBuf,

    /// Fold batch normalisation into the dense or convolution layer before or after it
    #[arg(long)]
    fold_batch_norm: bool,

    /// Write every maximum as ReLUs, max(a, b) = a + relu(b − a), for verifiers that know no other
    /// gate
    #[arg(long)]
    max_pool_to_relu: bool,

    /// Precision of the weights that are written [default: the source's; f32 in ONNX files with
    /// convolutions or averages, of which runtimes have none in f64]
    #[arg(long, value_name = "NAME")]
    dtype: Option<Precision>,

    /// Replace the output if it exists
    #[arg(long)]
    overwrite: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let format = Format::of(&arguments.to).map_err(|error| Failure::Usage(error.into()))?;
    if format == Format::NNet {
        return Err(Failure::Usage(anyhow!(
            "NNet files are read but not written; choose .onnx or .safetensors"
        )));
    }
    let inputs: Vec<&Path> = arguments.model.files().collect();
    check_output(&arguments.to, arguments.overwrite, &inputs).map_err(Failure::Usage)?;
    let model = arguments.model.load()?;
    for note in model.notes() {
        print::line(format_args!("note: {note}"));
    }
    let mut network = model.network().clone();
    if arguments.fold_batch_norm {
        let (folded, left) = network.fold_batch_norm().map_err(anyhow::Error::from)?;
        for name in left {
            print::line(format_args!(
                "note: the batch normalisation `{}` stays; it has no neighbour that can take it in exactly",
                printable(&name)
            ));
        }
        network = folded;
    }
    if arguments.max_pool_to_relu {
        network = network.max_to_relu().map_err(anyhow::Error::from)?;
    }
    let metadata = model.metadata();
    let bytes = match arguments
        .dtype
        .unwrap_or_else(|| usual(&model, &network, format))
    {
        Precision::F64 => encode(&network, format, metadata),
        Precision::F32 => encode(&rounded(&network, format)?, format, metadata),
    }?;
    write_whole(&arguments.to, &bytes, arguments.overwrite).map_err(anyhow::Error::from)?;
    let (path, size) = (arguments.to.display(), bytes.len());
    print::line(format_args!("{path}: {size} bytes"));
    Ok(())
}

/// The precision of the source, unless runtimes cannot compute with it.
fn usual(model: &Model, network: &Network<f64>, format: Format) -> Precision {
    if model.is_single() {
        return Precision::F32;
    }
    if format != Format::Onnx || onnx_runs_in_double(network) {
        return Precision::F64;
    }
    print::line(format_args!(
        "note: it is written in f32, since onnxruntime has no convolution or average of f64; --dtype f64 keeps it"
    ));
    Precision::F32
}

/// The network in single precision; what that changes is printed.
fn rounded(network: &Network<f64>, format: Format) -> anyhow::Result<Network<f32>> {
    let values = network.parameters().values().to_vec();
    for (info, place) in network.parameters().layout().iter().map(|i| (i, i.range())) {
        if let Some(value) = values[place].iter().find(|v| !(**v as f32).is_finite()) {
            return Err(anyhow!(
                "`{}` has an entry {value:e}, too large for f32; choose --dtype f64",
                info.name()
            ));
        }
    }
    let narrow = network.cast::<f32>()?;
    // Numbers that are not learned stay in double precision in relugrad's own format.
    let fixed = match format {
        Format::Onnx => network.nodes().iter().flat_map(fixed_numbers).collect(),
        Format::Safetensors | Format::NNet => Vec::new(),
    };
    let all = || values.iter().chain(&fixed).copied();
    let lost = all().filter(|&v| f64::from(v as f32) != v).count();
    let vanished = all().filter(|&v| v != 0.0 && v as f32 == 0.0).count();
    if lost > 0 {
        print::line(format_args!(
            "note: {lost} numbers were rounded to f32, {vanished} of them to 0"
        ));
    }
    Ok(narrow)
}

/// The numbers of a node that training leaves alone.
fn fixed_numbers(node: &Node) -> Vec<f64> {
    // The constant of a gather is a table of places.
    let arrays = node.constants().iter().filter(|c| c.name() != "index");
    let mut numbers: Vec<f64> = arrays.flat_map(|c| c.values().to_vec()).collect();
    numbers.extend(node.operation().numbers());
    numbers
}

fn encode<T: Scalar>(
    network: &Network<T>,
    format: Format,
    metadata: &Metadata,
) -> anyhow::Result<Vec<u8>> {
    let bytes = match format {
        Format::Onnx => onnx_to_bytes(network),
        Format::Safetensors | Format::NNet => to_bytes(network, metadata),
    };
    bytes.context("the model cannot be written")
}
