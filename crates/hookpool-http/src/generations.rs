//! `/api/admin/streams/{s}`: projections, rebuilds, their differences, and which generation is served; what else there is of a stream is handed on. Under an
//! operator key.

mod check;
mod lines;
mod progress;
mod status;

use std::{sync::Arc, time::Duration};

use bytes::Buf;
use futures_util::Stream;
use hookpool_core::{
    control::ControlChange,
    fold::Note,
    key::KeyId,
    name::StreamName,
    plan::{Plan, PlanError},
    position::{Generation, Position},
    projection::{Projection, Rules},
    registry::Registry,
    verify::Header,
};
use hookpool_engine::{compare::Comparison, follow::blocking};
use hookpool_store::{EventLog, PoolError, PoolSnapshot, PoolStore};
use serde::Deserialize;
use serde_json::{Value, json};
use warp::{
    Reply,
    http::{Method, StatusCode, header},
    reply::Response,
};

use crate::{
    admin::{created, must_be_object, operator, parse_or_default},
    app::{App, Request, set},
    problem::{Code, Problem},
    query::Query,
    render::json_response,
    retention,
    route::{GenerationsRoute, RebuildAct},
};

/// How long a change of plans may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RebuildBody {
    /// Rules that become the newest projection first.
    projection: Option<Rules>,
    /// Or a version that is there; the newest if neither is given.
    version: Option<u32>,
    events_per_second: Option<u32>,
}

/// Operates on one stream, for whoever holds an operator key.
pub(crate) async fn handle<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    route: GenerationsRoute<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let (author, body) = operator(app, request, body).await?;
    if !app.engine.control().registry().has_stream(stream) {
        return Err(Code::NotFound.into());
    }
    let stream = StreamName::new(stream).map_err(|_| Code::NotFound)?;
    let of = OfStream {
        app,
        author,
        request,
        stream,
    };
    let read = matches!(request.method, Method::GET | Method::HEAD);
    match route {
        GenerationsRoute::Projection if read => of.projection(),
        GenerationsRoute::Projection => of.set_projection(&body).await,
        GenerationsRoute::Rebuilds if read => of.rebuilds(),
        GenerationsRoute::Rebuilds => of.start(parse_or_default(&body)?).await,
        GenerationsRoute::Rebuild { id } => of.rebuild(id),
        GenerationsRoute::Diff { id } => of.diff(id),
        GenerationsRoute::Act { id, act } => of.act(id, act).await,
        GenerationsRoute::Rollback => of.roll_back().await,
        GenerationsRoute::Release => of.release().await,
        GenerationsRoute::Quarantine => of.quarantine().await,
        GenerationsRoute::Retention if read => {
            Query::of(request)?;
            Ok(retention::show(app, &of.stream))
        }
        GenerationsRoute::Retention if request.method == Method::DELETE => {
            Query::of(request)?;
            retention::clear(app, &of.author, of.stream).await
        }
        GenerationsRoute::Retention => {
            let body = parse_or_default(&body)?;
            retention::set(app, request, &of.author, of.stream, body).await
        }
    }
}

struct OfStream<'a, L, P: PoolStore> {
    app: &'a Arc<App<L, P>>,
    author: KeyId,
    request: &'a Request,
    stream: StreamName,
}

