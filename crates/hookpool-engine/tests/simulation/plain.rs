//! The fold without rules, as plainly as it can be written.

use std::collections::BTreeMap;

use hookpool_core::{
    event::{Event, Op},
    position::Position,
};
use serde_json::{Map, Value};

type Fields = BTreeMap<String, String>;

#[derive(Default)]
pub(super) struct Fold {
    pub(super) items: BTreeMap<String, Fields>,
    /// A line for each event that changes what is there.
    pub(super) told: Vec<String>,
}

impl Fold {
    pub(super) fn of(events: &BTreeMap<Position, Event>) -> Self {
        let mut fold = Self::default();
        for (position, Event { event, .. }) in events {
            let item = event.item_id.to_string();
            if event.op == Op::Delete {
                if fold.items.remove(&item).is_some() {
                    fold.told.push(format!("{position} delete {item} "));
                }
                continue;
            }
            let body: Map<String, Value> = serde_json::from_slice(&event.body).unwrap();
            let fields = body
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string()));
            let fields: Fields = fields.collect();
            let set: Vec<_> = fields
                .iter()
                .map(|(name, text)| format!("{name}={text}"))
                .collect();
            fold.told
                .push(format!("{position} upsert {item} {}", set.join(" ")));
            fold.items.entry(item).or_default().extend(fields);
        }
        fold
    }
}
