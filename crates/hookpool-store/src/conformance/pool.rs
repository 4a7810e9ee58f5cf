//! The promises of a pool.

use std::{collections::BTreeMap, sync::Arc};

use hookpool_core::{
    difference::DifferenceSum,
    fold::{History, Item, Note, Positions},
    json,
    name::ItemId,
    position::{Epoch, Generation, Position},
    projection::{Projection, Unfit},
};

use super::{PoolFixture, sample};
use crate::pool::{
    Checkpoint, DifferenceState, GenerationChanges, GenerationState, PoolChanges, PoolSnapshot,
    PoolStore,
};

const EPOCH: Epoch = Epoch(7);

/// An item with one field, last touched at a position.
fn item(position: u64, value: &str) -> Item {
    let mut item = Item::default();
    let body = format!(r#"{{"value":"{value}"}}"#);
    let event = sample::at(vec![sample::event("any", position, &body)], [position]);
    let object = json::object(body.as_bytes()).expect("an object");
    let projection = Projection::default();
    let change = projection.read(&event[0], object.fields).expect("a change");
    item.apply(&event[0], &change, &projection);
    item
}

fn id(text: &str) -> ItemId {
    ItemId::new(text).expect("an item id")
}

/// What a commit does to a generation that is changed at a position.
fn generation(stream: &str, number: u32, position: u64, items: &[&str]) -> GenerationChanges {
    let position_of = Position(position);
    GenerationChanges {
        stream: sample::stream(stream),
        generation: Generation(number),
        state: GenerationState {
            projection: 3,
            position: position_of,
            items: items.len() as u64,
            events: position,
            ..GenerationState::default()
        },
        items: items
            .iter()
            .map(|text| (id(text), Arc::new(item(position, text))))
            .collect(),
        histories: Vec::new(),
        notes: Vec::new(),
        dropped_histories: Vec::new(),
        dropped_notes: Vec::new(),
    }
}

/// A commit of items of one stream and generation.
fn changes(stream: &str, number: u32, position: u64, items: &[&str]) -> PoolChanges {
    PoolChanges {
        checkpoint: Some(Checkpoint {
            epoch: EPOCH,
            position: Position(position),
        }),
        served: vec![(sample::stream(stream), Generation(number))],
        generations: vec![generation(stream, number, position, items)],
    }
}

/// Checks that everything of a commit is in a snapshot.
fn holds(snapshot: &impl PoolSnapshot, changes: PoolChanges) {
    assert_eq!(snapshot.checkpoint(), changes.checkpoint);
    assert_eq!(snapshot.streams().expect("streams"), changes.served);
    for of in changes.generations {
        let state = snapshot.generation(&of.stream, of.generation);
        assert_eq!(state.expect("a state"), Some(of.state));
        for (id, item) in of.items {
            let found = snapshot.item(&of.stream, of.generation, &id);
            assert_eq!(found.expect("an item"), Some(Arc::unwrap_or_clone(item)));
        }
    }
}

fn ids(
    snapshot: &impl PoolSnapshot,
    stream: &str,
    generation: u32,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let after = after.map(id);
    let items = snapshot
        .items(
            &sample::stream(stream),
            Generation(generation),
            after.as_ref(),
            limit,
            usize::MAX,
        )
        .expect("items");
    items
        .items
        .into_iter()
        .map(|(id, _)| id.to_string())
        .collect()
}

/// `None` in a new pool.
pub fn a_new_pool_has_no_checkpoint<F: PoolFixture>(fixture: &mut F) {
    let snapshot = fixture.create().snapshot();
    assert_eq!(snapshot.checkpoint(), None);
    assert_eq!(snapshot.streams().expect("streams"), []);
    assert_eq!(snapshot.generations().expect("generations"), []);
    let served = snapshot.served(&sample::stream("sales"));
    assert_eq!(served.expect("no stream"), None);
    let state = snapshot.generation(&sample::stream("sales"), Generation(1));
    assert_eq!(state.expect("no generation"), None);
    assert!(ids(snapshot.as_ref(), "sales", 1, None, 10).is_empty());
}

/// **Commits** are atomic. **Reads** go through a snapshot that is published after each commit.
pub fn a_commit_is_in_the_next_snapshot<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let changes = changes("sales", 1, 5, &["b", "a"]);
    pool.commit(changes.clone()).expect("a commit");
    let snapshot = pool.snapshot();
    holds(snapshot.as_ref(), changes);
    let missing = snapshot.item(&sample::stream("sales"), Generation(1), &id("c"));
    assert_eq!(missing.expect("no item"), None);
}

