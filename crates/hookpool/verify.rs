//! Reads a data folder from end to end and proves that nothing is missing or changed.

mod export;

use std::path::{Path, PathBuf};

use anyhow::Context;
use hookpool_core::{
    codec::Digest,
    position::{Epoch, Position},
};
use hookpool_fjall::{OpenError, Problem, Report};
use serde::Serialize;

use crate::{
    cli::VerifyArgs,
    config::Settings,
    exit::Exit,
    output::{self, Output},
    progress::Progress,
    proof::{History, Kept, Verdict},
};

/// The logs of a data folder; the pool is derived from them.
const LOGS: [&str; 2] = ["log", "control"];

pub(crate) async fn run(args: VerifyArgs, settings: Settings) -> anyhow::Result<Exit> {
    let kept = args.head.as_deref();
    let kept = kept.map(|file| Kept::read(file, args.public_key));
    let kept = kept.transpose()?;
    let output = args.output.output;
    let verify = move || match args.export {
        Some(file) => export::run(&file, kept.as_ref(), output),
        None => folder(&settings.data_dir, kept.as_ref(), output),
    };
    tokio::task::spawn_blocking(verify)
        .await
        .context("verifying")?
}

fn folder(dir: &Path, kept: Option<&Kept>, output: Output) -> anyhow::Result<Exit> {
    let (log, control) = read(dir, kept)?;
    let problem = kept.and_then(|kept| {
        kept.problem(History {
            epoch: log.report.epoch,
            end: log.report.head,
            digest: log.at_head,
        })
    });
    match output {
        Output::Pretty => {
            print([Some(&log), control.as_ref()])?;
            kept.map_or(Ok(()), |kept| kept.explain(problem.as_deref()))?;
        }
        Output::Json => output::json(&Verified {
            log: (&log).into(),
            control: control.as_ref().map(Into::into),
            head: kept.map(|kept| Verdict::new(kept, problem.clone())),
        })?,
    }
    let mut logs = [Some(&log), control.as_ref()].into_iter().flatten();
    let whole = logs.all(|log| log.report.problem.is_none());
    Ok(if whole && problem.is_none() {
        Exit::Ok
    } else {
        Exit::Problems
    })
}

/// A log and what was found in it.
struct Log {
    name: &'static str,
    dir: PathBuf,
    report: Report,
    /// Of the block that ends where a head is.
    at_head: Option<Digest>,
}

/// The log, and the control log if there is one or should be.
fn read(dir: &Path, kept: Option<&Kept>) -> anyhow::Result<(Log, Option<Log>)> {
    let [log, control] = LOGS.map(|name| read_log(dir, name, kept));
    match (log, control) {
        (Ok(log), Ok(control)) => Ok((log, Some(control))),
        (Ok(log), Err(OpenError::Missing { .. })) => {
            // An import makes no control log, and the first start does; only that makes a pool.
            let served = dir.join("pool").exists();
            let lost = "there is no control log here any more, so connectors, keys and rules are missing; restore both logs from a backup taken together";
            Ok((log, served.then(|| missing(dir, LOGS[1], lost))))
        }
        (Err(OpenError::Missing { .. }), Ok(control)) => {
            let lost = "there is no log here, but a control log that belongs to one; restore both from a backup taken together";
            Ok((missing(dir, LOGS[0], lost), Some(control)))
        }
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

fn read_log(dir: &Path, name: &'static str, kept: Option<&Kept>) -> Result<Log, OpenError> {
    let dir = dir.join(name);
    let head = kept.map(|kept| kept.head.position);
    let mut progress = Progress::new(name);
    let mut at_head = (head == Some(Position::ZERO)).then(Digest::default);
    let report = hookpool_fjall::verify(&dir, |at| {
        if head == Some(at.position) {
            at_head = Some(at.digest);
        }
        progress.at(at.position.0, at.head.0);
    })?;
    Ok(Log {
        name,
        dir,
        report,
        at_head,
    })
}

/// A log of which nothing is left.
fn missing(dir: &Path, name: &'static str, what: &str) -> Log {
    let dir = dir.join(name);
    let what = format!("open {}: {what}", dir.display());
    let problem = Some(Problem {
        after: Position::ZERO,
        what,
    });
    Log {
        name,
        dir,
        report: Report {
            events: 0,
            blocks: 0,
            thinned: 0,
            dropped: 0,
            bytes: 0,
            head: Position::ZERO,
            epoch: Epoch(0),
            digest: Digest::default(),
            problem,
            accept: None,
        },
        at_head: None,
    }
}

fn print(logs: [Option<&Log>; 2]) -> anyhow::Result<()> {
    let header = [
        "LOG", "EVENTS", "DROPPED", "BLOCKS", "THINNED", "BYTES", "HEAD", "EPOCH", "DIGEST",
        "RESULT",
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
            report.dropped.to_string(),
            report.blocks.to_string(),
            report.thinned.to_string(),
            report.bytes.to_string(),
            report.head.to_string(),
            report.epoch.to_string(),
            // Enough to compare by eye; JSON has all of it.
            report.digest.to_string().chars().take(16).collect(),
            result.to_owned(),
        ]
    };
    output::table(header, logs.into_iter().flatten().map(row))?;
    if logs.iter().any(Option::is_none) {
        output::say("there is no control log, as after an import: the first start makes one");
    }
    logs.into_iter().flatten().try_for_each(explain)
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
    /// `null` after an import.
    control: Option<VerifiedLog<'a>>,
    head: Option<Verdict>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedLog<'a> {
    events: u64,
    dropped: u64,
    blocks: u64,
    thinned: u64,
    bytes: u64,
    head: u64,
    epoch: String,
    digest: String,
    ok: bool,
    /// Where the problem is: everything up to here is intact.
    intact_up_to: u64,
    problem: Option<&'a str>,
    accept: Option<&'a str>,
}

impl<'a> From<&'a Log> for VerifiedLog<'a> {
    fn from(log: &'a Log) -> Self {
        let report = &log.report;
        Self {
            events: report.events,
            dropped: report.dropped,
            blocks: report.blocks,
            thinned: report.thinned,
            bytes: report.bytes,
            head: report.head.0,
            epoch: report.epoch.to_string(),
            digest: report.digest.to_string(),
            ok: report.problem.is_none(),
            intact_up_to: report
                .problem
                .as_ref()
                .map_or(report.head, |problem| problem.after)
                .0,
            problem: report.problem.as_ref().map(|problem| problem.what.as_str()),
            accept: report.accept.as_deref(),
        }
    }
}
