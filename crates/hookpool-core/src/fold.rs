//! The state of an item as a fold of its events under a projection. A pure function of the events' bytes and the rules: every replay
//! gives the same item.

mod positions;

use std::sync::Arc;

use crate::{
    event::{Event, Op, RequestId},
    json::{Fields, Kind, Value},
    name::ConnectorName,
    position::Position,
    projection::{Change, Order, Projection, Unfit},
    time::Timestamp,
};

pub use positions::Positions;

/// Largest item, in bytes of names and values. An event that would make one larger goes to quarantine: without a bound, one sender
/// who always names new properties would make each of its events dearer than the last.
pub const ITEM_BYTES_MAX: usize = 16 << 20;

/// The event that set a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its position.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// Who wrote it.
    pub connector: ConnectorName,
    /// The request it came with.
    pub request_id: RequestId,
}

impl Source {
    fn of(Event { position, event }: &Event) -> Arc<Self> {
        Arc::new(Self {
            position: *position,
            time: event.time,
            connector: event.connector.clone(),
            request_id: event.request_id,
        })
    }
}

/// A field of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// How the value is stored.
    pub kind: Kind,
    /// Its JSON text as sent.
    pub text: Box<str>,
    /// What set it.
    pub source: Arc<Source>,
}

impl Field {
    fn new(value: Value<'_>, source: Arc<Source>) -> Self {
        Self {
            kind: value.kind,
            text: value.text.into(),
            source,
        }
    }

    /// Takes another value, or the same from another event: then the text is kept.
    fn set(&mut self, value: Value<'_>, source: &Arc<Source>) {
        self.kind = value.kind;
        if *self.text != *value.text {
            self.text = value.text.into();
        }
        self.source = Arc::clone(source);
    }

    /// The value to show.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        Value {
            kind: self.kind,
            text: &self.text,
        }
    }
}

/// Current state of one item of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Of the last event that touched it, also if it set nothing.
    pub position: Position,
    /// The newest value of its projection's order so far.
    pub order: Option<Order>,
    /// Positions of the events that touched it since its last [`History`], oldest first.
    pub recent: Positions,
    /// The last event that deleted it: what was before counts no more.
    pub deleted: Option<Position>,
    /// Whether there is anything of it: not before its first event, and not between a deletion and what brings it back.
    there: bool,
    /// By name, in byte order: a list, since most items are small and there are many.
    fields: Vec<(Box<str>, Field)>,
    /// Bytes of all names and values.
    text_bytes: usize,
}

/// What became of an event that the event alone does not say: what its item held before decided it. Kept with the pool, so that a
/// follower can be told of the event later without the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It fits the projection not at all.
    Quarantined(Unfit),
    /// It is older than what its item has seen.
    Superseded,
    /// It is a deletion, and there was nothing to delete.
    Absent,
    /// It did more than it says.
    Adjusted {
        /// Fields that got their default.
        defaulted: Vec<Box<str>>,
        /// Fields that went away with the rest of a replaced item.
        unset: Vec<Box<str>>,
    },
}

/// A stretch of the past of an item: which events touched it, and what it was after them. With it, the item at any moment is a fold
/// of less than [`HISTORY_EVENTS`] events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// [`HISTORY_EVENTS`] events, oldest first; where history was dropped, the first stretch has those that survive.
    pub positions: Positions,
    /// The item after the last of them.
    pub after: Item,
}

impl History {
    /// The last of its events.
    #[must_use]
    pub fn last(&self) -> Position {
        self.after.position
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.after.memory_bytes() + self.positions.memory_bytes()
    }
}

/// Events in one [`History`].
pub const HISTORY_EVENTS: usize = 64;

impl Item {
    /// An item that was never deleted, with its fields by name, in byte order.
    #[must_use]
    pub fn new(
        position: Position,
        order: Option<Order>,
        recent: Positions,
        fields: Vec<(Box<str>, Field)>,
    ) -> Self {
        debug_assert!(fields.is_sorted_by(|(one, _), (next, _)| one < next));
        let text_bytes = fields
            .iter()
            .map(|(name, field)| size(name, &field.text))
            .sum();
        Self {
            position,
            order,
            recent,
            deleted: None,
            there: position > Position::ZERO,
            fields,
            text_bytes,
        }
    }

    /// The same with its last deletion, and whether something brought it back.
    #[must_use]
    pub fn deleted_at(self, deleted: Position, there: bool) -> Self {
        Self {
            deleted: Some(deleted),
            there,
            ..self
        }
    }

