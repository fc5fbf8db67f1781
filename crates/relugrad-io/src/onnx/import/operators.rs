//! The operators: which attributes each has in which versions of ONNX, since one that it lacks
//! would be passed over in silence, and what reads it.

use std::collections::HashSet;

use relugrad::Gate;

use crate::error::{Error, Result};
use crate::onnx::attributes::Call;
use crate::onnx::graph_error;
use crate::onnx::import::Importer;
use crate::onnx::values::Value;

/// The newest version of ONNX's operators whose attributes are known here.
const NEWEST: i64 = 28;

/// An attribute with the first and last version of its operator that has it.
struct Attribute {
    name: &'static str,
    first: i64,
    last: i64,
}

const fn always(name: &'static str) -> Attribute {
    from(0, name)
}

const fn from(first: i64, name: &'static str) -> Attribute {
    let last = NEWEST;
    Attribute { name, first, last }
}

const fn until(last: i64, name: &'static str) -> Attribute {
    between(0, last, name)
}

const fn between(first: i64, last: i64, name: &'static str) -> Attribute {
    Attribute { name, first, last }
}

/// Operators with their attributes.
#[rustfmt::skip]
const OPERATORS: &[(&str, &[Attribute])] = &[
    ("Abs", &[]),
    ("Add", &[until(6, "axis"), until(6, "broadcast")]),
    ("And", &[until(6, "axis"), until(6, "broadcast")]),
    ("ArgMax", &[always("axis"), always("keepdims"), from(12, "select_last_index")]),
    ("ArgMin", &[always("axis"), always("keepdims"), from(12, "select_last_index")]),
    ("AveragePool", &[always("auto_pad"), from(10, "ceil_mode"), always("count_include_pad"), from(19, "dilations"), always("kernel_shape"), always("pads"), always("strides")]),
    ("BatchNormalization", &[always("epsilon"), until(6, "is_test"), always("momentum"), until(8, "spatial"), from(14, "training_mode")]),
    ("Cast", &[from(24, "round_mode"), from(19, "saturate"), always("to")]),
    ("CastLike", &[from(24, "round_mode"), from(19, "saturate")]),
    ("Ceil", &[]),
    ("Celu", &[always("alpha")]),
    ("Clip", &[until(10, "max"), until(10, "min")]),
    ("Concat", &[always("axis")]),
    ("Constant", &[from(11, "sparse_value"), always("value"), from(12, "value_float"), from(12, "value_floats"), from(12, "value_int"), from(12, "value_ints"), from(12, "value_string"), from(12, "value_strings")]),
    ("ConstantOfShape", &[always("value")]),
    ("Conv", &[always("auto_pad"), always("dilations"), always("group"), always("kernel_shape"), always("pads"), always("strides")]),
    ("ConvTranspose", &[always("auto_pad"), always("dilations"), always("group"), always("kernel_shape"), always("output_padding"), always("output_shape"), always("pads"), always("strides")]),
    ("Cos", &[]),
    ("CumSum", &[always("exclusive"), always("reverse")]),
    ("DepthToSpace", &[always("blocksize"), from(11, "mode")]),
    ("DequantizeLinear", &[from(13, "axis"), from(21, "block_size"), from(23, "output_dtype")]),
    ("Div", &[until(6, "axis"), until(6, "broadcast")]),
    ("Dropout", &[until(6, "is_test"), until(11, "ratio"), from(12, "seed")]),
    ("Elu", &[always("alpha")]),
    ("Equal", &[until(6, "axis"), until(6, "broadcast")]),
    ("Erf", &[]),
    ("Exp", &[]),
    ("Expand", &[]),
    ("EyeLike", &[always("dtype"), always("k")]),
    ("Flatten", &[always("axis")]),
    ("Floor", &[]),
    ("Gather", &[always("axis")]),
    ("GatherElements", &[always("axis")]),
    ("GatherND", &[from(12, "batch_dims")]),
    ("Gelu", &[always("approximate")]),
    ("Gemm", &[always("alpha"), always("beta"), until(6, "broadcast"), always("transA"), always("transB")]),
    ("GlobalAveragePool", &[]),
    ("GlobalMaxPool", &[]),
    ("Greater", &[until(6, "axis"), until(6, "broadcast")]),
    ("GreaterOrEqual", &[]),
    ("GroupNormalization", &[always("epsilon"), always("num_groups"), from(21, "stash_type")]),
    ("HardSigmoid", &[always("alpha"), always("beta")]),
    ("HardSwish", &[]),
    ("Identity", &[]),
    ("InstanceNormalization", &[always("epsilon")]),
    ("IsInf", &[always("detect_negative"), always("detect_positive")]),
    ("IsNaN", &[]),
    ("LRN", &[always("alpha"), always("beta"), always("bias"), always("size")]),
    ("LayerNormalization", &[always("axis"), always("epsilon"), always("stash_type")]),
    ("LeakyRelu", &[always("alpha")]),
    ("Less", &[until(6, "axis"), until(6, "broadcast")]),
    ("LessOrEqual", &[]),
    ("Log", &[]),
    ("LogSoftmax", &[always("axis")]),
    ("LpNormalization", &[always("axis"), always("p")]),
    ("MatMul", &[]),
    ("Max", &[]),
    ("MaxPool", &[always("auto_pad"), from(10, "ceil_mode"), from(10, "dilations"), always("kernel_shape"), always("pads"), from(8, "storage_order"), always("strides")]),
    ("Mean", &[]),
    ("Min", &[]),
    ("Mish", &[]),
    ("Mod", &[always("fmod")]),
    ("Mul", &[until(6, "axis"), until(6, "broadcast")]),
    ("Neg", &[]),
    ("NonZero", &[]),
    ("Not", &[]),
    ("OneHot", &[always("axis")]),
    ("Or", &[until(6, "axis"), until(6, "broadcast")]),
    ("PRelu", &[]),
    ("Pad", &[always("mode"), until(1, "paddings"), between(2, 10, "pads"), until(10, "value")]),
    ("Pow", &[until(6, "axis"), until(6, "broadcast")]),
    ("RMSNormalization", &[always("axis"), always("epsilon"), always("stash_type")]),
    ("Range", &[from(27, "stash_type")]),
    ("Reciprocal", &[]),
    ("ReduceL1", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceL2", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceLogSum", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceLogSumExp", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceMax", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceMean", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceMin", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceProd", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("ReduceSum", &[until(12, "axes"), always("keepdims"), from(13, "noop_with_empty_axes")]),
    ("ReduceSumSquare", &[until(17, "axes"), always("keepdims"), from(18, "noop_with_empty_axes")]),
    ("Relu", &[]),
    ("Reshape", &[from(14, "allowzero"), until(4, "shape")]),
    ("Resize", &[from(18, "antialias"), from(18, "axes"), from(11, "coordinate_transformation_mode"), from(11, "cubic_coeff_a"), from(11, "exclude_outside"), from(11, "extrapolation_value"), from(18, "keep_aspect_ratio_policy"), always("mode"), from(11, "nearest_mode")]),
    ("Round", &[]),
    ("ScatterND", &[from(16, "reduction")]),
    ("Selu", &[always("alpha"), always("gamma")]),
    ("Shape", &[from(15, "end"), from(15, "start")]),
    ("Shrink", &[always("bias"), always("lambd")]),
    ("Sigmoid", &[]),
    ("Sign", &[]),
    ("Sin", &[]),
    ("Size", &[]),
    ("Slice", &[until(9, "axes"), until(9, "ends"), until(9, "starts")]),
    ("Softmax", &[always("axis")]),
    ("Softplus", &[]),
    ("Softsign", &[]),
    ("SpaceToDepth", &[always("blocksize"), from(28, "mode")]),
    ("Split", &[always("axis"), from(18, "num_outputs"), until(12, "split")]),
    ("Sqrt", &[]),
    ("Squeeze", &[until(12, "axes")]),
    ("Sub", &[until(6, "axis"), until(6, "broadcast")]),
    ("Sum", &[]),
    ("Swish", &[always("alpha")]),
    ("Tanh", &[]),
    ("ThresholdedRelu", &[always("alpha")]),
    ("Tile", &[]),
    ("Transpose", &[always("perm")]),
    ("Trilu", &[always("upper")]),
    ("Unsqueeze", &[until(12, "axes")]),
    ("Upsample", &[until(6, "height_scale"), always("mode"), between(7, 8, "scales"), until(6, "width_scale")]),
    ("Where", &[]),
    ("Xor", &[until(6, "axis"), until(6, "broadcast")]),
];

/// Refuses versions of the operators that are not known.
pub(super) fn check_opset(opset: i64) -> Result<()> {
    if opset <= NEWEST {
        return Ok(());
    }
    Err(graph_error(format!(
        "its operators are of version {opset}, and those up to {NEWEST} are known; export it with an older opset"
    )))
}

/// Refuses operators that are not known, and attributes that one of this version does not have or
/// that are there twice.
pub(super) fn check_attributes(call: Call, opset: i64) -> Result<()> {
    let known = OPERATORS.binary_search_by_key(&call.operator(), |(name, ..)| name);
    let Ok(place) = known else {
        return Err(refused(call));
    };
    let (_, attributes) = OPERATORS[place];
    let mut seen = HashSet::new();
    for attribute in &call.node.attribute {
        let name = &attribute.name;
        if !seen.insert(name) {
            return Err(call.error(format!("it has two attributes `{name}`")));
        }
        // A hint about memory that old versions of many operators have.
        if name == "consumed_inputs" && opset < 6 {
            continue;
        }
        let Some(found) = attributes.iter().find(|known| known.name == name) else {
            return Err(call.error(format!("its operator has no attribute `{name}`")));
        };
        if !(found.first..=found.last).contains(&opset) {
            return Err(call.error(format!(
                "its operator has no attribute `{name}` in version {opset} of ONNX's operators"
            )));
        }
    }
    Ok(())
}

impl<'a> Importer<'a> {
    /// What a node of the file gives that depends on the network's input.
    pub(super) fn operator(&mut self, index: usize, call: Call<'a>) -> Result<Vec<Value>> {
        if let Some(folded) = self.fold(call)? {
            return Ok(folded);
        }
        let one = |value| vec![value];
        match call.operator() {
            "Gemm" => self.gemm(call).map(one),
            "MatMul" => self.matmul(index, call).map(one),
            "Conv" => self.conv(call).map(one),
            "ConvTranspose" => self.conv_transpose(call).map(one),
            "Resize" | "Upsample" => self.resize(call).map(one),
            "DepthToSpace" | "SpaceToDepth" => self.blocks(call).map(one),
            "BatchNormalization" => self.batch_norm(call).map(one),
            "Add" | "Sum" => self.add(call).map(one),
            "Mean" => self.average(call).map(one),
            "Sub" => self.sub(call).map(one),
            "Mul" => self.mul(call).map(one),
            "Div" => self.div(call).map(one),
            "Neg" => self.neg(call).map(one),
            "Max" | "Min" => self.extremum(call).map(one),
            "Clip" => self.clip(call).map(one),
            "Relu" => self.gate(call, Gate::Relu).map(one),
            "Abs" => self.gate(call, Gate::Abs).map(one),
            "LeakyRelu" => {
                let slope = call.float("alpha", 0.01)?;
                self.gate(call, Gate::LeakyRelu { slope }).map(one)
            }
            "HardSigmoid" => self.hard_sigmoid(call).map(one),
            "PRelu" => self.prelu(call).map(one),
            "MaxPool" | "AveragePool" => self.pool(call).map(one),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(call).map(one),
            "ReduceL1" | "ReduceMax" | "ReduceMean" | "ReduceMin" | "ReduceSum" => {
                self.reduce(call).map(one)
            }
            "Where" => self.select(call).map(one),
            "Identity" | "Dropout" | "Cast" | "CastLike" => self.identity(call).map(one),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(call).map(one),
            "Transpose" => self.transpose(call).map(one),
            "Expand" => self.expand(call).map(one),
            "Tile" => self.tile(call).map(one),
            "GatherElements" => self.gather_elements(call).map(one),
            "Concat" => self.concat(call).map(one),
            "Slice" => self.slice(call).map(one),
            "Split" => self.split(call),
            "Gather" => self.gather(call).map(one),
            "Pad" => self.pad(call).map(one),
            "Softmax" | "LogSoftmax" | "Sigmoid" if self.head == Some(index) => {
                self.without_head(call).map(one)
            }
            "Softmax" | "LogSoftmax" | "Sigmoid" => Err(call.error(
                "it is not piecewise linear; only as the last node, after the logits, it can be dropped",
            )),
            _ => Err(refused(call)),
        }
    }
}

/// Why an operator on values that depend on the input has no place in a continuous, piecewise linear
/// map.
fn refusal(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "HardSwish" => {
            "it is x times HardSigmoid(x), quadratic between −3 and 3 and so not piecewise linear; train with a ReLU-like \
             gate instead"
        }
        "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceProd" | "ReduceSumSquare" => {
            "its derivative changes with the values that it reduces, so it is not piecewise linear"
        }
        "LSTM" | "GRU" | "RNN" | "Attention" => {
            "it multiplies values that depend on the input or bends them, so it is not piecewise linear"
        }
        "DynamicQuantizeLinear" | "QuantizeLinear" => {
            "it rounds values, so the map jumps; export the model before it is quantised"
        }
        "ArgMax" | "ArgMin" | "Ceil" | "Floor" | "Mod" | "Round" | "Shrink" | "Sign"
        | "ThresholdedRelu" => {
            "it jumps, so the map is not continuous and its derivative does not say how it changes"
        }
        "And" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "Or"
        | "Xor" => {
            "it decides by values that depend on the input, so the map may jump; Max, Min, Relu or Clip say the same \
             without jumps"
        }
        "Celu"
        | "Cos"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Gelu"
        | "GroupNormalization"
        | "InstanceNormalization"
        | "LRN"
        | "LayerNormalization"
        | "Log"
        | "LpNormalization"
        | "Mish"
        | "Pow"
        | "RMSNormalization"
        | "Reciprocal"
        | "Selu"
        | "Sin"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tanh" => {
            "it is not piecewise linear, so no exact closed form exists; use a ReLU-like gate or frozen batch \
             normalisation instead"
        }
        _ => return None,
    })
}

