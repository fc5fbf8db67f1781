//! `relugrad manual`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::failure::Failure;
use crate::print;

/// Print the manual page of relugrad or of one of its commands, or write all of them
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad manual evaluate | man -l -
  relugrad manual --out ~/.local/share/man/man1               # relugrad.1, relugrad-train.1, …: man relugrad-train")]
pub(crate) struct Arguments {
    /// The command; by default the page of relugrad itself
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,

    /// Write the pages of all commands to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace pages that are there
    #[arg(long, requires = "out")]
    overwrite: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut whole = crate::Arguments::command();
    whole.build();
    let Some(folder) = &arguments.out else {
        print::bytes(&page(named(&whole, arguments.command.as_deref())?)?);
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let commands = [&whole].into_iter().chain(whole.get_subcommands());
    for command in commands.filter(|command| command.get_name() != "help") {
        let path = folder.join(format!("{}.1", name(command)));
        relugrad_io::write_whole(&path, &page(command)?, arguments.overwrite)
            .map_err(anyhow::Error::from)?;
        print::line(path.display());
    }
    Ok(())
}

/// A command by its name.
fn named<'c>(whole: &'c Command, name: Option<&str>) -> Result<&'c Command, Failure> {
    let Some(name) = name else { return Ok(whole) };
    whole.find_subcommand(name).ok_or_else(|| {
        let names: Vec<&str> = whole.get_subcommands().map(Command::get_name).collect();
        Failure::Usage(anyhow::anyhow!(
            "there is no command `{name}`; the commands are {}",
            names.join(", ")
        ))
    })
}

/// The name of a page: `relugrad-train` of the command `train`.
fn name(command: &Command) -> String {
    match command.get_name() {
        "relugrad" => "relugrad".to_owned(),
        name => format!("relugrad-{name}"),
    }
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    let own = command.clone().display_name(name(command));
    Man::new(own)
        .render(&mut page)
        .context("cannot write the page")?;
    Ok(page)
}