/// All reads of one snapshot see one checkpoint.
pub fn a_snapshot_stays_as_it_was<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let first = changes("sales", 1, 1, &["a"]);
    pool.commit(first.clone()).expect("a commit");
    let old = pool.snapshot();
    for position in 2..50 {
        let next = changes("sales", 1, position, &["a", "b"]);
        pool.commit(next).expect("a commit");
    }
    assert_eq!(ids(old.as_ref(), "sales", 1, None, 10), ["a"]);
    holds(old.as_ref(), first);
}

/// At most `limit` items after an id, in byte order of their ids.
pub fn items_come_in_byte_order_of_their_ids_page_by_page<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let sorted = ["10", "2", "A", "B b", "a", "aa", "ü", "\u{10ffff}"];
    let mut shuffled = sorted.to_vec();
    shuffled.reverse();
    pool.commit(changes("sales", 1, 1, &shuffled))
        .expect("a commit");
    let snapshot = pool.snapshot();
    assert_eq!(ids(snapshot.as_ref(), "sales", 1, None, 100), sorted);
    for limit in 0..sorted.len() {
        assert_eq!(
            ids(snapshot.as_ref(), "sales", 1, None, limit),
            sorted[..limit]
        );
    }
    for (at, after) in sorted.iter().enumerate() {
        let rest = ids(snapshot.as_ref(), "sales", 1, Some(after), 2);
        assert_eq!(rest, sorted[at + 1..(at + 3).min(sorted.len())]);
    }
    // An id that is not there has a place all the same.
    assert_eq!(ids(snapshot.as_ref(), "sales", 1, Some("3"), 1), ["A"]);
}

/// Items by stream, generation and id: none is seen under another, also where one name begins with another.
pub fn streams_and_generations_are_apart<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let commits = [
        ("sales", 1, "one"),
        ("sales", 2, "two"),
        ("sales", 256, "many"),
        ("sales-2", 1, "other"),
        ("sale", 1, "short"),
    ];
    for (position, (stream, generation, id)) in (1..).zip(commits) {
        pool.commit(changes(stream, generation, position, &[id]))
            .expect("a commit");
    }
    let snapshot = pool.snapshot();
    for (stream, generation, id) in commits {
        assert_eq!(ids(snapshot.as_ref(), stream, generation, None, 10), [id]);
    }
    let streams: Vec<_> = snapshot
        .streams()
        .expect("streams")
        .into_iter()
        .map(|(name, served)| (name.to_string(), served.0))
        .collect();
    let expected = [("sale", 1), ("sales", 256), ("sales-2", 1)];
    assert_eq!(streams, expected.map(|(name, n)| (name.to_owned(), n)));
}

/// Items as they are now.
pub fn items_are_replaced_as_a_whole<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    for position in 1..20 {
        pool.commit(changes("sales", 1, position, &["a"]))
            .expect("a commit");
        let found = pool
            .snapshot()
            .item(&sample::stream("sales"), Generation(1), &id("a"));
        assert_eq!(found.expect("an item"), Some(item(position, "a")));
    }
}

/// A commit with deleted items, and others.
fn with_deleted(position: u64, there: &[&str], deleted: &[&str]) -> PoolChanges {
    let mut changes = changes("sales", 1, position, there);
    let tombstone = |text: &&str| (id(text), Arc::new(tombstone(position)));
    let of = &mut changes.generations[0];
    of.items.extend(deleted.iter().map(tombstone));
    changes
}

fn tombstone(position: u64) -> Item {
    let recent = Positions::from_iter([Position(position)]);
    Item::new(Position(position), None, recent, Vec::new()).deleted_at(Position(position), false)
}

