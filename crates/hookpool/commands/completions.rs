//! `hookpool completions`.

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs},
    exit::Exit,
    output,
};

pub(crate) fn run(args: CompletionsArgs) -> anyhow::Result<Exit> {
    // Into memory first: the generator panics where a reader of our output has gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hookpool", &mut script);
    output::raw(&script)?;
    Ok(Exit::Ok)
}