    /// Whether readers see it: it was touched, and is not deleted.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.there
    }

    /// By name, in byte order.
    #[must_use]
    pub fn fields(&self) -> &[(Box<str>, Field)] {
        &self.fields
    }

    /// A field by its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let place = self.place(name).ok()?;
        self.fields.get(place).map(|(_, field)| field)
    }

    /// Where a field is, or where it would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.fields
            .binary_search_by(|(field, _)| field.as_ref().cmp(name))
    }

    /// Bytes of all names and values: about what the item takes on the wire.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// About what the item takes in memory: names, values, and what holds them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // Its id, its place among others and one source; of a field, the list and what an allocation takes more than it was asked for.
        352 + self.text_bytes + self.fields.capacity() * 72 + self.recent.memory_bytes()
    }

    /// Takes the next event of this item, which [`Projection::read`] read, and says what the event alone does not.
    ///
    /// # Panics
    /// If the event is not after the last one: folding twice would be a wrong answer, and is a bug of the caller.
    pub fn apply(
        &mut self,
        event: &Event,
        change: &Change<'_>,
        projection: &Projection,
    ) -> Option<Note> {
        assert!(
            event.position > self.position,
            "events of an item are folded in order, once"
        );
        if change.order.is_some() && change.order < self.order {
            self.touched(event.position);
            return Some(Note::Superseded);
        }
        if self.text_bytes_with(event, change, projection) > ITEM_BYTES_MAX {
            return Some(Note::Quarantined(Unfit::TooLarge));
        }
        self.touched(event.position);
        if change.order.is_some() {
            self.order.clone_from(&change.order);
        }
        match event.event.op {
            Op::Upsert => self.upsert(&Source::of(event), change, projection),
            Op::Delete => self.delete(event.position),
        }
    }

    /// The order stays, so that what was older than the item does not bring it back.
    fn delete(&mut self, position: Position) -> Option<Note> {
        self.deleted = Some(position);
        self.fields = Vec::new();
        self.text_bytes = 0;
        let was_there = std::mem::replace(&mut self.there, false);
        (!was_there).then_some(Note::Absent)
    }

    fn touched(&mut self, position: Position) {
        self.position = position;
        self.recent.push(position);
    }

    /// The history that is full, if it is; the item then begins another.
    pub fn take_history(&mut self) -> Option<History> {
        if self.recent.len() < HISTORY_EVENTS {
            return None;
        }
        let positions = std::mem::take(&mut self.recent);
        Some(History {
            positions,
            after: self.clone(),
        })
    }

    /// What the item would have, or less where it is far from the bound: as it is, a body makes no more text than it has.
    fn text_bytes_with(
        &self,
        event: &Event,
        change: &Change<'_>,
        projection: &Projection,
    ) -> usize {
        let before = if projection.replaces() {
            0
        } else {
            self.text_bytes
        };
        if projection.is_plain() && before + event.event.body.len() <= ITEM_BYTES_MAX {
            return before;
        }
        // Only near the bound is it worth to look twice.
        let added: usize = change
            .set()
            .map(|(name, value)| size(name, value.text))
            .sum();
        if before + added <= ITEM_BYTES_MAX || projection.replaces() {
            return before + added;
        }
        let taken = change
            .set()
            .filter_map(|(name, _)| Some((name, self.field(name)?)));
        let taken: usize = taken.map(|(name, field)| size(name, &field.text)).sum();
        before + added - taken
    }

    fn upsert(
        &mut self,
        source: &Arc<Source>,
        change: &Change<'_>,
        projection: &Projection,
    ) -> Option<Note> {
        self.there = true;
        let mut unset = Vec::new();
        if projection.replaces() {
            unset = self.remove(|name| !change.sets(name));
        }
        if !change.unset.is_empty() {
            self.remove(|name| change.unset.contains(name));
        }
        self.set_all(change, source);
        let defaulted = self.set_defaults(source, projection);
        // What a default brought back did not go away.
        unset.retain(|name| self.place(name).is_err());
        (!defaulted.is_empty() || !unset.is_empty()).then_some(Note::Adjusted { defaulted, unset })
    }

    /// Takes fields away, and says which.
    fn remove(&mut self, goes: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        let gone = self.fields.extract_if(.., |(name, _)| goes(name));
        let of = |(name, field): (Box<str>, Field)| {
            self.text_bytes -= size(&name, &field.text);
            name
        };
        gone.map(of).collect()
    }

    /// Both the fields and what is set are in the order of their names, and walked together.
    fn set_all(&mut self, change: &Change<'_>, source: &Arc<Source>) {
        let mut new = Vec::new();
        let mut at = 0;
        for (name, value) in change.set() {
            let rest = self.fields.get_mut(at..).unwrap_or_default();
            // Most events name what the item has: then nothing is looked for.
            let place = match rest.first() {
                Some((next, _)) if **next == *name => Ok(0),
                _ => rest.binary_search_by(|(field, _)| field.as_ref().cmp(name)),
            };
            match place.map(|place| (place, rest.get_mut(place))) {
                Ok((place, Some((_, field)))) => {
                    self.text_bytes -= field.text.len();
                    field.set(value, source);
                    at += place + 1;
                }
                Ok((place, None)) | Err(place) => {
                    self.text_bytes += name.len();
                    new.push((Box::from(name), Field::new(value, Arc::clone(source))));
                    at += place;
                }
            }
            self.text_bytes += value.text.len();
        }
        if !new.is_empty() {
            self.fields.append(&mut new);
            // Two sorted runs are merged.
            self.fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
    }

    fn set_defaults(&mut self, source: &Arc<Source>, projection: &Projection) -> Vec<Box<str>> {
        let mut defaulted = Vec::new();
        for (name, value) in projection.defaults() {
            if let Err(place) = self.place(name) {
                self.text_bytes += size(name, value.text);
                let field = Field::new(value, Arc::clone(source));
                self.fields.insert(place, (name.into(), field));
                defaulted.push(name.into());
            }
        }
        defaulted
    }
}

