//! `/api/admin/rejections`: why deliveries were refused, and another try for those that were kept.

use std::sync::Arc;

use hookpool_core::{
    bulk::BulkError,
    diagnosis::Finding,
    event::RequestId,
    name::ItemId,
    position::Position,
    rejection::{Reason, Rejection, Unkept},
    verify::VerifyError,
};
use hookpool_engine::{
    AcceptError,
    rejections::{Filter, Retaken, RetryError, RetryTerms},
};
use hookpool_store::{EventLog, PoolStore};
use serde_json::{Value, json};
use warp::reply::Response;

use crate::{
    app::App,
    problem::{Code, Problem},
    query::Query,
    render::json_response,
};

const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;
/// Tried again by one call.
const RETRIED_MAX: usize = 1_000;

/// A page of them, the newest first.
pub(crate) fn list<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    query: &Query<'_>,
) -> Result<Response, Problem> {
    let invalid = |what: &str| Problem::with(Code::InvalidParameter, what.to_owned());
    let reason = query.text("reason")?.map(|word| {
        Reason::parse(&word).ok_or_else(|| invalid("reason is none of those in the documentation"))
    });
    let filter = Filter {
        connector: query.text("connector")?,
        reason: reason.transpose()?,
        waiting: false,
    };
    let after = after(query)?;
    let limit = query.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (page, more) = app.engine.rejections().list(&filter, after, limit);
    let next = page.last().filter(|_| more).map(|last| last.id.to_string());
    let page: Vec<_> = page
        .iter()
        .map(|rejection| rejection_json(rejection))
        .collect();
    Ok(json_response(
        json!({ "rejections": page, "next": next }).to_string(),
    ))
}

fn after(query: &Query<'_>) -> Result<Option<RequestId>, Problem> {
    let known = "after is the id of a rejection";
    let id = query.text("after")?.map(|id| {
        RequestId::parse(&id).ok_or_else(|| Problem::with(Code::InvalidParameter, known))
    });
    id.transpose()
}

/// One of them.
pub(crate) fn one<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    id: &str,
) -> Result<Response, Problem> {
    let id = RequestId::parse(id).ok_or(Code::NotFound)?;
    let rejection = app.engine.rejections().get(id).ok_or(Code::NotFound)?;
    Ok(json_response(rejection_json(&rejection).to_string()))
}

/// Tries one again.
pub(crate) async fn retry<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    id: &str,
    query: &Query<'_>,
) -> Result<Response, Problem> {
    let terms = terms(app, query)?;
    let id = RequestId::parse(id).ok_or(Code::NotFound)?;
    let outcome = match app.engine.retry(id, terms).await {
        Err(RetryError::Unknown) => return Err(Code::NotFound.into()),
        Err(RetryError::NotKept(unkept)) => {
            return Err(Problem::with(Code::Conflict, unkept.to_string()));
        }
        outcome => outcome,
    };
    Ok(json_response(outcome_json(id, outcome).to_string()))
}

/// Tries all of a connector again that wait for it, the oldest first.
pub(crate) async fn retry_all<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    query: &Query<'_>,
) -> Result<Response, Problem> {
    let (connector, terms) = (query.text("connector")?, terms(app, query)?);
    let after = after(query)?;
    let missing = || {
        Problem::with(
            Code::InvalidParameter,
            "connector says whose are tried again",
        )
    };
    let connector = connector.ok_or_else(missing)?;
    if app
        .engine
        .control()
        .registry()
        .connector(&connector)
        .is_none()
    {
        return Err(Code::NotFound.into());
    }
    let retrials = app.engine.retry_all(connector, after, terms, RETRIED_MAX);
    let (outcomes, more) = retrials.await.map_err(|error| problem(error).0)?;
    let next = outcomes.last().filter(|_| more);
    let next = next.map(|(id, _)| id.to_string());
    let (mut accepted, mut doubtful) = (0, 0);
    for (_, outcome) in &outcomes {
        match outcome {
            Ok(_) => accepted += 1,
            Err(RetryError::Doubtful(_)) => doubtful += 1,
            Err(_) => {}
        }
    }
    let refused = outcomes.len() - accepted - doubtful;
    let outcomes = outcomes.into_iter();
    let outcomes: Vec<_> = outcomes.map(|(id, it)| outcome_json(id, it)).collect();
    let answer = json!({ "accepted": accepted, "refused": refused, "doubtful": doubtful, "next": next, "rejections": outcomes });
    Ok(json_response(answer.to_string()))
}