/// **Deleted items** are apart from those that are there, and what is kept of them can be read until they come back.
pub fn deleted_items_are_neither_found_nor_listed<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let (sales, first) = (sample::stream("sales"), Generation(1));
    let has_tombstones = || pool.snapshot().has_tombstones(&sales, first).expect("rows");
    pool.commit(with_deleted(1, &["a", "b", "d"], &[]))
        .expect("a commit");
    assert!(!has_tombstones());
    pool.commit(with_deleted(2, &[], &["a", "c", "d"]))
        .expect("a commit");
    assert!(has_tombstones());
    // One comes back.
    pool.commit(with_deleted(3, &["d"], &[])).expect("a commit");
    let snapshot = pool.snapshot();
    assert_eq!(ids(snapshot.as_ref(), "sales", 1, None, 9), ["b", "d"]);
    assert_eq!(ids(snapshot.as_ref(), "sales", 1, None, 1), ["b"]);
    for (text, there, deleted) in [
        ("a", false, true),
        ("b", true, false),
        ("c", false, true),
        ("d", true, false),
        ("e", false, false),
    ] {
        let item = snapshot.item(&sales, first, &id(text)).expect("a row");
        assert_eq!(item.is_some(), there, "{text}");
        let tombstone = snapshot.tombstone(&sales, first, &id(text)).expect("a row");
        assert_eq!(tombstone.is_some(), deleted, "{text}");
        let touched = snapshot.touched(&sales, first, &id(text)).expect("a row");
        assert_eq!(touched, item.or(tombstone), "{text}");
    }
    let touched = |after: Option<&str>, limit| {
        let after = after.map(id);
        let page = snapshot.touched_items(&sales, first, after.as_ref(), limit, usize::MAX);
        let page = page.expect("items");
        let items = page.items.into_iter();
        let items = items.map(|(id, item)| (id.to_string(), item.position.0, item.is_there()));
        (items.collect::<Vec<_>>(), page.more)
    };
    let all = [
        ("a", 2, false),
        ("b", 1, true),
        ("c", 2, false),
        ("d", 3, true),
    ];
    let all = all.map(|(id, position, there)| (id.to_owned(), position, there));
    assert_eq!(touched(None, 9), (all.to_vec(), false));
    assert_eq!(touched(Some("a"), 2), (all[1..3].to_vec(), true));
    pool.remove(&sales, first).expect("a removal");
    assert!(!has_tombstones());
}