fn size(name: &str, text: &str) -> usize {
    name.len() + text.len()
}

/// What an event did to the pool, from the event, its projection and the note of it: the item and its change, or `None` where it
/// changed nothing that can be seen.
///
/// # Errors
/// [`Unfit`] where an event without a note fits no item: the note is missing.
pub fn effect<'a>(
    event: &'a Event,
    fields: Fields<'a>,
    note: Option<&'a Note>,
    projection: &'a Projection,
) -> Result<Option<Change<'a>>, Unfit> {
    let (defaulted, unset) = match note {
        None => return projection.read(event, fields).map(Some),
        Some(Note::Quarantined(_) | Note::Superseded | Note::Absent) => return Ok(None),
        Some(Note::Adjusted { defaulted, unset }) => (defaulted, unset),
    };
    let mut change = projection.read(event, fields)?;
    projection.adjust(&mut change, defaulted, unset);
    Ok(Some(change))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::{
        event::{NewEvent, RequestId},
        name::{ItemId, StreamName},
    };

    pub(crate) fn event(position: u64, item: &str, body: &str) -> Event {
        Event {
            position: Position(position),
            event: NewEvent {
                time: Timestamp(position * 1_000),
                stream: StreamName::new("sales").unwrap(),
                op: Op::Upsert,
                item_id: ItemId::new(item).unwrap(),
                generated_id: false,
                duplicate_keys: false,
                field_count: 0,
                connector: ConnectorName::new("till").unwrap(),
                request_id: RequestId([1; 16]),
                dedupe: None,
                idempotency: None,
                body: Bytes::copy_from_slice(body.as_bytes()),
            },
        }
    }

    pub(crate) fn deletion(position: u64, item: &str) -> Event {
        let mut deletion = event(position, item, "");
        deletion.event.op = Op::Delete;
        deletion
    }

    /// Folds one event, and checks that event, projection and note together say what became of it.
    pub(crate) fn apply(item: &mut Item, event: &Event, projection: &Projection) -> Option<Note> {
        let fields = || event.event.fields().unwrap();
        let before = item.clone();
        let note = match projection.read(event, fields()) {
            Ok(change) => item.apply(event, &change, projection),
            Err(unfit) => Some(Note::Quarantined(unfit)),
        };
        let was_there = before.is_there();
        let told = effect(event, fields(), note.as_ref(), projection).unwrap();
        let mut expected: BTreeMap<&str, Value<'_>> = shown(&before);
        if let Some(change) = &told {
            assert!(change.set().all(|(name, _)| !change.unset.contains(name)));
            expected.retain(|name, _| !change.unset.contains(*name));
            expected.extend(change.set());
            if event.event.op == Op::Delete {
                assert!(was_there, "a deletion of nothing is not told");
                expected.clear();
            }
        }
        assert_eq!(shown(item), expected);
        assert_eq!(
            item.text_bytes,
            Item::new(
                item.position,
                None,
                Positions::default(),
                item.fields.clone()
            )
            .text_bytes
        );
        note
    }

    fn shown(item: &Item) -> BTreeMap<&str, Value<'_>> {
        item.fields
            .iter()
            .map(|(name, field)| (name.as_ref(), field.value()))
            .collect()
    }

    fn under(projection: &Projection, bodies: &[&str]) -> Item {
        let mut item = Item::default();
        for (position, body) in (1..).zip(bodies) {
            apply(&mut item, &event(position, "North", body), projection);
        }
        item
    }

    pub(crate) fn folded(bodies: &[&str]) -> Item {
        under(&Projection::default(), bodies)
    }

    fn projection(rules: &str) -> Projection {
        Projection::new(1, serde_json::from_str(rules).unwrap()).unwrap()
    }

    /// The fields under these rules, as JSON.
    fn check_under(rules: &str, bodies: &[&str], expected: &str) {
        let item = under(&projection(rules), bodies);
        let fields: Vec<_> = shown(&item)
            .iter()
            .map(|(name, value)| format!("{name}={}", value.text))
            .collect();
        assert_eq!(fields.join(" "), expected, "{rules}");
    }

    fn check(bodies: &[&str], expected: &[(&str, &str, u64)]) {
        let item = folded(bodies);
        let fields: Vec<_> = item
            .fields
            .iter()
            .map(|(name, field)| (name.as_ref(), field.text.as_ref(), field.source.position.0))
            .collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn given_fields_overwrite_and_others_stay() {
        check(
            &[r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#],
            &[("a", "1", 1), ("b", "3", 2), ("c", "4", 2)],
        );
    }

    #[test]
    fn null_is_stored_and_deletes_nothing() {
        check(
            &[r#"{"a":1,"b":2}"#, r#"{"a":null}"#],
            &[("a", "null", 2), ("b", "2", 1)],
        );
    }

    #[test]
    fn numbers_and_nested_texts_stay_as_sent() {
        check(
            &[r#"{"n":1.0e+2,"o":{ "x" : 1 }}"#],
            &[("n", "1.0e+2", 1), ("o", r#"{ "x" : 1 }"#, 1)],
        );
    }

    #[test]
    fn an_empty_object_touches_the_item_and_sets_nothing() {
        let item = folded(&[r#"{"a":1}"#, "{}"]);
        assert_eq!((item.position, item.fields.len()), (Position(2), 1));
    }

    #[test]
    #[should_panic(expected = "in order, once")]
    fn folding_an_event_twice_is_a_bug() {
        let mut item = folded(&["{}"]);
        apply(&mut item, &event(1, "North", "{}"), &Projection::default());
    }

    #[test]
    fn replace_drops_what_an_event_does_not_name() {
        let rules = r#"{"merge":"replace"}"#;
        check_under(rules, &[r#"{"a":1,"b":2}"#, r#"{"b":3}"#], "b=3");
    }

    #[test]
    fn a_default_comes_back_in_a_replaced_item_and_does_not_go_away() {
        let rules = projection(r#"{"merge":"replace","fields":{"a":{"default":7}}}"#);
        let mut item = under(&rules, &[r#"{"b":1}"#]);
        let note = apply(&mut item, &event(2, "North", r#"{"c":1}"#), &rules);
        let expected = Note::Adjusted {
            defaulted: vec!["a".into()],
            unset: vec!["b".into()],
        };
        assert_eq!(note, Some(expected));
    }

    #[test]
    fn nulls_can_delete_and_a_default_takes_their_place() {
        let rules = r#"{"nulls":"delete","fields":{"a":{"default":7}}}"#;
        check_under(rules, &[r#"{"b":1}"#], "a=7 b=1");
        check_under(
            rules,
            &[r#"{"a":1,"b":1}"#, r#"{"a":null,"b":null}"#],
            "a=7",
        );
    }

    #[test]
    fn a_default_overwrites_no_value() {
        let rules = r#"{"fields":{"a":{"default":"x"}}}"#;
        check_under(rules, &[r#"{"a":"y"}"#, r#"{"b":1}"#], r#"a="y" b=1"#);
    }

    #[test]
    fn an_older_event_changes_nothing_and_an_equal_one_does() {
        let rules = r#"{"order-by":"/v"}"#;
        let bodies = [
            r#"{"v":2,"a":1}"#,
            r#"{"v":1,"a":2,"b":2}"#,
            r#"{"v":"2.0","a":3}"#,
            r#"{"c":4}"#,
        ];
        check_under(rules, &bodies, r#"a=3 c=4 v="2.0""#);
        let mut item = under(&projection(rules), &bodies[..1]);
        let older = event(9, "North", bodies[1]);
        assert_eq!(
            apply(&mut item, &older, &projection(rules)),
            Some(Note::Superseded)
        );
        assert_eq!(item.position, Position(9));
    }

    /// Folds bodies and, where there is none, deletions.
    fn with_deletions(rules: &str, bodies: &[Option<&str>]) -> Item {
        let (projection, mut item) = (projection(rules), Item::default());
        for (position, body) in (1..).zip(bodies) {
            let event = match body {
                Some(body) => event(position, "North", body),
                None => deletion(position, "North"),
            };
            apply(&mut item, &event, &projection);
        }
        item
    }

    fn fields_of(item: &Item) -> String {
        let fields = shown(item);
        let fields = fields.iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name}={}", value.text))
            .collect();
        fields.join(" ")
    }

    #[test]
    fn a_deleted_item_has_no_fields_and_is_not_there_and_keeps_its_events() {
        let item = with_deletions("{}", &[Some(r#"{"a":1}"#), None]);
        assert!(!item.is_there() && item.fields().is_empty());
        assert_eq!((item.text_bytes(), item.position), (0, Position(2)));
        let recent = item.recent.iter();
        assert!(recent.eq([Position(1), Position(2)]));
        assert_eq!(item.deleted, Some(Position(2)));
    }

    #[test]
    fn what_comes_after_a_deletion_starts_from_nothing() {
        for rules in ["{}", r#"{"nulls":"delete"}"#, r#"{"merge":"replace"}"#] {
            let item = with_deletions(rules, &[Some(r#"{"a":1}"#), None, Some(r#"{"b":2}"#)]);
            assert!(item.is_there());
            assert_eq!(fields_of(&item), "b=2", "{rules}");
        }
        let rules = r#"{"fields":{"a":{"default":7}}}"#;
        let bodies = [Some(r#"{"a":1}"#), None, Some("{}")];
        assert_eq!(fields_of(&with_deletions(rules, &bodies[..2])), "");
        assert_eq!(fields_of(&with_deletions(rules, &bodies)), "a=7");
    }

    #[test]
    fn an_older_event_does_not_bring_a_deleted_item_back_and_a_newer_one_does() {
        let rules = r#"{"order-by":"v"}"#;
        let late = [Some(r#"{"v":5}"#), None, Some(r#"{"v":4,"a":1}"#)];
        let item = with_deletions(rules, &late);
        assert!(!item.is_there());
        assert_eq!(item.position, Position(3));
        let newer = [Some(r#"{"v":5}"#), None, Some(r#"{"v":6,"a":1}"#)];
        assert_eq!(fields_of(&with_deletions(rules, &newer)), "a=1 v=6");
    }

    #[test]
    fn a_deletion_is_applied_in_log_order_and_needs_no_item() {
        let item = with_deletions(r#"{"order-by":"v"}"#, &[None]);
        assert!(!item.is_there());
        assert_eq!((item.position, item.order), (Position(1), None));
    }

    #[test]
    fn a_full_history_holds_its_events_and_the_item_after_them() {
        let bodies = vec!["{}"; HISTORY_EVENTS];
        let mut item = folded(&bodies[1..]);
        assert_eq!(item.take_history(), None);
        apply(&mut item, &event(64, "North", "{}"), &Projection::default());
        let history = item.take_history().unwrap();
        let positions: Vec<_> = history
            .positions
            .iter()
            .map(|position| position.0)
            .collect();
        assert_eq!(positions, (1..=64).collect::<Vec<_>>());
        assert!(item.recent.is_empty() && history.after == item);
    }

    #[test]
    fn an_event_that_would_make_an_item_too_large_is_quarantined_and_changes_nothing() {
        let big = "x".repeat(ITEM_BYTES_MAX / 2 - 10);
        let mut item = folded(&[
            &format!(r#"{{"a":"{big}"}}"#),
            &format!(r#"{{"b":"{big}"}}"#),
        ]);
        let before = item.clone();
        let over = event(3, "North", &format!(r#"{{"c":"{}"}}"#, "x".repeat(30)));
        let note = apply(&mut item, &over, &Projection::default());
        assert_eq!(
            (note, &item),
            (Some(Note::Quarantined(Unfit::TooLarge)), &before)
        );
        let same = event(4, "North", &format!(r#"{{"a":"{big}"}}"#));
        assert_eq!(apply(&mut item, &same, &Projection::default()), None);
    }
}
