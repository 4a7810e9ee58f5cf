//! Runs the engine behind HTTP until it is told to stop.

use std::io::IsTerminal;

use anyhow::bail;
use hookpool_engine::status::Status;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{LogFormat, Settings},
    core_dumps,
    exit::Exit,
    node::{self, Node},
    output,
};

pub(crate) async fn run(settings: Settings) -> anyhow::Result<Exit> {
    start_logging(settings.log_format);
    // IMPORTANT: before there is a secret in memory.
    core_dumps::limit(settings.core_dumps)?;
    let interrupted = node::interrupted()?;
    let tls = node::tls(&settings)?;
    let listener = node::bind(settings.listen).await?;
    let node = Node::open(&settings).await?;
    if node.new_operator_key.is_some() {
        let file = settings.data_dir.join("operator.key");
        output::say(&format!(
            "made an operator key: {} (keep it safe; client commands find it there)",
            file.display()
        ));
    }
    let scheme = if settings.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let local_url = format!("{scheme}://{}", listener.local_addr()?);
    let public_url = settings
        .public_url
        .as_ref()
        .map_or_else(|| local_url.clone(), ToString::to_string);
    output::line(&format!("listening on {local_url}"))?;
    match Box::pin(node.serve(listener, tls, &settings, public_url, interrupted)).await? {
        Status::Ready | Status::Stopping => Ok(Exit::Ok),
        Status::Failed(reason) => {
            bail!("{reason}; then start again: nothing that was acknowledged is lost")
        }
    }
}

/// To stderr; `RUST_LOG` says how much.
fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
}