/// All reads of one snapshot see one checkpoint, also while a writer goes on.
pub fn one_snapshot_is_one_checkpoint_while_commits_go_on<F: PoolFixture>(fixture: &mut F) {
    const COMMITS: u64 = 300;
    let names: Vec<_> = (10..60).map(|n: u32| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let pool = fixture.create();
    pool.commit(changes("sales", 1, 1, &names))
        .expect("a commit");
    let read = || {
        let mut seen = BTreeMap::new();
        loop {
            let snapshot = pool.snapshot();
            let checkpoint = snapshot.checkpoint().expect("a checkpoint").position;
            let items = snapshot.items(
                &sample::stream("sales"),
                Generation(1),
                None,
                100,
                usize::MAX,
            );
            let items = items.expect("items").items;
            assert_eq!(items.len(), names.len());
            assert!(items.iter().all(|(_, item)| item.position == checkpoint));
            let state = snapshot.generation(&sample::stream("sales"), Generation(1));
            let state = state.expect("a state").expect("a generation");
            assert_eq!(state.position, checkpoint);
            *seen.entry(checkpoint).or_insert(0) += 1;
            if checkpoint.0 == COMMITS {
                return seen;
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        for position in 2..=COMMITS {
            pool.commit(changes("sales", 1, position, &names))
                .expect("a commit");
        }
        for reader in readers {
            assert!(!reader.join().expect("a reader").is_empty());
        }
    });
}

/// After a crash the items are those of the checkpoint, no more and no less.
pub fn a_reopened_pool_is_at_its_last_commit<F: PoolFixture>(fixture: &mut F) {
    let mut pool = fixture.create();
    for position in 1..5 {
        let commit = changes("sales", 1, position, &["a", "b"]);
        pool.commit(commit.clone()).expect("a commit");
        pool = fixture.reopen(pool);
        holds(pool.snapshot().as_ref(), commit);
    }
}

/// One that is being built moves by commits that leave the checkpoint where it is.
pub fn a_commit_of_a_generation_that_is_built_leaves_the_checkpoint<F: PoolFixture>(
    fixture: &mut F,
) {
    let pool = fixture.create();
    let mut building = generation("sales", 2, 4, &["x"]);
    building.state.built = Some(Position(4));
    let commit = |building: &GenerationChanges| {
        let changes = PoolChanges {
            generations: vec![building.clone()],
            ..PoolChanges::default()
        };
        pool.commit(changes).expect("a commit");
    };
    commit(&building);
    assert_eq!(pool.snapshot().checkpoint(), None);
    let first = changes("sales", 1, 9, &["a"]);
    pool.commit(first.clone()).expect("a commit");
    building.state.built = Some(Position(7));
    building.state.difference = Some(DifferenceState {
        sum: DifferenceSum {
            added: 1,
            removed: 2,
            changed: 3,
            words: [4, 5, 6, u64::MAX],
        },
        whole: true,
    });
    commit(&building);
    let snapshot = pool.snapshot();
    let state = snapshot.generation(&building.stream, Generation(2));
    assert_eq!(state.expect("a state"), Some(building.state));
    let all: Vec<_> = snapshot.generations().expect("generations");
    let sales = || sample::stream("sales");
    assert_eq!(all, [(sales(), Generation(1)), (sales(), Generation(2))]);
    holds(snapshot.as_ref(), first);
}

/// The last full history of an item that ends at or before a position; the first that ends after one.
pub fn the_past_of_an_item_is_found_by_position<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let history = |last: u64| History {
        positions: (last - 3..=last).map(Position).collect(),
        after: item(last, "a"),
    };
    for last in [10, 300, 70_000] {
        let mut changes = changes("sales", 1, last, &["a", "ab"]);
        let of = &mut changes.generations[0];
        of.histories = vec![(id("a"), history(last)), (id("ab"), history(last + 1))];
        pool.commit(changes).expect("a commit");
    }
    let snapshot = pool.snapshot();
    let until = |id_of: &str, position: u64| {
        let found = snapshot.history_until(
            &sample::stream("sales"),
            Generation(1),
            &id(id_of),
            Position(position),
        );
        found.expect("a history")
    };
    let after = |id_of: &str, position: u64| {
        let found = snapshot.history_after(
            &sample::stream("sales"),
            Generation(1),
            &id(id_of),
            Position(position),
        );
        found.expect("a history")
    };
    for (position, before, next) in [
        (0, None, Some(10)),
        (9, None, Some(10)),
        (10, Some(10), Some(300)),
        (299, Some(10), Some(300)),
        (300, Some(300), Some(70_000)),
        (70_000, Some(70_000), None),
        (u64::MAX - 1, Some(70_000), None),
    ] {
        assert_eq!(until("a", position), before.map(history), "{position}");
        assert_eq!(after("a", position), next.map(history), "{position}");
    }
    assert_eq!(until("ab", 300), Some(history(11)));
    assert_eq!((until("b", 300), after("b", 0)), (None, None));
}

/// What became of the events after a position and up to another; those that fit the projection not at all.
pub fn notes_are_found_by_position_and_quarantine_by_itself<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let mut changes = changes("sales", 1, 9, &["a"]);
    let notes = vec![
        (Position(2), Note::Superseded),
        (Position(3), Note::Quarantined(Unfit::ItemId)),
        (Position(256), Note::Quarantined(Unfit::TooLarge)),
        (Position(300), Note::Superseded),
    ];
    changes.generations[0].notes = notes.clone();
    pool.commit(changes).expect("a commit");
    let snapshot = pool.snapshot();
    let sales = sample::stream("sales");
    let found = |after: u64, until: u64| {
        let found = snapshot.notes(&sales, Generation(1), Position(after), Position(until));
        found.expect("notes")
    };
    assert_eq!(found(0, u64::MAX), notes);
    assert_eq!(found(2, 256), notes[1..3]);
    assert_eq!(found(3, 255), []);
    let quarantined = |after: u64, limit| {
        let found = snapshot.quarantined(&sales, Generation(1), Position(after), limit);
        found.expect("a quarantine")
    };
    assert_eq!(quarantined(0, 10), notes[1..3]);
    assert_eq!(quarantined(0, 1), notes[1..2]);
    assert_eq!(quarantined(3, 10), notes[2..3]);
    let other = snapshot.notes(&sales, Generation(2), Position(0), Position(999));
    assert_eq!(other.expect("no notes"), []);
}

