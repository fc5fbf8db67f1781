//! What a first axis is whose length the file fixes: the batch, or an axis of the sample.

use ndarray::Array2;
use relugrad::Network;

use super::{First, Importer};
use crate::error::Result;
use crate::limits::Budget;
use crate::model::Model;
use crate::onnx::Graph;

/// Factors of the inputs on which two readings are compared.
const SIZES: [f64; 3] = [1.0, 0.1, 10.0];

/// Reads a graph. An axis 0 whose length is fixed at more than 1 is the batch if the graph with
/// other lengths of it does the same to every sample; otherwise it belongs to the sample.
pub(in crate::onnx) fn read(graph: &Graph, budget: &Budget) -> Result<Model> {
    let mut importer = Importer::new(graph, budget, First::Batch(1));
    let one = importer.run();
    let Some(length) = importer.fixed_batch else {
        return one;
    };
    let pair = || Importer::new(graph, budget, First::Batch(2)).run();
    if let Ok(mut one) = one
        && pair().is_ok_and(|pair| is_of_each(one.network(), pair.network()))
    {
        one.note(&format!(
            "axis 0 of the input, of length {length}, is the batch: the network is the map of one sample"
        ));
        return Ok(one);
    }
    let mut whole = Importer::new(graph, budget, First::Sample).run()?;
    whole.note(&format!(
        "axis 0 of the input, of length {length}, is no batch: its entries are not mapped one by one, so all of them \
         are one sample"
    ));
    Ok(whole)
}

/// Whether a network of two samples together is the map of one, for each of them.
fn is_of_each(one: &Network<f64>, pair: &Network<f64>) -> bool {
    let width = one.inputs();
    if pair.inputs() != 2 * width || pair.outputs() != 2 * one.outputs() {
        return false;
    }
    SIZES.iter().all(|size| {
        // Multiples of the golden section are spread evenly.
        let place = |(_, i): (usize, usize)| {
            let fraction = ((i + 1) as f64 * 0.618_033_988_749_894_9).fract();
            size * (2.0 * fraction - 1.0)
        };
        let together = Array2::from_shape_fn((1, 2 * width), place);
        let apart = together.to_shape((2, width)).expect("as many entries");
        let (Ok(found), Ok(expected)) = (pair.forward(together.view()), one.forward(apart.view()))
        else {
            return false;
        };
        let scale = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let pairs = found.iter().zip(&expected);
        pairs
            .into_iter()
            .all(|(f, e)| (f - e).abs() <= 1e-9 * scale)
    })
}
