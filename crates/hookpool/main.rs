//! The `hookpool` binary: reads the command line, then serves or asks a server.

mod cli;
mod client;
mod commands;
mod config;
mod core_dumps;
mod demo;
mod exit;
mod files;
mod import;
mod keys;
mod node;
mod operator;
mod output;
mod progress;
mod proof;
mod restore;
mod serve;
mod sought;
mod threads;
mod verify;

use std::process::ExitCode;

use cli::{Cli, Command};
use exit::Exit;

/// Requests allocate and free small things on one thread and another; measured against the system's allocator in `docs/benchmarks.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let exit = match threads::start() {
        Ok(runtime) => runtime.block_on(Box::pin(run(cli::parse()))),
        Err(error) => Err(error.into()),
    };
    exit.unwrap_or_else(|error| exit::explain(&error)).into()
}

async fn run(Cli { globals, command }: Cli) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => serve::run(globals.settings(&args.flags)?).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Connector(command) => commands::connector::run(command, &globals).await,
        Command::Reader(command) => commands::reader::run(command, &globals).await,
        Command::Operator(command) => commands::operator::run(command, &globals).await,
        Command::Send(args) => commands::send::run(args, &globals).await,
        Command::Ingest(args) => commands::ingest::run(args, &globals).await,
        Command::Delete(args) => commands::send::delete(args, &globals).await,
        Command::Tail(args) => commands::tail::run(args, &globals).await,
        Command::Top(args) => commands::top::run(args, &globals).await,
        Command::Items(command) => commands::items::run(command, &globals).await,
        Command::Log(command) => commands::log::run(command, &globals).await,
        Command::Projection(command) => commands::projection::run(command, &globals).await,
        Command::Rebuild(command) => commands::rebuild::run(command, &globals).await,
        Command::Rejections(command) => commands::rejections::run(command, &globals).await,
        Command::Retention(command) => commands::retention::run(command, &globals).await,
        Command::Quarantine(command) => commands::quarantine::run(command, &globals).await,
        Command::Verify(args) => {
            verify::run(args, globals.settings(&config::Flags::default())?).await
        }
        Command::Export(args) => commands::export::run(args, &globals).await,
        Command::Import(args) => {
            import::run(args, globals.settings(&config::Flags::default())?).await
        }
        Command::Backup(args) => commands::backup::run(args, &globals).await,
        Command::Restore(args) => {
            restore::run(args, globals.settings(&config::Flags::default())?).await
        }
        Command::Health(args) => commands::health::run(args, &globals).await,
        Command::Config(command) => commands::config::run(command, &globals),
        Command::Completions(args) => commands::completions::run(args),
    }
}
