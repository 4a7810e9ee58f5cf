//! The command line as clap sees it. What the commands do is in `commands/`, `serve.rs`, `demo.rs` and `verify.rs`.

mod consumers;
mod generations;
mod history;
mod producers;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;

pub(crate) use consumers::*;
pub(crate) use generations::*;
pub(crate) use history::*;
pub(crate) use producers::*;

use crate::{config::Flags, output::Output};

const EXAMPLES: &str = "\
Try it:
  hookpool demo                                    a server with sample events

Run it:
  hookpool serve                                   in one terminal
  hookpool connector add sales --id-field region   in another: a key and a curl command
  hookpool tail sales                              and watch

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unauthorized, 5 conflict,
6 verification found problems, 7 unreachable.";

/// Reads the command line, or ends the process as clap does.
pub(crate) fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| with_variable(error).exit())
}

/// Says of a key that is missing where else it is looked for: it should not stand on the command line.
fn with_variable(mut error: clap::Error) -> clap::Error {
    let is_key = |name: &String| name.starts_with("--ingest-key");
    let is_missing = error.kind() == ErrorKind::MissingRequiredArgument;
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::InvalidArg)
        && is_missing
        && names.iter().any(is_key)
    {
        let tip = "set HOOKPOOL_INGEST_KEY to the key that `hookpool connector add` printed";
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// Webhooks in, a live DataPool out, and the history kept.
#[derive(Debug, Parser)]
#[command(name = "hookpool", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the server, its keys and its settings are found.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Globals {
    /// Server that client commands ask
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HOOKPOOL_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// File with an operator key [default: $HOOKPOOL_OPERATOR_KEY, else operator.key in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) operator_key_file: Option<PathBuf>,
    /// File with a read key, for commands that only read [default: $HOOKPOOL_READ_KEY, else the operator key]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) read_key_file: Option<PathBuf>,
    /// Folder of log, pool and keys [default: hookpool-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings in TOML; HOOKPOOL_* variables and flags win over it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HOOKPOOL_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Run a server on a scratch folder, with sample events flowing in
    Demo(DemoArgs),
    /// Say who may write: connectors and their keys
    #[command(subcommand)]
    Connector(ConnectorCommand),
    /// Say who may read: read keys
    #[command(subcommand)]
    Reader(ReaderCommand),
    /// Say who may operate: operator keys
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// See why deliveries were refused, and try them again
    #[command(subcommand)]
    Rejections(RejectionsCommand),
    /// Send events, as a producer does
    Send(SendArgs),
    /// Send a file of events, many in a request
    Ingest(IngestArgs),
    /// Delete an item, as a producer does
    Delete(DeleteArgs),
    /// Follow streams live
    Tail(TailArgs),
    /// Watch streams and their followers: rates, positions, lags
    Top(TopArgs),
    /// Read the items of a stream, as they are or were
    #[command(subcommand)]
    Items(ItemsCommand),
    /// Read the recorded events of a stream
    #[command(subcommand)]
    Log(LogCommand),
    /// Say how history becomes items: the rules of a stream
    #[command(subcommand)]
    Projection(ProjectionCommand),
    /// Apply other rules to all of history, look at the difference, then serve it
    #[command(subcommand)]
    Rebuild(RebuildCommand),
    /// Say how much history of a stream is kept
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Look at events that fit the rules not at all
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Prove that a data folder is complete and unchanged
    Verify(VerifyArgs),
    /// Write the history to a file that proves itself
    Export(ExportArgs),
    /// Make the log of a data folder out of an export
    Import(ImportArgs),
    /// Copy the logs of a running server into a folder; again to bring it up to date
    Backup(BackupArgs),
    /// Make the logs of a data folder out of a backup
    Restore(RestoreArgs),
    /// Ask whether the server is ready
    Health(HealthArgs),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Settings come from defaults, then the file, then HOOKPOOL_* variables, then flags;
`hookpool config show --origin` lists them all. On the first start the operator key
is written to operator.key in the data folder. SIGTERM drains and exits 0.

Examples:
  hookpool serve
  hookpool serve --config hookpool.toml --listen 0.0.0.0:8080
  HOOKPOOL_LIMITS_BODY_BYTES=65536 hookpool serve --log-format json")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Everything is in a scratch folder, which Ctrl-C removes. What to try is printed.

Examples:
  hookpool demo
  hookpool demo --listen 127.0.0.1:0     at any free port")]
pub(crate) struct DemoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exits 0 if it is ready, 1 if it is not, 7 if nothing answers.

Example:
  until hookpool health; do sleep 1; done")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings in force
    #[command(after_help = "\
Examples:
  hookpool config show --origin
  hookpool config show --config hookpool.toml --output json")]
    Show(ConfigShowArgs),
    /// Say what is wrong with the settings, and exit 1 if something is
    #[command(after_help = "\
Example:
  hookpool config check --config hookpool.toml")]
    Check(ConfigCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also where each value came from
    #[arg(long)]
    pub(crate) origin: bool,
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  hookpool completions bash > /etc/bash_completion.d/hookpool")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// How facts are printed
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub(crate) output: Output,
}

/// Of commands that print JSON and nothing else, so that every command takes `--output json`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JsonArgs {
    /// How facts are printed
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub(crate) output: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Json {
    #[value(alias = "ndjson")]
    Json,
}

impl OutputArgs {
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

/// A whole number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis = match text.strip_prefix(digits) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 86_400_000,
        Some("w") => 604_800_000,
        _ => 0_u64,
    };
    let number = digits.parse().ok().filter(|number: &u64| *number > 0);
    let millis = number.and_then(|number| number.checked_mul(millis));
    let duration = millis
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis);
    duration.ok_or_else(|| "is not a duration such as 250ms, 10s, 5m, 2h, 30d or 1w".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "hookpool serve --config f.toml --data-dir d --listen 127.0.0.1:0 --tls-cert c --tls-key k",
            "hookpool demo --listen 127.0.0.1:0",
            "hookpool connector add sales --name n --signed --id-field f --replay allow --output json",
            "hookpool --server http://h --operator-key-file f connector list",
            "hookpool connector rotate-key n --overlap 60 --server http://h",
            "hookpool connector rotate-signing-key n",
            "hookpool connector disable n",
            "hookpool connector add s --events-per-second 5 --burst 9 --body-bytes 100 --max-fields 3 --keep-rejected",
            "hookpool connector set s --no-limits --keep-rejected false",
            "hookpool rejections list --connector sales --reason signature --after i --limit 3 --output json",
            "hookpool rejections show i",
            "hookpool rejections retry i",
            "hookpool rejections retry --connector sales",
            "hookpool rejections retry i --force",
            "hookpool connector enable n",
            "hookpool reader add n --stream a --stream b",
            "hookpool reader add n --stream a b --output json",
            "hookpool reader revoke n",
            "hookpool send sales - --ingest-key k --count 3 --rate 0.5",
            "hookpool tail sales --item i --from earliest --output ndjson",
            "hookpool tail sales orders --where status=open --where total>=5 --fields status,total",
            "hookpool tail sales --since 10m --conflate 250ms --until 42",
            "hookpool tail sales --since 2026-04-09T10:30:00+02:00",
            "hookpool tail sales --from 2026-04-09T10:30:00+02:00",
            "hookpool tail sales --from 5f8d4c2a91be0c37.1.42",
            "hookpool tail a.b c --from a.b:5f8d4c2a91be0c37.1.42,c:5f8d4c2a91be0c37.2.0",
            "hookpool top --once --interval 2s --output json",
            "hookpool items list sales --where !gone --fields a,b --at 7",
            "hookpool items list sales --limit 3 --read-key-file f",
            "hookpool items get sales x --meta --at 7",
            "hookpool items list sales --at 2026-04-09T10:30:00Z",
            "hookpool items history sales x --after 3 --limit 2",
            "hookpool items diff sales --from 1 --to 2",
            "hookpool items diff sales --from 1 --to 2 --output json",
            "hookpool log list sales --after 1 --limit 2 --body",
            "hookpool log show sales 7 --raw",
            "hookpool projection show sales --version 2",
            "hookpool projection set sales f.toml --check-history",
            "hookpool projection schema --output json",
            "hookpool connector revoke-hook n 0123456789ab --output json",
            "hookpool reader add n --stream *",
            "hookpool rebuild start sales --from-file f.toml --events-per-second 5 --wait",
            "hookpool rebuild start --all",
            "hookpool rebuild status sales --output json",
            "hookpool rebuild diff sales --limit 3 --output ndjson",
            "hookpool rebuild promote sales --digest d",
            "hookpool rebuild promote sales --any",
            "hookpool rebuild rollback sales",
            "hookpool rebuild release sales",
            "hookpool rebuild pause sales",
            "hookpool quarantine list sales --after 3 --limit 2",
            "hookpool log head --output json",
            "hookpool verify --data-dir d --output json",
            "hookpool verify --export f --head h --public-key 7c2ba2c409bf3708bc8cd6047baebd59a471fe13c5c993dcad1578f0a44cc259",
            "hookpool export",
            "hookpool export f --after 1 --until 2 --stream s --format cloudevents",
            "hookpool import - --data-dir d",
            "hookpool backup b --output json",
            "hookpool restore b --data-dir d",
            "hookpool health",
            "hookpool config show --origin --listen 1.1.1.1:1",
            "hookpool config check --config f",
            "hookpool completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_command_that_does_something_shows_an_example() {
        fn look(command: &clap::Command) {
            let inner: Vec<_> = command.get_subcommands().collect();
            let help = command.get_after_help().map(ToString::to_string);
            let name = command.get_name();
            assert!(
                !inner.is_empty() || help.is_some_and(|help| help.contains("Example")),
                "{name}"
            );
            inner.into_iter().for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [
            ("250ms", 0.25),
            ("10s", 10.0),
            ("5m", 300.0),
            ("1d", 86_400.0),
            ("1w", 604_800.0),
        ] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1 s",
            "1y",
            "1ms2",
            "99999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        for line in [
            "hookpool nonsense",
            "hookpool connector add s --burst 3",
            "hookpool rejections retry",
            "hookpool rejections retry i --connector sales",
            "hookpool serve --listen nonsense",
            "hookpool log show sales 7 --raw --output json",
            "hookpool log show sales seven",
            "hookpool verify --public-key 7c2ba2c409bf3708bc8cd6047baebd59a471fe13c5c993dcad1578f0a44cc259",
            "hookpool export --format xml",
            "hookpool reader add n",
            "hookpool reader add n --stream a/b",
            "hookpool reader add .n --stream a",
            "hookpool connector add a_b/c",
            "hookpool connector add s --name -n",
            "hookpool items diff s --from 1 --to 2 --output pretty",
            "hookpool rebuild start",
            "hookpool rebuild promote sales",
            "hookpool tail",
            "hookpool tail sales --since yesterday",
            "hookpool tail sales --since 10m --from now",
            "hookpool tail sales --from erliest",
            "hookpool items list sales --limit 0",
            "hookpool log list sales --limit 0",
            "hookpool rejections list --limit 0",
            "hookpool rejections list --limit 1001",
            "hookpool send s - --ingest-key k --count 0",
            "hookpool tail sales --conflate 0s",
            "hookpool top --interval 1",
            "hookpool rebuild start sales --events-per-second 0",
            "hookpool send s - --ingest-key k --rate 0",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn secrets_of_the_command_line_are_not_printed() {
        let cli =
            parse("hookpool send s - --ingest-key ik_a_geheim --signing-key whsk_geheim").unwrap();
        assert!(!format!("{cli:?}").contains("geheim"));
    }
}
