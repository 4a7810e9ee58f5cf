//! Rules that are only tried: by themselves, on the history of the stream, or on one item. Nothing is built or stored.

use std::collections::BTreeMap;

use hookpool_core::{
    difference::Difference,
    event::Event,
    fold::Item,
    name::ItemId,
    position::Position,
    projection::{Change, Projection, Rules, Unfit},
};
use hookpool_engine::follow::blocking;
use hookpool_store::{EventLog, PageRequest, PoolSnapshot, PoolStore};
use serde_json::json;
use warp::reply::Response;

use super::{OfStream, ready};
use crate::{
    problem::{Code, Problem},
    render::{Nested, json_response, push_difference},
};

/// Reasons that a check of rules against history lists.
const REASONS_MAX: usize = 20;

impl<L: EventLog, P: PoolStore> OfStream<'_, L, P> {
    /// Whether they are rules at all.
    pub(super) fn checked(&self, rules: Rules) -> Result<Response, Problem> {
        let projection = ready(rules)?;
        let answer = json!({ "stream": self.stream.as_str(), "valid": true, "projection": projection.rules() });
        Ok(json_response(answer.to_string()))
    }

    /// Reads every event of the stream under the rules, and says how many do not fit and why.
    pub(super) async fn check_history(&self, rules: Rules) -> Result<Response, Problem> {
        let projection = ready(rules)?;
        let (mut events, mut unfit) = (0, 0);
        let mut reasons: BTreeMap<String, (u64, Position)> = BTreeMap::new();
        let read = self.read_events(self.app.engine.head(), &projection, |event, read| {
            events += 1;
            if let Err(reason) = read {
                unfit += 1;
                let reason = reason.to_string();
                if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
                    reasons.entry(reason).or_insert((0, event.position)).0 += 1;
                }
            }
        });
        read.await?;
        let reasons: Vec<_> = reasons
            .into_iter()
            .map(|(reason, (count, first))| json!({ "reason": reason, "events": count, "firstPosition": first }))
            .collect();
        let answer = json!({
            "stream": self.stream.as_str(),
            "valid": true,
            "projection": projection.rules(),
            "events": events,
            "quarantined": unfit,
            "reasons": reasons,
        });
        Ok(json_response(answer.to_string()))
    }

    /// What they would make of one item, by a fold of its events from the log, compared with the served item as of the same moment.
    ///
    /// Of events that expired it sees those that are left, as a rebuild does: under the served rules they make the same item.
    pub(super) async fn check_item(&self, rules: Rules, id: String) -> Result<Response, Problem> {
        let projection = ready(rules)?;
        let Ok(id) = ItemId::new(id) else {
            let known = "item is the id of an item";
            return Err(Problem::with(Code::InvalidParameter, known));
        };
        let view = self.app.view(&self.stream).await?;
        let (of, served_id) = (view.clone(), id.clone());
        let read = move || {
            let at = of.pool.checkpoint().map(|checkpoint| checkpoint.position);
            let served = of.pool.item(&of.stream, of.ruled.generation, &served_id)?;
            Ok::<_, hookpool_store::PoolError>((at.unwrap_or_default(), served))
        };
        let (until, served) = blocking(read).await?;
        let (events, item) = self.fold_item(&projection, &id, until).await?;
        let difference = Difference::between(served.as_ref(), item.as_ref());
        let (stream, earliest) = (self.stream.as_str(), self.app.engine.earliest(&self.stream));
        let mut json = format!(
            r#"{{"stream":"{stream}","valid":true,"position":{until},"earliest":{earliest},"events":{events},"difference":"#
        );
        match difference {
            Some(difference) => {
                push_difference(&mut json, id.as_str(), &difference, Nested::AsString);
            }
            None => json.push_str("null"),
        }
        json.push('}');
        Ok(json_response(json))
    }

    /// How many events are of the item, and what they make of it; `None` where none is.
    async fn fold_item(
        &self,
        projection: &Projection,
        id: &ItemId,
        until: Position,
    ) -> Result<(u64, Option<Item>), Problem> {
        let (mut events, mut item) = (0, Item::default());
        let read = self.read_events(until, projection, |event, read| {
            if let Some(change) = read.ok().filter(|change| *change.item_id == *id) {
                events += 1;
                item.apply(event, &change, projection);
                item.recent.clear();
            }
        });
        read.await?;
        Ok((events, Some(item).filter(Item::is_there)))
    }

    /// Shows every event of the stream up to a position, and what the rules read in it.
    async fn read_events(
        &self,
        until: Position,
        projection: &Projection,
        mut see: impl FnMut(&Event, Result<Change<'_>, Unfit>),
    ) -> Result<(), Problem> {
        let mut at = Position::ZERO;
        while at < until {
            let request = PageRequest {
                until,
                ..PageRequest::of_stream(self.stream.clone(), at)
            };
            let page = self.app.engine.log_page(request).await?;
            for event in &page.events {
                let Ok(fields) = event.event.fields() else {
                    tracing::error!(position = %event.position, "a recorded body is not an object");
                    return Err(Code::Internal.into());
                };
                see(event, projection.read(event, fields));
            }
            at = page.through;
        }
        Ok(())
    }
}
