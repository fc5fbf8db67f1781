//! relugrad
