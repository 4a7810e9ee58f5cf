//! Reads a data folder from end to end and proves that nothing is missing or changed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hookpool_fjall::{Progress, Report};
use serde::Serialize;

use crate::{
    cli::VerifyArgs,
    config::Settings,
    exit::Exit,
    output::{self, Output},
};

/// The logs of a data folder; the pool is derived from them.
const LOGS: [&str; 2] = ["log", "control"];
/// Longer logs say how far they are.
const QUIET_EVENTS: u64 = 1_000_000;

pub(crate) async fn run(args: VerifyArgs, settings: Settings) -> anyhow::Result<Exit> {
    let dir = settings.data_dir;
    let reports = tokio::task::spawn_blocking(move || read(&dir))
        .await
        .context("verifying")??;
    match args.output.output {
        Output::Pretty => print(&reports)?,
        Output::Json => {
            let [log, control] = &reports;
            output::json(&Verified {
                log: log.into(),
                control: control.into(),
            })?;
        }
    }
    let whole = reports.iter().all(|log| log.report.problem.is_none());
    Ok(if whole { Exit::Ok } else { Exit::Problems })
}

/// A log and what was found in it.
struct Log {
    name: &'static str,
    dir: PathBuf,
    report: Report,
}

fn read(dir: &Path) -> anyhow::Result<[Log; 2]> {
    let [log, control] = LOGS.map(|name| {
        let dir = dir.join(name);
        let report = hookpool_fjall::verify(&dir, tenths(name))?;
        anyhow::Ok(Log { name, dir, report })
    });
    Ok([log?, control?])
}

/// Says each tenth of a long log once.
fn tenths(name: &'static str) -> impl FnMut(Progress) {
    let mut said = 0;
    move |Progress { position, head, .. }| {
        let tenth = position.0.saturating_mul(10) / head.0.max(1);
        if head.0 > QUIET_EVENTS && tenth > said {
            said = tenth;
            output::say(&format!("{name}: {} %", tenth * 10));
        }
    }
}

fn print(logs: &[Log]) -> anyhow::Result<()> {
    let header = [
        "LOG", "EVENTS", "BLOCKS", "BYTES", "HEAD", "EPOCH", "DIGEST", "RESULT",
    ];
    let row = |log: &Log| {
        let report = &log.report;
        let result = if report.problem.is_some() {
            "PROBLEM"
        } else {
            "ok"
        };
        [
            log.name.to_owned(),
            report.events.to_string(),
            report.blocks.to_string(),
            report.bytes.to_string(),
            report.head.to_string(),
            report.epoch.to_string(),
            // Enough to compare by eye; JSON has all of it.
            format!("{:?}", report.digest).chars().take(16).collect(),
            result.to_owned(),
        ]
    };
    output::table(header, logs.iter().map(row))?;
    logs.iter().try_for_each(explain)
}

/// What is wrong, and the way out.
fn explain(log: &Log) -> anyhow::Result<()> {
    let Some(problem) = &log.report.problem else {
        return Ok(());
    };
    let text = format!(
        "\n{}: intact up to position {}, then: {}",
        log.name, problem.after, problem.what
    );
    output::line(&output::printable(&text))?;
    let Some(accept) = &log.report.accept else {
        return Ok(());
    };
    output::line(&format!(
        "To give up what is lost and go on with the log as it is:\n  echo '{accept}' > {}",
        output::printable(&log.dir.join("accept").display().to_string())
    ))
}

#[derive(Serialize)]
struct Verified<'a> {
    log: VerifiedLog<'a>,
    control: VerifiedLog<'a>,
}

#[derive(Serialize)]
struct VerifiedLog<'a> {
    events: u64,
    blocks: u64,
    bytes: u64,
    head: u64,
    epoch: String,
    digest: String,
    ok: bool,
    problem: Option<&'a str>,
    accept: Option<&'a str>,
}

impl<'a> From<&'a Log> for VerifiedLog<'a> {
    fn from(log: &'a Log) -> Self {
        let report = &log.report;
        Self {
            events: report.events,
            blocks: report.blocks,
            bytes: report.bytes,
            head: report.head.0,
            epoch: report.epoch.to_string(),
            digest: format!("{:?}", report.digest),
            ok: report.problem.is_none(),
            problem: report.problem.as_ref().map(|problem| problem.what.as_str()),
            accept: report.accept.as_deref(),
        }
    }
}
