//! relugrad-io
