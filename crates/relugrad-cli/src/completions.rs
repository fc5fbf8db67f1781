//! `relugrad completions`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::failure::Failure;
use crate::print;

/// Print what makes a shell complete the commands and options of relugrad
///
/// Put it where the shell looks for completions, or evaluate it when the shell begins.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad completions bash > ~/.local/share/bash-completion/completions/relugrad
  relugrad completions zsh > ~/.zfunc/_relugrad               # with fpath+=~/.zfunc before compinit in ~/.zshrc
  relugrad completions fish > ~/.config/fish/completions/relugrad.fish
  relugrad completions powershell >> $PROFILE")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut crate::Arguments::command(),
        "relugrad",
        &mut script,
    );
    print::bytes(&script);
    Ok(())
}
