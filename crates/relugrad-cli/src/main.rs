//! The `relugrad` command.

mod bench;
mod compare;
mod convert;
mod data;
mod derive;
mod evaluate;
mod failure;
mod inspect;
mod interrupt;
mod model;
mod regions;
mod report;
mod train;
mod values;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exact derivatives and regularizers of ReLU networks.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Compare(Box<compare::Arguments>),
    Convert(convert::Arguments),
    Derive(derive::Arguments),
    Evaluate(Box<evaluate::Arguments>),
    Inspect(inspect::Arguments),
    Regions(Box<regions::Arguments>),
    Train(Box<train::Arguments>),
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Derive(arguments) => derive::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Regions(arguments) => regions::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
