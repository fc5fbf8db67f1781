//! Model files: round trips, every kind of damage.

mod constants;
mod damage;
mod models;
mod onnx;
mod round_trip;
mod sources;
