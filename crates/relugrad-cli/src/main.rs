//! The `relugrad` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(relugrad_cli::main(std::env::args_os()))
}
