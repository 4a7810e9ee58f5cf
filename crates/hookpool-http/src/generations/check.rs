//! What rules would make of one item: a fold of its events from the log, beside which nothing is built or stored.
//!
//! Of events that expired it sees those that are left, as a rebuild does: under the served rules they make the same item.

use hookpool_core::{
    difference::Difference,
    fold::Item,
    name::ItemId,
    position::Position,
    projection::{Projection, Rules},
};
use hookpool_engine::follow::blocking;
use hookpool_store::{EventLog, PageRequest, PoolSnapshot, PoolStore};
use warp::reply::Response;

use super::{OfStream, ready};
use crate::{
    problem::{Code, Problem},
    render::{Nested, json_response, push_difference},
};

impl<L: EventLog, P: PoolStore> OfStream<'_, L, P> {
    /// Compares with the served item as of the same moment.
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
        let (mut events, mut item, mut at) = (0, Item::default(), Position::ZERO);
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
                match projection.read(event, fields) {
                    Ok(change) if *change.item_id == *id => {
                        events += 1;
                        item.apply(event, &change, projection);
                        item.recent.clear();
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            at = page.through;
        }
        Ok((events, Some(item).filter(Item::is_there)))
    }
}