fn refused(call: Call) -> Error {
    if let Some(reason) = refusal(call.operator()) {
        return call.error(reason);
    }
    call.error("this operator is not supported; `relugrad convert --help` lists those that are")
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::onnx_from_bytes;
    use crate::onnx::proto::{AttributeProto, NodeProto};
    use crate::onnx::tests::{model, node};

    fn refused(nodes: Vec<NodeProto>, opset: i64) -> Option<String> {
        let mut proto = model(nodes, Vec::new(), &[1, 2]);
        proto.opset_import[0].version = opset;
        let read = onnx_from_bytes(&proto.encode_to_vec());
        read.err().map(|error| error.to_string())
    }

    fn with(operator: &str, names: &[&str]) -> Vec<NodeProto> {
        let attribute = |name: &&str| AttributeProto {
            name: (*name).into(),
            ..AttributeProto::default()
        };
        vec![NodeProto {
            attribute: names.iter().map(attribute).collect(),
            ..node(operator, &["x"], "y")
        }]
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(OPERATORS.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn an_attribute_that_no_version_or_another_one_has_is_refused() {
        for &(operator, attributes) in OPERATORS {
            let lacks = |name: &str, opset| {
                let error = refused(with(operator, &[name]), opset).unwrap_or_default();
                assert!(
                    error.contains(&format!(
                        "({operator}): its operator has no attribute `{name}`"
                    )),
                    "{operator} {opset}: {error}"
                );
            };
            lacks("axis_of_nothing", 17);
            for attribute in attributes {
                if attribute.first > 1 {
                    lacks(attribute.name, attribute.first - 1);
                }
                if attribute.last < NEWEST {
                    lacks(attribute.name, attribute.last + 1);
                }
                let version = attribute.last.min(attribute.first.max(7));
                let known = refused(with(operator, &[attribute.name]), version);
                assert!(!known.unwrap_or_default().contains("has no attribute"));
                let twice = refused(with(operator, &[attribute.name; 2]), version);
                assert!(twice.unwrap_or_default().contains("it has two attributes"));
            }
        }
    }

    #[test]
    fn later_versions_are_refused_by_number() {
        let relu = || vec![node("Relu", &["x"], "y")];
        assert_eq!(refused(relu(), NEWEST), None);
        for opset in [NEWEST + 1, 999, i64::MAX] {
            let error = refused(relu(), opset).unwrap_or_default();
            assert!(error.contains(&format!("version {opset}")), "{error}");
        }
    }
}
