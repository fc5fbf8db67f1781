//! relugrad-train
pub mod compare;
