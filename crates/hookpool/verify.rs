//! Reads a data folder from end to end and proves that nothing is missing or changed.

use crate::{cli::VerifyArgs, config::Settings, exit::Exit};

#[expect(clippy::unused_async, reason = "a stub")]
pub(crate) async fn run(args: VerifyArgs, settings: Settings) -> anyhow::Result<Exit> {
    let _ = (args.output, settings.data_dir, Exit::Problems);
    anyhow::bail!("verify is not there yet")
}
