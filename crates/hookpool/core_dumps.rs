//! Whether a crash may write the memory of the process to disk: a server holds signing keys and what it was sent.

use crate::config::CoreDumps;

/// Takes the right to dump away, for good, unless an operator wants dumps; then the limit stays as it was handed down.
#[cfg(unix)]
pub(crate) fn limit(dumps: CoreDumps) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use rustix::process::{Resource, Rlimit, setrlimit};

    const NONE: Rlimit = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    match dumps {
        CoreDumps::On => Ok(()),
        CoreDumps::Off => setrlimit(Resource::Core, NONE)
            .context("core dumps can't be switched off; core-dumps = \"on\" starts without that"),
    }
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on unix")]
pub(crate) fn limit(_: CoreDumps) -> anyhow::Result<()> {
    Ok(())
}
