//! Model files: round trips, every kind of damage, random mutations.

mod constants;
mod damage;
mod models;
mod mutation;
mod onnx;
mod round_trip;
