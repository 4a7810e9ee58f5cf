//! How items differ between two generations, and the sum of all differences of a stream.
//!
//! Only what is seen counts: names and values of fields, not where they came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    fold::Item,
    json::{Kind, Value},
    name::ItemId,
};

/// What there is of an item in the old and the new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Only the new one.
    Added,
    /// Only the old one.
    Removed,
    /// Both, with other fields.
    Changed,
}

impl Sort {
    /// The word used over HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// Old and new value of a field.
pub type Values<'a> = (Option<Value<'a>>, Option<Value<'a>>);

/// How one item differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Whether it is there at all.
    pub sort: Sort,
    /// The fields that differ, by name; for an item that is only in one generation, all.
    pub fields: BTreeMap<&'a str, Values<'a>>,
}

impl<'a> Difference<'a> {
    /// Between what an item was and what it is; `None` if they look the same. One that is deleted is not there.
    #[must_use]
    pub fn between(old: Option<&'a Item>, new: Option<&'a Item>) -> Option<Self> {
        let there = |item: Option<&'a Item>| item.filter(|item| item.is_there());
        let (old, new) = (there(old), there(new));
        let sort = match (old, new) {
            (None, None) => return None,
            (None, Some(_)) => Sort::Added,
            (Some(_), None) => Sort::Removed,
            (Some(_), Some(_)) => Sort::Changed,
        };
        let mut fields: BTreeMap<&str, Values<'_>> = BTreeMap::new();
        for (name, field) in old.into_iter().flat_map(Item::fields) {
            fields.insert(name, (Some(field.value()), None));
        }
        for (name, field) in new.into_iter().flat_map(Item::fields) {
            fields.entry(name).or_default().1 = Some(field.value());
        }
        fields.retain(|_, (old, new)| old != new);
        (sort != Sort::Changed || !fields.is_empty()).then_some(Self { sort, fields })
    }

    /// SHA-256 over the item's id, the sort and every field, each with its length.
    fn digest(&self, id: &ItemId) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        text(id.as_str());
        text(self.sort.as_str());
        for (name, (old, new)) in &self.fields {
            text(name);
            for value in [old, new] {
                let nested = value.map(|value| value.kind == Kind::Nested);
                text(match nested {
                    None => "-",
                    Some(false) => "s",
                    Some(true) => "n",
                });
                text(value.map_or("", |value| value.text));
            }
        }
        hash.finalize().into()
    }
}

/// How many items differ. Stored with a promotion: never rename, only add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Items only in the new generation.
    pub added: u64,
    /// Items only in the old one.
    pub removed: u64,
    /// Items with other fields.
    pub changed: u64,
}

/// The differences of a stream, counted and summed up: equal sums mean equal differences, in whatever order they were added.
///
/// The digests of all differences are added up modulo 2^256, so that one that goes can be taken off again. It guards against a
/// difference that moved unseen, not against an operator who searches for collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DifferenceSum {
    /// Items only in the new generation.
    pub added: u64,
    /// Items only in the old one.
    pub removed: u64,
    /// Items with other fields.
    pub changed: u64,
    /// Little-endian words.
    pub words: [u64; 4],
}

impl DifferenceSum {
    /// Adds the difference of an item.
    pub fn add(&mut self, id: &ItemId, difference: &Difference<'_>) {
        self.count(difference.sort, 1);
        self.words = sum(self.words, words(difference.digest(id)), 0);
    }

    /// Takes it off again.
    pub fn subtract(&mut self, id: &ItemId, difference: &Difference<'_>) {
        self.count(difference.sort, u64::MAX);
        self.words = minus(self.words, words(difference.digest(id)));
    }

    /// Adds the differences of other items, or of the same ones at another time: counts may be negative for a while, modulo 2^64.
    pub fn merge(&mut self, other: &Self) {
        self.added = self.added.wrapping_add(other.added);
        self.removed = self.removed.wrapping_add(other.removed);
        self.changed = self.changed.wrapping_add(other.changed);
        self.words = sum(self.words, other.words, 0);
    }

    fn count(&mut self, sort: Sort, by: u64) {
        let count = match sort {
            Sort::Added => &mut self.added,
            Sort::Removed => &mut self.removed,
            Sort::Changed => &mut self.changed,
        };
        *count = count.wrapping_add(by);
    }

