//! `hookpool rejections`: why deliveries were refused, and another try.

use hookpool_client::{
    Operator, Outcome, Rejection, RejectionPage, RejectionQuery, Retried, RetriedAll,
};

use crate::{
    cli::{Globals, OutputArgs, RejectionsCommand, RejectionsListArgs, RejectionsRetryArgs},
    exit::Exit,
    output,
    sought::Seek as _,
};

pub(crate) async fn run(command: RejectionsCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        RejectionsCommand::List(args) => list(args, &operator).await?,
        RejectionsCommand::Show(args) => {
            let rejection = operator.rejection(&args.id).await;
            print(&rejection.sought(named(&args.id), KEPT)?, &args.output)?;
        }
        RejectionsCommand::Retry(args) => return retry(&args, &operator).await,
    }
    Ok(Exit::Ok)
}

/// Where to look for one that is not there.
const KEPT: &str = "`hookpool rejections list` shows those that are kept";

fn named(id: &str) -> String {
    format!("rejection {id}")
}

async fn list(args: RejectionsListArgs, operator: &Operator) -> anyhow::Result<()> {
    let query = RejectionQuery {
        connector: args.connector,
        reason: args.reason,
        after: args.after,
        limit: Some(args.limit),
    };
    let page = operator.rejections(&query).await?;
    if args.output.is_json() {
        return output::json(&page);
    }
    let RejectionPage { rejections, next } = page;
    let row = |rejection: Rejection| {
        let state = state(&rejection);
        [
            rejection.id,
            rejection.time,
            output::or_dash(rejection.connector),
            output::or_dash(rejection.address),
            rejection.reason,
            state,
            rejection.diagnosis.unwrap_or_default(),
        ]
    };
    output::table(
        [
            "id",
            "time",
            "connector",
            "address",
            "reason",
            "body",
            "diagnosis",
        ],
        rejections.into_iter().map(row),
    )?;
    if let Some(next) = next {
        output::say(&format!("there is more: --after {next}"));
    }
    Ok(())
}

/// What has to be known of one that its sender does not name.
const NAMELESS: &str = "it has no delivery id and no Idempotency-Key: where the same content was accepted since, it is taken only with --force, \
                        and a sender that changed it when it sent it again is not recognised";

/// Whether it can be tried again, in a word.
fn state(rejection: &Rejection) -> String {
    match &rejection.not_kept {
        None if rejection.kept => "kept".to_owned(),
        None => "-".to_owned(),
        Some(not_kept) => not_kept.reason.clone(),
    }
}

/// The same, and what can be done.
fn retry_of(rejection: &Rejection) -> String {
    match &rejection.not_kept {
        None if rejection.kept => {
            let command = format!("hookpool rejections retry {}", rejection.id);
            match rejection.known_by.as_deref() {
                Some("content") => format!("{command}; {NAMELESS}"),
                _ => command,
            }
        }
        None => "-".to_owned(),
        Some(not_kept) => format!("not possible: {}", not_kept.detail),
    }
}

fn print(rejection: &Rejection, args: &OutputArgs) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(rejection);
    }
    let headers = rejection.headers.iter();
    let headers: Vec<_> = headers
        .map(|header| format!("{} ({})", header.name, header.bytes))
        .collect();
    let retried = rejection.retried.as_ref();
    let retried = retried.map(|to| {
        let Retried {
            position,
            events,
            time,
        } = to;
        match events {
            1 => format!("position {position} at {time}"),
            _ => format!("{events} events up to position {position} at {time}"),
        }
    });
    let or_dash = |text: &Option<String>| output::or_dash(text.as_ref());
    output::facts([
        ("id", rejection.id.clone()),
        ("time", rejection.time.clone()),
        ("reason", rejection.reason.clone()),
        ("diagnosis", or_dash(&rejection.diagnosis)),
        ("answered", rejection.status.to_string()),
        ("way", rejection.way.clone()),
        ("connector", or_dash(&rejection.connector)),
        ("stream", or_dash(&rejection.stream)),
        ("key id", or_dash(&rejection.key_id)),
        ("address", or_dash(&rejection.address)),
        ("body bytes", rejection.body_bytes.to_string()),
        ("headers", headers.join(", ")),
        ("body", state(rejection)),
        ("another try", retry_of(rejection)),
        ("taken", output::or_dash(retried)),
    ])
}

async fn retry(args: &RejectionsRetryArgs, operator: &Operator) -> anyhow::Result<Exit> {
    let outcomes = match (&args.id, &args.connector) {
        (Some(id), _) => {
            let outcome = operator.retry_rejection(id, args.force).await;
            let outcome = outcome.sought(named(id), KEPT)?;
            if args.output.is_json() {
                output::json(&outcome)?;
                return Ok(exit(&[outcome]));
            }
            vec![outcome]
        }
        (None, connector) => {
            // Clap asks for one of them.
            let connector = connector.as_deref().unwrap_or_default();
            let all = retry_all(connector, args.force, operator).await?;
            if args.output.is_json() {
                output::json(&all)?;
                return Ok(exit(&all.rejections));
            }
            all.rejections
        }
    };
    let row = |outcome: &Outcome| {
        [
            outcome.id.clone(),
            outcome.outcome.clone(),
            output::or_dash(outcome.position),
            output::or_dash(outcome.events),
            output::or_dash(outcome.item_id.as_ref()),
            output::or_dash(outcome.code.as_ref()),
            diagnosis(outcome),
        ]
    };
    output::table(
        [
            "id",
            "outcome",
            "position",
            "events",
            "item",
            "code",
            "diagnosis",
        ],
        outcomes.iter().map(row),
    )?;
    let doubtful = outcomes.iter().filter(|it| it.outcome == "doubtful");
    if doubtful.count() > 0 {
        output::say(
            "what is doubtful may be there already: compare it with the position; --force takes it anyway",
        );
    }
    Ok(exit(&outcomes))
}

/// Asks until none is left that was not tried.
async fn retry_all(
    connector: &str,
    force: bool,
    operator: &Operator,
) -> anyhow::Result<RetriedAll> {
    let mut all = RetriedAll::default();
    loop {
        let after = all.next.as_deref();
        let some = operator.retry_rejections(connector, after, force).await?;
        all.accepted += some.accepted;
        all.refused += some.refused;
        all.doubtful += some.doubtful;
        all.rejections.extend(some.rejections);
        all.next = some.next;
        if all.next.is_none() {
            return Ok(all);
        }
        output::say(&format!(
            "{} were tried, there are more",
            all.rejections.len()
        ));
    }
}

fn diagnosis(outcome: &Outcome) -> String {
    let diagnosis = outcome.diagnosis.clone().unwrap_or_default();
    match (outcome.line, outcome.item) {
        (Some(line), _) => format!("line {line}: {diagnosis}"),
        (_, Some(item)) => format!("item {item}: {diagnosis}"),
        (None, None) => diagnosis,
    }
}

fn exit(outcomes: &[Outcome]) -> Exit {
    let all_taken = outcomes.iter().all(|it| it.outcome == "accepted");
    if all_taken { Exit::Ok } else { Exit::Failure }
}
