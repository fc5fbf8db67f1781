//! The examples run, and what they assert holds; each has a test of its own.

#[path = "../examples/linearisation.rs"]
mod linearisation;
#[path = "../examples/onnx_jacobian.rs"]
mod onnx_jacobian;
#[path = "../examples/own_loss.rs"]
mod own_loss;
#[path = "../examples/sobolev.rs"]
mod sobolev;
