//! `hookpool send` and `hookpool delete`: a producer at the command line.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hookpool_client::{Accepted, Producer, Rehearsal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cli::{DeleteArgs, Globals, ProducerKeys, SendArgs},
    exit::Exit,
    output,
};

pub(crate) async fn run(args: SendArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut producer = producer(&args.stream, &args.keys, globals)?;
    if let Some(name) = &args.id_field {
        producer = producer.id_field(name);
    }
    let bodies = bodies(&args.file)?;
    ensure!(
        !bodies.is_empty(),
        "{} has no event: it is one JSON object a line",
        args.file.display()
    );
    if args.dry_run {
        return rehearse(&producer, bodies, args.output.is_json()).await;
    }
    let mut pace = args.rate.map(|rate| {
        let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    });
    let mut sent = Sent::new();
    let total = args.count.saturating_mul(bodies.len() as u64);
    let repeated = (0..args.count).flat_map(|_| &bodies);
    let mut outcome = Ok(());
    for (nth, body) in (1..).zip(repeated) {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let before = Instant::now();
        let delivered = match &args.idempotency_key {
            None => producer.send(body.clone()).await,
            Some(key) if total == 1 => producer.send_as(key, body.clone()).await,
            Some(key) => {
                producer
                    .send_as(&format!("{key}-{nth}"), body.clone())
                    .await
            }
        };
        match delivered {
            Ok(accepted) => {
                sent.count(&accepted, before.elapsed());
                output::unless_closed(print(&accepted, args.output.is_json()))?;
            }
            Err(error) => {
                outcome = Err(error).with_context(|| match total {
                    1 => "sending the event".to_owned(),
                    _ => format!("sending event {nth} of {total}"),
                });
                break;
            }
        }
    }
    if total != 1 && !sent.latencies.is_empty() {
        sent.summarize();
    }
    outcome.map(|()| Exit::Ok)
}

/// Says what would happen to each body; one that would go to quarantine is a failure.
async fn rehearse(producer: &Producer, bodies: Vec<Bytes>, is_json: bool) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for body in bodies {
        let rehearsal = producer.dry_run(body).await.context("asking")?;
        if rehearsal.quarantine.is_some() {
            exit = Exit::Failure;
        }
        if is_json {
            output::json(&rehearsal)?;
        } else {
            output::line(&output::printable_line(&told(&rehearsal)?))?;
        }
    }
    Ok(exit)
}

fn told(rehearsal: &Rehearsal) -> anyhow::Result<String> {
    Ok(match (&rehearsal.changes, &rehearsal.quarantine) {
        (Some(changes), _) => {
            let id = changes.item_id.as_deref().unwrap_or("(generated)");
            let (set, unset) = (&changes.set, &changes.unset);
            let mut line = format!("would set  item {id}  {}", serde_json::to_string(set)?);
            if !unset.is_empty() {
                line.push_str(&format!("  and take away {}", unset.join(", ")));
            }
            line
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or_default();
            format!("would go to quarantine: {reason}")
        }
    })
}

/// `hookpool delete`
pub(crate) async fn delete(args: DeleteArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let producer = producer(&args.stream, &args.keys, globals)?;
    let deleted = match &args.idempotency_key {
        None => producer.delete(&args.id).await,
        Some(key) => producer.delete_as(key, &args.id).await,
    };
    let deleted = deleted.context("deleting the item")?;
    if args.output.is_json() {
        output::json(&deleted)?;
        return Ok(Exit::Ok);
    }
    let (position, id) = (deleted.position, &deleted.item_id);
    let mut line = format!("deleted  position {position}  item {id}");
    if deleted.replayed {
        line.push_str("  (a repeat, not recorded again)");
    }
    output::line(&output::printable_line(&line))?;
    Ok(Exit::Ok)
}

/// Who sends, as its keys say.
pub(super) fn producer(
    stream: &str,
    args: &ProducerKeys,
    globals: &Globals,
) -> anyhow::Result<Producer> {
    let key = args.ingest_key.0.clone();
    let mut producer = Producer::new(globals.server()?, stream, key);
    // An empty variable is as good as none: scripts set it for connectors without a signing key.
    if let Some(key) = args
        .signing_key
        .as_ref()
        .filter(|key| !key.0.expose().is_empty())
    {
        producer = producer
            .signing_key(key.0.clone())
            .scheme(args.scheme.clone());
    }
    Ok(producer)
}

fn bodies(file: &Path) -> anyhow::Result<Vec<Bytes>> {
    if file == Path::new("-") {
        if io::stdin().is_terminal() {
            output::say("reading one JSON object from standard input; Ctrl-D ends it");
        }
        let mut body = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut body)
            .context("reading standard input")?;
        return Ok(vec![body.into()]);
    }
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    if file
        .extension()
        .is_some_and(|extension| extension == "ndjson")
    {
        Ok(lines(&bytes.into()))
    } else {
        Ok(vec![bytes.into()])
    }
}

/// The lines that hold something, without their ends.
fn lines(bytes: &Bytes) -> Vec<Bytes> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| bytes.slice_ref(line))
        .collect()
}

fn print(accepted: &Accepted, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return output::json(accepted);
    }
    let Accepted {
        item_id,
        fields_updated,
        position,
        ..
    } = accepted;
    let mut line =
        format!("accepted  position {position}  item {item_id}  fields {fields_updated}");
    if accepted.replayed {
        line.push_str("  (a repeat, not recorded again)");
    }
    for notice in &accepted.notices {
        line.push_str(&format!("  ({notice})"));
    }
    output::line(&output::printable_line(&line))
}

/// What is told at the end.
struct Sent {
    started: Instant,
    latencies: Vec<Duration>,
    replayed: u64,
}

impl Sent {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            latencies: Vec::new(),
            replayed: 0,
        }
    }

    fn count(&mut self, accepted: &Accepted, latency: Duration) {
        self.latencies.push(latency);
        self.replayed += u64::from(accepted.replayed);
    }

    fn summarize(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.latencies.sort_unstable();
        let count = self.latencies.len();
        let at = |part: usize| {
            self.latencies
                .get(count * part / 100)
                .copied()
                .unwrap_or_default()
        };
        output::say(&format!(
            "{count} accepted in {seconds:.1} s, {:.0} a second; an answer took {:.1?} (median), {:.1?} (99th percentile)",
            count as f64 / seconds.max(f64::EPSILON),
            at(50),
            at(99),
        ));
        if self.replayed > 0 {
            output::say(&format!(
                "{} of them were repeats and not recorded again: their idempotency key was used before, or equal bodies were signed within one second, \
                 which are one delivery unless the connector was made with --replay allow",
                self.replayed
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_holds_something_is_a_body_as_it_is() {
        let bytes = Bytes::from_static(b"{\"a\": 1} \r\n\n  \n{\"b\":2}");
        assert_eq!(lines(&bytes), [&b"{\"a\": 1} "[..], b"{\"b\":2}"]);
    }
}
