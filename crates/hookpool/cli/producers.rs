//! What producers use, and operators to let in producers, readers and operators.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use clap::{Args, Subcommand, ValueEnum};
use hookpool_client::{ConnectorLimits, Replay, Scheme};
use hookpool_core::name::{ConnectorName, NameError};

use super::OutputArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectorCommand {
    /// Make a connector for a stream; prints its keys, this once
    #[command(after_help = "\
Examples:
  hookpool connector add sales --id-field region
  hookpool connector add sales --name shop --signed
  hookpool connector add issues --scheme github --id-field /issue/id
  hookpool connector add payments --scheme stripe --signing-key-file stripe.key
  hookpool connector add acme --scheme '{\"header\":\"X-Acme-Signature\",\"template\":\"{body}\"}'
  hookpool connector add acme --scheme \
    '{\"header\":\"X-Sig\",\"template\":\"{id}.{body}\",\"deliveryHeader\":\"X-Delivery\"}'    each delivery counts once
  hookpool connector add sales --output json | jq -r .ingestKey")]
    Add(ConnectorAddArgs),
    /// List all connectors
    #[command(after_help = "\
Examples:
  hookpool connector list
  hookpool connector list --output json | jq -r .connectors[].name")]
    List(OutputArgs),
    /// Show one connector and its keys
    #[command(after_help = "\
Example:
  hookpool connector show sales")]
    Show(ConnectorArgs),
    /// Make a new ingest key; the old ones expire
    #[command(after_help = "\
Example:
  hookpool connector rotate-key sales --overlap 3600     both keys work for an hour")]
    RotateKey(RotateArgs),
    /// Change what a connector does with its deliveries
    #[command(after_help = "\
Examples:
  hookpool connector set sales --id-field /order/id
  hookpool connector set sales --id-field ''              the property id again
  hookpool connector set sales --replay allow
  hookpool connector set sales --events-per-second 100 --burst 500 --max-fields 50
  hookpool connector set sales --no-limits
  hookpool connector set sales --keep-rejected true       see hookpool rejections

How a connector's sender signs can't be changed: add another connector for another sender.")]
    Set(ConnectorSetArgs),
    /// Add a signing key, a new one or the sender's; the old ones expire. Turns signing on where it was off
    #[command(after_help = "\
Examples:
  hookpool connector rotate-signing-key sales --overlap 3600
  hookpool connector rotate-signing-key payments --signing-key-file stripe.key
  pass show slack | hookpool connector rotate-signing-key chat --signing-key-file -")]
    RotateSigningKey(RotateSigningKeyArgs),
    /// Refuse what is signed with a signing key from now on; connector show has the ids
    #[command(after_help = "\
The last key that counts is not revoked: rotate it, or disable the connector.

Example:
  hookpool connector show sales                          signing key  5f8d4c2a91be, made 2026-01-31T10:00:00.000000Z
  hookpool connector revoke-signing-key sales 5f8d4c2a91be")]
    RevokeSigningKey(RevokeSigningKeyArgs),
    /// Make a new hook; the old ones expire
    #[command(after_help = "\
Example:
  hookpool connector rotate-hook payments --overlap 3600     both hooks work for an hour")]
    RotateHook(RotateArgs),
    /// Refuse a hook from now on
    #[command(after_help = "\
Example:
  hookpool connector revoke-hook payments 5f8d4c2a91be     `connector show` has the ids")]
    RevokeHook(RevokeHookArgs),
    /// Refuse all deliveries of a connector
    #[command(after_help = "\
Example:
  hookpool connector disable sales     `enable` takes them again")]
    Disable(ConnectorArgs),
    /// Take its deliveries again
    #[command(after_help = "\
Example:
  hookpool connector enable sales")]
    Enable(ConnectorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorAddArgs {
    /// Stream that the connector writes to
    #[arg(value_parser = name)]
    pub(crate) stream: String,
    /// Name of the connector [default: the stream's]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// Take only deliveries signed with a key of this connector
    #[arg(long)]
    pub(crate) signed: bool,
    /// How the sender signs: hookpool, standard-webhooks, github, stripe, slack, shopify, or a custom one as JSON; also makes a hook
    #[arg(long, value_name = "SCHEME", value_parser = scheme)]
    pub(crate) scheme: Option<Scheme>,
    #[command(flatten)]
    pub(crate) signing_key: SigningKeyArgs,
    /// Property that holds the item id, or a JSON Pointer to it, where a request names none [default: id]
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// What a signed delivery that comes again gets: the first answer, or recorded again
    #[arg(long, default_value = "collapse")]
    pub(crate) replay: ReplayArg,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Keep refused deliveries with their bodies, so that they can be tried again
    #[arg(long)]
    pub(crate) keep_rejected: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What a connector may send.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Events that it may send in a second, on average [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) events_per_second: Option<NonZeroU32>,
    /// Events that it may send at once [default: those of a second]
    #[arg(long, value_name = "N", requires = "events_per_second")]
    pub(crate) burst: Option<NonZeroU32>,
    /// Largest body, in bytes [default: what the server takes]
    #[arg(long, value_name = "BYTES")]
    pub(crate) body_bytes: Option<NonZeroUsize>,
    /// Most top-level properties of an event [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_fields: Option<NonZeroU32>,
}

impl From<LimitArgs> for ConnectorLimits {
    fn from(args: LimitArgs) -> Self {
        Self {
            events_per_second: args.events_per_second,
            burst: args.burst,
            body_bytes: args.body_bytes,
            fields: args.max_fields,
        }
    }
}

/// The sender's own signing key; never as an argument, which everybody on the machine can see.
#[derive(Debug, Args)]
pub(crate) struct SigningKeyArgs {
    /// File with the sender's own signing key, or - for standard input [default: one is made]
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key_file: Option<PathBuf>,
    /// Environment variable that holds it
    #[arg(long, value_name = "NAME", conflicts_with = "signing_key_file")]
    pub(crate) signing_key_env: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorSetArgs {
    /// Name of the connector
    pub(crate) name: String,
    /// Property that holds the item id, or a JSON Pointer to it; empty for id
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// What a signed delivery that comes again gets: the first answer, or recorded again
    #[arg(long)]
    pub(crate) replay: Option<ReplayArg>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Take away all limits first
    #[arg(long)]
    pub(crate) no_limits: bool,
    /// Whether refused deliveries are kept with their bodies, so that they can be tried again
    #[arg(long, value_name = "true|false")]
    pub(crate) keep_rejected: Option<bool>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RotateSigningKeyArgs {
    #[command(flatten)]
    pub(crate) rotate: RotateArgs,
    #[command(flatten)]
    pub(crate) signing_key: SigningKeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeHookArgs {
    /// Name of the connector
    pub(crate) name: String,
    /// Public part of the hook: the letters between hk_ and the next _
    pub(crate) key_id: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeSigningKeyArgs {
    /// Name of the connector
    pub(crate) name: String,
    /// Id of the signing key
    pub(crate) key_id: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ReplayArg {
    Collapse,
    Allow,
}

impl From<ReplayArg> for Replay {
    fn from(arg: ReplayArg) -> Self {
        match arg {
            ReplayArg::Collapse => Self::Collapse,
            ReplayArg::Allow => Self::Allow,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorArgs {
    /// Name of the connector
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Name of the connector
    pub(crate) name: String,
    /// How long the old keys still work
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) overlap: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReaderCommand {
    /// Make a read key; prints it, this once
    #[command(after_help = "\
Examples:
  hookpool reader add dashboard --stream sales --stream orders
  hookpool reader add backup --stream '*'")]
    Add(ReaderAddArgs),
    /// List all read keys
    #[command(after_help = "\
Example:
  hookpool reader list")]
    List(OutputArgs),
    /// Refuse a read key from now on; its change streams end
    #[command(after_help = "\
Example:
  hookpool reader revoke dashboard")]
    Revoke(ReaderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReaderAddArgs {
    /// Name of the read key
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Stream that it may read; '*' is every stream
    #[arg(long = "stream", value_name = "STREAM", required = true, num_args = 1.., value_parser = name_or_all)]
    pub(crate) streams: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReaderArgs {
    /// Name of the read key
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make another operator key; prints it, this once
    #[command(after_help = "\
Examples:
  hookpool operator add alice
  hookpool operator add ci --output json")]
    Add(OperatorAddArgs),
    /// List all operator keys
    #[command(after_help = "\
Example:
  hookpool operator list")]
    List(OutputArgs),
    /// Refuse an operator key from now on; the last one stays
    #[command(after_help = "\
The key id is the part between ok_ and the next _ of a key, and stands in `hookpool operator list`.

Examples:
  hookpool operator revoke 5f8d4c2a91be")]
    Revoke(OperatorRevokeArgs),
    /// Make an operator key on a stopped data folder and write it to operator.key there
    #[command(after_help = "\
Who may write to the data folder may do this: it is the second way in. The server must be stopped, and operator.key must
not be there: a key is never overwritten. Keys that were made before work on, unless all others are to be revoked.

Examples:
  hookpool operator recover
  hookpool operator recover --revoke-others --data-dir /var/lib/hookpool")]
    Recover(OperatorRecoverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OperatorAddArgs {
    /// Name of the operator key
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OperatorRevokeArgs {
    /// Id of the operator key
    pub(crate) key_id: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OperatorRecoverArgs {
    /// Refuse all other operator keys from then on
    #[arg(long)]
    pub(crate) revoke_others: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Bodies are posted byte for byte. A file that ends in .ndjson is one body a line.
Keys in variables stay out of the list of processes.

Examples:
  export HOOKPOOL_INGEST_KEY=ik_...
  echo '{\"region\":\"North\",\"sales\":142000}' | hookpool send sales --id-field region
  hookpool send sales body.json --dry-run
  hookpool send sales body.json --count 100 --rate 10
  HOOKPOOL_SIGNING_KEY=whsk_... hookpool send sales events.ndjson --output json
  HOOKPOOL_SIGNING_KEY=... hookpool send issues delivery.json --scheme github
  hookpool send sales order.json --idempotency-key order-1234        run it again: no second event")]
pub(crate) struct SendArgs {
    /// Stream to send to
    pub(crate) stream: String,
    /// File with the body, or - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Property that holds the item id, or a JSON Pointer to it
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// Only ask what would happen: nothing is written
    #[arg(long, conflicts_with_all = ["count", "rate", "idempotency_key"])]
    pub(crate) dry_run: bool,
    /// What the delivery is called by: sent again within 96 hours it is not recorded again. Of several bodies, each has the key with -1, -2, ... behind it
    /// [default: a random one for each]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// How often to send the whole file
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// Events per second at most [default: one after the other]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) keys: ProducerKeys,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The events of a request are recorded all or not at all. Each request has an idempotency
key made of the file up to its end, so running the command again after a failure, or
after a line was put right, records nothing twice for 96 hours. A file that grew is
another one from its last request on: send what is new as a file of its own. To record
the same file again, name other keys with --idempotency-key.

Examples:
  export HOOKPOOL_INGEST_KEY=ik_...
  hookpool ingest sales events.ndjson --id-field region
  zcat events.ndjson.gz | hookpool ingest sales -
  hookpool ingest sales events.ndjson --idempotency-key second-time --output json")]
pub(crate) struct IngestArgs {
    /// Stream to send to
    pub(crate) stream: String,
    /// File with one JSON object a line, or - for standard input
    pub(crate) file: PathBuf,
    /// Property that holds the item id, or a JSON Pointer to it
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// What the requests are called by: each has the key with -1, -2, ... behind it [default: made of what the file holds]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Largest request, at most the server's limits.ingest-body-bytes; with another one, what was sent before is refused
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub(crate) request_bytes: usize,
    #[command(flatten)]
    pub(crate) keys: ProducerKeys,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The item is gone for readers; its history stays. What the connector sends of it later
starts from nothing. Deleting what is not there is no error.

Example:
  HOOKPOOL_INGEST_KEY=ik_... hookpool delete sales North")]
pub(crate) struct DeleteArgs {
    /// Stream of the item
    pub(crate) stream: String,
    /// Id of the item
    pub(crate) id: String,
    /// What the request is called by: sent again within 96 hours it is not recorded again [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) keys: ProducerKeys,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What proves who sends.
#[derive(Debug, Args)]
pub(crate) struct ProducerKeys {
    /// Key of the connector
    #[arg(
        long,
        value_name = "KEY",
        env = "HOOKPOOL_INGEST_KEY",
        hide_env_values = true
    )]
    pub(crate) ingest_key: SecretArg,
    /// Key to sign with
    #[arg(
        long,
        value_name = "KEY",
        env = "HOOKPOOL_SIGNING_KEY",
        hide_env_values = true
    )]
    pub(crate) signing_key: Option<SecretArg>,
    /// How to sign: hookpool, standard-webhooks, github, stripe, slack, shopify, or a custom one as JSON
    #[arg(long, value_name = "SCHEME", value_parser = scheme, default_value = "hookpool")]
    pub(crate) scheme: Scheme,
}

/// A secret from the command line or the environment.
#[derive(Debug, Clone)]
pub(crate) struct SecretArg(pub(crate) hookpool_client::Secret);

impl From<&str> for SecretArg {
    fn from(text: &str) -> Self {
        Self(hookpool_client::Secret::new(text.to_owned()))
    }
}

/// A name that is to be made: said here what is wrong with it, and not by the server.
fn name(text: &str) -> Result<String, NameError> {
    ConnectorName::new(text).map(Into::into)
}

fn name_or_all(text: &str) -> Result<String, NameError> {
    match text {
        "*" => Ok(text.to_owned()),
        _ => name(text),
    }
}

/// A name, or the JSON of a custom one.
fn scheme(text: &str) -> Result<Scheme, String> {
    let parsed = if text.trim_start().starts_with('{') {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        Scheme::try_from(json)
    } else {
        text.parse()
    };
    parsed.map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1e-6..=1e6).contains(&rate) => Ok(rate),
        _ => Err("not a number of events per second, up to a million".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RejectionsCommand {
    /// List refused deliveries, the newest first
    #[command(after_help = "\
Examples:
  hookpool rejections list
  hookpool rejections list --connector sales --reason signature
  hookpool rejections list --limit 1000 --output json | jq -r .rejections[].diagnosis")]
    List(RejectionsListArgs),
    /// Show one: the id is what its sender got in X-Request-Id
    #[command(after_help = "\
Example:
  hookpool rejections show 0192f0c4-7a1e-7c3b-9c1d-2f6f0b1c9a10")]
    Show(RejectionArgs),
    /// Try deliveries again that were kept, with the connector as it is now
    #[command(after_help = "\
A delivery is kept where its key was good and its connector has --keep-rejected; `rejections show` says why one is not. It is
verified as of when it came, and appended now, a request of many events whole or not at all; one that came again meanwhile
is not doubled. One that has neither a delivery id nor an Idempotency-Key is doubtful where the same content was accepted
since it came: it is taken only with --force. Exits 1 if any is still refused or doubtful.

Examples:
  hookpool rejections retry 0192f0c4-7a1e-7c3b-9c1d-2f6f0b1c9a10
  hookpool rejections retry --connector sales
  hookpool rejections retry --force 0192f0c4-7a1e-7c3b-9c1d-2f6f0b1c9a10")]
    Retry(RejectionsRetryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RejectionsListArgs {
    /// Only of this connector
    #[arg(long, value_name = "NAME")]
    pub(crate) connector: Option<String>,
    /// Only for this reason, for example signature, timestamp, unknown-key, rate-limited
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<String>,
    /// Only those before this one
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// How many at most, up to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RejectionArgs {
    /// Id of the rejection
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RejectionsRetryArgs {
    /// Id of a rejection
    #[arg(required_unless_present = "connector")]
    pub(crate) id: Option<String>,
    /// All of this connector that wait for it, the oldest first
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub(crate) connector: Option<String>,
    /// Also what may be there already, because nothing names it and the same content was accepted since
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
