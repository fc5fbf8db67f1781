//! The `relugrad` command, as a function, so that other programs can contain it: the Python package
//! does.

#![warn(clippy::wildcard_enum_match_arm)]
// Printing must not panic: `print` does it.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod bench;
mod compare;
mod completions;
mod convert;
mod data;
mod derive;
mod earlier;
mod evaluate;
mod failure;
mod flags;
mod formula;
mod inspect;
mod interrupt;
mod loss;
mod manual;
mod model;
mod print;
mod progress;
mod regions;
mod report;
mod table;
mod threads;
mod train;
mod values;
mod verify;
mod waiting;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use failure::{Failure, exit_code};
use relugrad::{Cell, Plane};
use relugrad_io::Limits;

/// Exact derivatives and regularizers of ReLU networks.
#[derive(Debug, Parser)]
#[command(
    name = "relugrad",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An output that nobody reads on, as in \
                  `relugrad … | head`, is no failure; one that cannot be written is."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// The most memory that what is made from one file may take, such as 500MB or 2GiB, if a file
    /// is refused for asking for more. By default 64 MiB and 64 bytes for each byte of the file;
    /// 256 MiB for a network that a .toml file asks for. It also takes the place of the limits on
    /// the lengths of files, headers and lines
    #[arg(long, global = true, value_name = "SIZE", value_parser = values::size, help_heading = "Files")]
    file_memory: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Compare(Box<compare::Arguments>),
    Completions(completions::Arguments),
    Convert(convert::Arguments),
    Derive(derive::Arguments),
    Evaluate(Box<evaluate::Arguments>),
    Inspect(inspect::Arguments),
    Manual(manual::Arguments),
    Regions(Box<regions::Arguments>),
    Train(Box<train::Arguments>),
    Verify(verify::Arguments),
}

/// Runs the command with these arguments, of which the first is the name of the program, and
/// returns its exit code. It listens to signals, prints, and may end the process when it is
/// interrupted: it is the whole of a program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let given = joined(earlier::renamed(arguments.into_iter().collect()));
    match Arguments::try_parse_from(&given) {
        Ok(arguments) => {
            let memory = arguments.file_memory;
            Limits { memory }.set_for_process();
            exit_code(run(arguments.command))
        }
        Err(message) => match (message.use_stderr(), print::clap(&shown(message, &given))) {
            (true, _) => 2,
            (false, arrived) => match arrived {
                true => 0,
                false => 1,
            },
        },
    }
}

/// Negative numbers joined to the option before them, as in `--box=-1,1`: by themselves they would be
/// taken for options.
fn joined(given: Vec<OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut options = true;
    for argument in given {
        options &= argument != "--";
        match all.last_mut() {
            Some(option) if options && is_bare_option(option) && is_negative(&argument) => {
                option.push("=");
                option.push(&argument);
            }
            _ => all.push(argument),
        }
    }
    all
}

fn is_bare_option(argument: &OsString) -> bool {
    let text = argument.to_string_lossy();
    text.starts_with("--") && text.len() > 2 && !text.contains('=')
}

/// Whether a text begins with a minus and a digit.
fn is_negative(argument: &OsString) -> bool {
    let text = argument.to_string_lossy();
    let digits = text
        .strip_prefix('-')
        .map(|rest| rest.trim_start_matches('.'));
    digits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The picture (SVG) of the regions of a slice, coloured by their classes, with marked points; the
/// window and the points are in coordinates of the plane.
pub fn slice_picture(
    title: &str,
    plane: Plane<f64>,
    window: [[f64; 2]; 2],
    marks: Vec<([f64; 2], String)>,
    cells: &[Cell],
) -> String {
    regions::class_picture(title, plane, window, marks, cells)
}

/// The message about the arguments as a terminal shows them; by itself the parser drops what a
/// terminal obeys.
fn shown(message: clap::Error, given: &[OsString]) -> clap::Error {
    let printable = given
        .iter()
        .map(|argument| relugrad_io::printable(&argument.to_string_lossy()).into_owned());
    match Arguments::try_parse_from(printable) {
        Err(same) if same.kind() == message.kind() => same,
        _ => message,
    }
}

fn run(command: Command) -> Result<(), Failure> {
    interrupt::listen()?;
    match command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Derive(arguments) => derive::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Regions(arguments) => regions::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_belong_to_the_option_before_them() {
        let joined = |line: &str| {
            let found = joined(line.split(' ').map(OsString::from).collect());
            found.join(&OsString::from(" ")).into_string().unwrap()
        };
        for (given, expected) in [
            ("train --box -1,1 --lr -.5", "train --box=-1,1 --lr=-.5"),
            ("train --box=-1,1 -2", "train --box=-1,1 -2"),
            ("train --mean -1/2 x", "train --mean=-1/2 x"),
            ("train --linf --l2 1", "train --linf --l2 1"),
            ("train --linf - -h", "train --linf - -h"),
            ("inspect -- --lr -1", "inspect -- --lr -1"),
        ] {
            assert_eq!(joined(given), expected);
        }
    }
}