/// **Less history.** What goes, and what is put in its place, is one commit, and outlives a power cut once it is synced.
pub fn dropped_history_goes_with_the_commit_that_replaces_it<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let sales = sample::stream("sales");
    let history = |last: u64, value: &str| History {
        positions: [Position(last)].into_iter().collect(),
        after: item(last, value),
    };
    let mut before = changes("sales", 1, 400, &["a", "ab"]);
    let of = &mut before.generations[0];
    let lasts = [10, 255, 256, 300];
    of.histories = lasts.map(|last| (id("a"), history(last, "old"))).into();
    of.histories.push((id("ab"), history(10, "old")));
    of.notes = vec![
        (Position(2), Note::Superseded),
        (Position(3), Note::Quarantined(Unfit::ItemId)),
        (Position(4), Note::Superseded),
    ];
    let mut other = before.generations[0].clone();
    other.generation = Generation(2);
    before.generations.push(other);
    pool.commit(before).expect("a commit");
    let old = pool.snapshot();
    let mut trim = generation("sales", 1, 400, &[]);
    trim.state.events = 7;
    trim.histories = vec![(id("a"), history(256, "new"))];
    trim.dropped_histories = vec![(id("a"), Position(256)), (id("none"), Position(999))];
    trim.dropped_notes = vec![Position(2), Position(3), Position(5)];
    let state = trim.state;
    pool.commit(PoolChanges {
        generations: vec![trim],
        ..PoolChanges::default()
    })
    .expect("a commit");
    pool.sync().expect("a sync");
    let check = |pool: &F::Pool| {
        let snapshot = pool.snapshot();
        let first = |generation, of: &str| {
            let first = snapshot.history_after(&sales, generation, &id(of), Position(0));
            first.expect("a history")
        };
        assert_eq!(first(Generation(1), "a"), Some(history(256, "new")));
        let next = snapshot.history_after(&sales, Generation(1), &id("a"), Position(256));
        assert_eq!(next.expect("a history"), Some(history(300, "old")));
        assert_eq!(first(Generation(1), "ab"), Some(history(10, "old")));
        assert_eq!(first(Generation(2), "a"), Some(history(10, "old")));
        let notes = |generation| {
            let notes = snapshot.notes(&sales, generation, Position(0), Position(999));
            notes.expect("notes").len()
        };
        assert_eq!((notes(Generation(1)), notes(Generation(2))), (1, 3));
        let quarantined = snapshot.quarantined(&sales, Generation(1), Position(0), 9);
        assert_eq!(quarantined.expect("a quarantine"), []);
        let kept = snapshot.generation(&sales, Generation(1));
        assert_eq!(kept.expect("a state"), Some(state));
        let kept = ids(snapshot.as_ref(), "sales", 1, None, 10);
        assert_eq!(kept, ["a", "ab"]);
    };
    check(&pool);
    let until = old.history_until(&sales, Generation(1), &id("a"), Position(255));
    assert_eq!(until.expect("a history"), Some(history(255, "old")));
    drop(old);
    check(&fixture.reopen(pool));
}

/// Removes all of a generation; can be called again.
pub fn a_removed_generation_leaves_nothing_and_others_stay<F: PoolFixture>(fixture: &mut F) {
    let pool = fixture.create();
    let sales = sample::stream("sales");
    let kept = changes("sales", 1, 9, &["a"]);
    let mut gone = generation("sales", 2, 9, &["a", "b"]);
    gone.notes = vec![(Position(2), Note::Superseded)];
    gone.histories = vec![(
        id("a"),
        History {
            positions: [Position(9)].into_iter().collect(),
            after: item(9, "a"),
        },
    )];
    let other = generation("sales", 258, 9, &["a"]);
    pool.commit(PoolChanges {
        generations: vec![gone, other],
        ..PoolChanges::default()
    })
    .expect("a commit");
    pool.commit(kept.clone()).expect("a commit");
    for _ in 0..2 {
        pool.remove(&sales, Generation(2)).expect("a removal");
    }
    let pool = fixture.reopen(pool);
    let snapshot = pool.snapshot();
    let generations = [
        (sales.clone(), Generation(1)),
        (sales.clone(), Generation(258)),
    ];
    assert_eq!(snapshot.generations().expect("generations"), generations);
    assert!(ids(snapshot.as_ref(), "sales", 2, None, 10).is_empty());
    let notes = snapshot.notes(&sales, Generation(2), Position(0), Position(99));
    assert_eq!(notes.expect("no notes"), []);
    let history = snapshot.history_until(&sales, Generation(2), &id("a"), Position(99));
    assert_eq!(history.expect("no history"), None);
    holds(snapshot.as_ref(), kept);
}