fn terms<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    query: &Query<'_>,
) -> Result<RetryTerms, Problem> {
    Ok(RetryTerms {
        body_bytes_max: app.settings.body_bytes,
        bulk_bytes_max: app.settings.bulk_bytes,
        force: query.flag("force")?,
    })
}

fn rejection_json(rejection: &Rejection) -> Value {
    let headers = rejection.headers.iter();
    let headers = headers.map(|header| json!({ "name": header.name, "bytes": header.bytes }));
    let retried = rejection
        .retried
        .as_ref()
        .map(|retried| json!({ "time": retried.at.to_string(), "position": retried.position, "events": retried.events }));
    let unkept = |unkept: Unkept| json!({ "reason": unkept, "detail": unkept.to_string() });
    json!({
        "id": rejection.id.to_string(),
        "time": rejection.time.to_string(),
        "reason": rejection.reason,
        "status": rejection.status,
        "diagnosis": diagnosis(&rejection.findings),
        "findings": findings(&rejection.findings),
        "way": rejection.way,
        "stream": rejection.stream.as_ref().map(|stream| stream.as_str()),
        "connector": rejection.connector.as_ref().map(|name| name.as_str()),
        "keyId": rejection.key_id.as_ref().map(|id| id.as_str()),
        "address": rejection.address,
        "bodyBytes": rejection.body_bytes,
        "headers": headers.collect::<Vec<_>>(),
        "kept": rejection.kept,
        "notKept": rejection.unkept.map(unkept),
        "knownBy": rejection.known_by,
        "retried": retried,
    })
}

/// For people; `null` if there is nothing to say.
fn diagnosis(findings: &[Finding]) -> Option<String> {
    let sentences: Vec<_> = findings.iter().map(Finding::to_string).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// For programs.
fn findings(findings: &[Finding]) -> Value {
    json!(findings)
}

fn outcome_json(id: RequestId, outcome: Result<Retaken, RetryError>) -> Value {
    let id = id.to_string();
    match outcome {
        Ok(taken) => json!({
            "id": id,
            "outcome": "accepted",
            "position": taken.last,
            "events": taken.events,
            "itemId": taken.item_id.as_ref().map(ItemId::as_str),
            "replayed": taken.replayed,
        }),
        Err(RetryError::Doubtful(position)) => json!({
            "id": id,
            "outcome": "doubtful",
            "position": position,
            "diagnosis": doubt(position),
        }),
        Err(error) => {
            let (problem, found) = problem(error);
            let detail = problem.detail().map(ToOwned::to_owned);
            let mut json = json!({
                "id": id,
                "outcome": "refused",
                "code": problem.code().name(),
                "diagnosis": diagnosis(&found).or(detail),
                "findings": findings(&found),
            });
            if let Some((name, number)) = problem.place() {
                json[name] = number.into();
            }
            json
        }
    }
}

/// Why one that nothing names is not taken.
fn doubt(position: Option<Position>) -> String {
    let found = match position {
        Some(position) => format!("the same content was accepted at position {position}"),
        None => "more was accepted since than is searched for the same content".to_owned(),
    };
    format!(
        "it has neither a delivery id nor an Idempotency-Key, and {found}: it may be there already, and force takes it anyway"
    )
}

/// What the sender would be told now.
fn problem(error: RetryError) -> (Problem, Vec<Finding>) {
    let problem = match error {
        // It is told to operators alone.
        RetryError::Refused(AcceptError::Verify(VerifyError::Unauthorized), _) => {
            Problem::with(Code::Unauthorized, "its connector is switched off")
        }
        RetryError::Refused(AcceptError::Bulk(BulkError::Stream(_)), _) => Problem::with(
            Code::Unauthorized,
            "it names another stream than that of its connector",
        ),
        RetryError::Refused(error, findings) => return (error.into(), findings),
        RetryError::TooLarge => Code::PayloadTooLarge.into(),
        RetryError::Unknown => Code::NotFound.into(),
        RetryError::NotKept(unkept) => Problem::with(Code::Conflict, unkept.to_string()),
        RetryError::Doubtful(position) => Problem::with(Code::Conflict, doubt(position)),
        RetryError::Question => Problem::with(
            Code::Conflict,
            "it is no event but its sender's question whether the URL is the right one; it has to ask again",
        ),
        RetryError::IdField(error) => Problem::with(Code::InvalidParameter, error.to_string()),
        RetryError::Store(error) => {
            tracing::warn!(%error, "a kept delivery can't be read");
            Code::Internal.into()
        }
    };
    (problem, Vec::new())
}