    /// How many there are, once all are added.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            added: self.added,
            removed: self.removed,
            changed: self.changed,
        }
    }

    /// The digest that names these differences: 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for number in [self.added, self.removed, self.changed]
            .iter()
            .chain(&self.words)
        {
            hash.update(number.to_le_bytes());
        }
        const_hex::encode(hash.finalize())
    }
}

fn words(digest: [u8; 32]) -> [u64; 4] {
    let (chunks, _) = digest.as_chunks::<8>();
    let mut words = [0; 4];
    words
        .iter_mut()
        .zip(chunks)
        .for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
    words
}

/// Modulo 2^256; `carry` is 0 or 1.
fn sum(mut a: [u64; 4], b: [u64; 4], mut carry: u64) -> [u64; 4] {
    for (a, b) in a.iter_mut().zip(b) {
        let (partial, over) = a.overflowing_add(b);
        let (whole, over_again) = partial.overflowing_add(carry);
        *a = whole;
        carry = u64::from(over | over_again);
    }
    a
}

fn minus(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    sum(a, b.map(|word| !word), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::{Positions, tests::folded};
    use proptest::prelude::*;

    fn id(text: &str) -> ItemId {
        ItemId::new(text).unwrap()
    }

    #[test]
    fn only_what_is_seen_differs() {
        let old = folded(&[r#"{"a":1,"b":2,"c":{}}"#]);
        let new = folded(&["{}", r#"{"a":1,"b":3,"d":null,"c":{}}"#]);
        let difference = Difference::between(Some(&old), Some(&new)).unwrap();
        let fields: Vec<_> = difference
            .fields
            .iter()
            .map(|(name, (old, new))| (*name, old.map(|v| v.text), new.map(|v| v.text)))
            .collect();
        assert_eq!(
            fields,
            [("b", Some("2"), Some("3")), ("d", None, Some("null"))]
        );
        let again = folded(&["{}", "{}", r#"{"a":1,"b":2,"c":{}}"#]);
        assert_eq!(Difference::between(Some(&old), Some(&again)), None);
        assert_eq!(Difference::between(None, None), None);
        let empty = folded(&["{}"]);
        assert_eq!(
            Difference::between(None, Some(&empty)).unwrap().sort,
            Sort::Added
        );
    }

    #[test]
    fn a_deleted_item_is_not_there() {
        let there = folded(&[r#"{"a":1}"#]);
        let deleted = Item::new(there.position, None, Positions::default(), Vec::new())
            .deleted_at(there.position, false);
        let sort = |old, new| Difference::between(old, new).map(|difference| difference.sort);
        assert_eq!(sort(Some(&there), Some(&deleted)), Some(Sort::Removed));
        assert_eq!(sort(Some(&deleted), Some(&there)), Some(Sort::Added));
        assert_eq!(sort(Some(&deleted), Some(&deleted)), None);
        assert_eq!(sort(None, Some(&deleted)), None);
    }

    #[test]
    fn a_string_and_a_nested_value_of_the_same_text_differ() {
        let old = folded(&[r#"{"a":{}}"#]);
        let new = folded(&[r#"{"a":"{}"}"#]);
        assert!(Difference::between(Some(&old), Some(&new)).is_some());
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_what_is_left_in_any_order(values in prop::collection::vec(0u32..50, 1..20), gone in 0usize..20) {
            let items: Vec<_> = values.iter().map(|n| folded(&[&format!(r#"{{"n":{n}}}"#)])).collect();
            let all: Vec<_> = items.iter().enumerate().map(|(n, item)| (id(&format!("i{n}")), Difference::between(None, Some(item)).unwrap())).collect();
            let gone = gone.min(all.len());
            let (mut forwards, mut backwards) = (DifferenceSum::default(), DifferenceSum::default());
            for (id, difference) in &all {
                forwards.add(id, difference);
            }
            for (id, difference) in &all[..gone] {
                forwards.subtract(id, difference);
            }
            for (id, difference) in all[gone..].iter().rev() {
                backwards.add(id, difference);
            }
            prop_assert_eq!(forwards, backwards);
            prop_assert_eq!(forwards.digest() == DifferenceSum::default().digest(), gone == all.len());
        }
    }
}