impl<L: EventLog, P: PoolStore> OfStream<'_, L, P> {
    fn plan(&self) -> Arc<Plan> {
        self.app
            .engine
            .control()
            .registry()
            .plan(self.stream.as_str())
    }

    /// A rebuild by its number, or `current`.
    fn numbered(&self, id: &str) -> Result<Generation, Problem> {
        match id {
            "current" => {
                let plan = self.plan();
                let current = plan.next.as_ref().map(|next| next.made.generation);
                let last = plan.ended.last().map(|ended| ended.generation);
                current.or(last).ok_or_else(|| Code::NotFound.into())
            }
            id => id
                .parse()
                .map(Generation)
                .map_err(|_| Code::NotFound.into()),
        }
    }

    fn projection(&self) -> Result<Response, Problem> {
        let query = Query::of(self.request)?;
        let plan = self.plan();
        let version = query.number("version", 0..=u64::from(u32::MAX))?;
        let projection = match version.and_then(|version| u32::try_from(version).ok()) {
            Some(version) => plan.projection(version).ok_or(Code::NotFound)?,
            None => plan.newest(),
        };
        Ok(self.projection_response(&projection))
    }

    fn projection_response(&self, projection: &Projection) -> Response {
        let answer = json!({
            "stream": self.stream.as_str(),
            "version": projection.version,
            "live": self.plan().live.projection.version,
            "projection": projection.rules(),
        });
        let mut response = json_response(answer.to_string());
        let etag = format!("\"{}\"", self.plan().newest().version);
        set(&mut response, header::ETAG, &etag);
        response
    }

    async fn set_projection(&self, body: &[u8]) -> Result<Response, Problem> {
        let query = Query::of(self.request)?;
        let rules: Rules = parse_rules(body)?;
        let item = query.text("item")?;
        match (query.text("check")?.as_deref(), item) {
            (None, None) => {}
            (Some("true"), None) => return self.checked(rules),
            (Some("history"), None) => return self.check_history(rules).await,
            (Some("item"), Some(id)) => return self.check_item(rules, id).await,
            _ => {
                let known = "check is true, history, or item with the id as item";
                return Err(Problem::with(Code::InvalidParameter, known));
            }
        }
        let expected = if_match(self.request)?.filter(|expected| expected != "*");
        let tag = |plan: &Plan| format!("\"{}\"", plan.newest().version);
        let as_expected = |plan: &Plan| expected.is_none_or(|expected| expected == tag(plan));
        let Some(projection) = self.set_rules(rules, as_expected).await? else {
            let detail = format!("the newest version is {}", tag(&self.plan()));
            return Err(Problem::with(Code::PreconditionFailed, detail));
        };
        let mut response = self.projection_response(&projection);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }

    /// Makes rules the newest projection of the stream, if its plan is as expected when they are recorded; answers with that projection.
    async fn set_rules(
        &self,
        rules: Rules,
        as_expected: impl FnOnce(&Plan) -> bool + Send,
    ) -> Result<Option<Arc<Projection>>, Problem> {
        let stream = self.stream.as_str();
        let mut version = 0;
        let holds = |registry: &Registry| {
            let plan = registry.plan(stream);
            version = plan.newest().version + 1;
            as_expected(&plan)
        };
        let change = ControlChange::ProjectionSet {
            stream: self.stream.clone(),
            rules,
        };
        let control = self.app.engine.control();
        let recorded = control.change_if(&self.author, stream, change, holds);
        let recorded = recorded.await?;
        Ok(self.plan().projection(version).filter(|_| recorded))
    }

    fn rebuilds(&self) -> Result<Response, Problem> {
        Query::of(self.request)?;
        let rows = status::rows(self.app, &self.stream)?;
        Ok(json_response(json!({ "rebuilds": rows }).to_string()))
    }

    async fn start(&self, body: RebuildBody) -> Result<Response, Problem> {
        Query::of(self.request)?;
        if body.events_per_second == Some(0) {
            let detail = "eventsPerSecond is at least 1; pause the rebuild to stop it";
            return Err(Problem::with(Code::InvalidPayload, detail));
        }
        if body.projection.is_some() && body.version.is_some() {
            let detail = "projection and version exclude each other";
            return Err(Problem::with(Code::InvalidPayload, detail));
        }
        self.must_be_idle()?;
        let mut version = body.version;
        if let Some(rules) = body.projection {
            let set = self.set_rules(rules, |plan| plan.next.is_none()).await?;
            let Some(projection) = set else {
                self.must_be_idle()?;
                // It was there for a moment.
                return Err(Code::Conflict.into());
            };
            version = Some(projection.version);
        }
        let plan = self.plan();
        self.record(ControlChange::RebuildStarted {
            stream: self.stream.clone(),
            generation: plan.next_generation(),
            projection: version.unwrap_or_else(|| plan.newest().version),
            events_per_second: body.events_per_second,
        })
        .await?;
        Ok(created(&self.rebuild_json(plan.next_generation())?))
    }

    /// That no rebuild of the stream is there.
    fn must_be_idle(&self) -> Result<(), Problem> {
        let plan = self.plan();
        let Some(next) = &plan.next else {
            return Ok(());
        };
        let number = next.made.generation;
        let detail = format!("rebuild {number} is not promoted or cancelled yet");
        Err(Problem::with(Code::Conflict, detail))
    }

    /// As JSON, or as events of progress.
    fn rebuild(&self, id: &str) -> Result<Response, Problem> {
        Query::of(self.request)?;
        let generation = self.numbered(id)?;
        let json = self.rebuild_json(generation)?;
        if self
            .request
            .best_of(&["application/json", "text/event-stream"])
            == Some(1)
        {
            return Ok(self.progress(generation));
        }
        Ok(json_response(json.to_string()))
    }

    fn rebuild_json(&self, generation: Generation) -> Result<Value, Problem> {
        status::row(self.app, &self.stream, generation)?.ok_or_else(|| Code::NotFound.into())
    }

    /// The whole difference, as lines of JSON from one view of the pool.
    fn diff(&self, id: &str) -> Result<Response, Problem> {
        let query = Query::of(self.request)?;
        let limit = query.number("limit", 1..=u64::MAX)?.unwrap_or(u64::MAX);
        let generation = self.numbered(id)?;
        let plan = self.plan();
        let rebuild = plan.next.as_ref();
        let rebuild = rebuild.filter(|next| next.made.generation == generation);
        rebuild.ok_or(Code::NotFound)?;
        let pool = self.app.engine.pool();
        let state = pool.generation(&self.stream, generation)?;
        let difference = state
            .as_ref()
            .and_then(status::whole)
            .ok_or(Code::NotReady)?;
        let digest = difference.digest();
        // Of this view: a plan that was just recorded is not in force in it yet.
        let served = self.app.engine.served(&pool, &self.stream)?.generation;
        let comparison = Comparison::new(pool, self.stream.clone(), served, generation);
        let lines = lines::lines(Arc::clone(self.app), self.author.clone(), comparison, limit);
        let mut response = warp::reply::stream(lines).into_response();
        set(&mut response, header::CONTENT_TYPE, "application/x-ndjson");
        set(&mut response, header::ETAG, &format!("\"{digest}\""));
        Ok(response)
    }

    async fn act(&self, id: &str, act: RebuildAct) -> Result<Response, Problem> {
        Query::of(self.request)?;
        let generation = self.numbered(id)?;
        let plan = self.plan();
        if let Some(ended) = plan
            .ended
            .iter()
            .find(|ended| ended.generation == generation)
        {
            let detail = format!(
                "rebuild {generation} is {} already",
                status::word(ended.outcome)
            );
            return Err(Problem::with(Code::Conflict, detail));
        }
        let stream = self.stream.clone();
        match act {
            RebuildAct::Promote => return self.promote(generation).await,
            RebuildAct::Cancel => {
                self.record(ControlChange::RebuildCancelled { stream, generation })
                    .await?;
            }
            RebuildAct::Pause | RebuildAct::Resume => {
                let paused = act == RebuildAct::Pause;
                self.record(ControlChange::RebuildPaused {
                    stream,
                    generation,
                    paused,
                })
                .await?;
            }
        }
        Ok(json_response(self.rebuild_json(generation)?.to_string()))
    }

    /// `If-Match` names the difference that was looked at; `*` takes whatever it is by now.
    async fn promote(&self, generation: Generation) -> Result<Response, Problem> {
        let plan = self.plan();
        if plan
            .next
            .as_ref()
            .is_none_or(|next| next.made.generation != generation)
        {
            return Err(PlanError::NotRunning(generation).into());
        }
        let required = "If-Match: \"<digest of the difference>\", or * for whatever it is by now";
        let expected = if_match(self.request)?
            .ok_or_else(|| Problem::with(Code::PreconditionRequired, required))?;
        let expected = match expected.as_str() {
            "*" => None,
            quoted => Some(quoted.trim_matches('"').to_owned()),
        };
        let promoted =
            self.app
                .engine
                .promote(&self.author, self.stream.clone(), generation, expected);
        promoted.await?;
        Ok(json_response(self.rebuild_json(generation)?.to_string()))
    }

    async fn roll_back(&self) -> Result<Response, Problem> {
        Query::of(self.request)?;
        let stream = self.stream.clone();
        self.record(ControlChange::GenerationRolledBack { stream })
            .await?;
        self.served().await
    }

    async fn release(&self) -> Result<Response, Problem> {
        Query::of(self.request)?;
        let stream = self.stream.clone();
        self.record(ControlChange::GenerationReleased { stream })
            .await?;
        self.served().await
    }

    /// What is served, once readers see it.
    async fn served(&self) -> Result<Response, Problem> {
        if !self.app.engine.wait_planned(PATIENCE).await {
            return Err(Code::Unavailable.into());
        }
        let plan = self.plan();
        let answer = json!({
            "stream": self.stream.as_str(),
            "generation": plan.live.generation,
            "projection": plan.live.projection.version,
            "previous": plan.previous.as_ref().map(|previous| previous.generation),
        });
        Ok(json_response(answer.to_string()))
    }

    async fn record(&self, change: ControlChange) -> Result<(), Problem> {
        let control = self.app.engine.control();
        Ok(control
            .change(&self.author, self.stream.as_str(), change)
            .await?)
    }

    /// Events that fit the projection not at all, of the served generation or another.
    async fn quarantine(&self) -> Result<Response, Problem> {
        let query = Query::of(self.request)?;
        let generation = query.number("generation", 1..=u64::from(u32::MAX))?;
        let generation = generation.and_then(|number| u32::try_from(number).ok());
        let after = Position(query.number("after", 0..=u64::MAX - 1)?.unwrap_or(0));
        let limit =
            usize::try_from(query.number("limit", 1..=1_000)?.unwrap_or(100)).unwrap_or(1_000);
        let (app, stream) = (Arc::clone(self.app), self.stream.clone());
        let read = move || -> Result<_, PoolError> {
            let pool = app.engine.pool();
            let generation = match generation {
                Some(number) => Generation(number),
                None => app.engine.served(&pool, &stream)?.generation,
            };
            let notes = pool.quarantined(&stream, generation, after, limit + 1)?;
            let state = pool.generation(&stream, generation)?;
            Ok((generation, state, notes))
        };
        let (generation, state, mut notes) = blocking(read).await?;
        let more = notes.len() > limit;
        notes.truncate(limit);
        let next = notes.last().filter(|_| more).map(|(position, _)| *position);
        let row = |(position, note): &(Position, Note)| {
            let reason = match note {
                Note::Quarantined(unfit) => Some(unfit.to_string()),
                Note::Superseded | Note::Absent | Note::Adjusted { .. } => None,
            };
            json!({ "position": position, "reason": reason })
        };
        let answer = json!({
            "stream": self.stream.as_str(),
            "generation": generation,
            "total": state.map_or(0, |state| state.quarantined),
            "events": notes.iter().map(row).collect::<Vec<_>>(),
            "next": next,
        });
        Ok(json_response(answer.to_string()))
    }
}

/// Rules that can be followed.
fn ready(rules: Rules) -> Result<Projection, Problem> {
    Projection::new(0, rules)
        .map_err(|error| Problem::with(Code::InvalidPayload, error.to_string()))
}

/// An operator's rules hold no secret, so the message may say what is wrong with them.
fn parse_rules(body: &[u8]) -> Result<Rules, Problem> {
    must_be_object(body)?;
    let rules: Rules = serde_json::from_slice(body)
        .map_err(|error| Problem::with(Code::InvalidPayload, error.to_string()))?;
    ready(rules.clone())?;
    Ok(rules)
}

/// `If-Match` as sent: one entity tag, or `*`.
fn if_match(request: &Request) -> Result<Option<String>, Problem> {
    match request.header(header::IF_MATCH) {
        Header::Absent => Ok(None),
        Header::One(value) => Ok(Some(String::from_utf8_lossy(value).trim().to_owned())),
        Header::Repeated => Err(Problem::with(
            Code::InvalidParameter,
            "If-Match is sent twice",
        )),
    }
}
