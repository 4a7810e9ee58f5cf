//! A projection: the versioned rules by which the events of a stream become items. Data, small and total.
//!
//! [`Rules`] is what an operator writes, [`Projection`] what is made of it. [`Projection::read`] says what an event does to which
//! item, or why it fits the rules not at all: then it goes to quarantine, and the stream goes on. What an event does may also depend
//! on what its item held before; that is for [`crate::fold`].

mod convert;
mod order;
mod rules;
mod time;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use thiserror::Error;

pub(crate) use order::Decimal;
pub use order::Order;
pub use rules::{FieldRule, Merge, Nulls, Rules, RulesError, Type, Unknown};

use crate::{
    event::Event,
    json::{self, Fields, Kind, Value},
    name::ItemId,
};
use rules::CompiledField;

/// Why an event fits no item under a projection. It names rules, never contents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfit {
    /// The id rule finds a text that can't name an item.
    #[error("the id is longer than 256 bytes or holds a control character")]
    ItemId,
    /// A field's value is not of its type.
    #[error("field {0} is not a {1}")]
    Type(Box<str>, Type),
    /// The value to order by is an object, an array or a boolean.
    #[error("the value of order-by is neither a number nor a string")]
    Order,
    /// Flattened fields have one name, or one longer than [`NAME_BYTES_MAX`].
    #[error(
        "field {0} can't be flattened: two fields have one name, or a name is longer than 1024 bytes"
    )]
    Flattened(Box<str>),
    /// The item would be larger than [`crate::fold::ITEM_BYTES_MAX`].
    #[error("the item would be larger than 16 MiB")]
    TooLarge,
}

/// The JSON Schema (2020-12) of [`Rules`], for editors. What it can't say, [`Projection::new`] checks.
pub const SCHEMA: &str = include_str!("projection/schema.json");

/// Longest name of a flattened field: it is the sum of names that a sender chose.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Rules ready to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection {
    /// Counted from 1; 0 is the behaviour of the webhook page, which every stream has until somebody says otherwise.
    pub version: u32,
    rules: Rules,
    fields: Vec<CompiledField>,
    /// Properties that some rule names, as its field or as the whole of what it takes.
    named: BTreeSet<Box<str>>,
    /// Whether there is any rule; without one, bodies are taken as they are.
    ruled: bool,
}

/// What an event does to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which item.
    pub item_id: Cow<'a, ItemId>,
    /// Fields that go away.
    pub unset: BTreeSet<Cow<'a, str>>,
    /// What the event is ordered by, where its projection orders.
    pub order: Option<Order>,
    set: Set<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Set<'a> {
    /// The properties of the body as they are.
    Whole(Fields<'a>),
    Ruled(BTreeMap<Cow<'a, str>, Text<'a>>),
}

/// A value that may have been converted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text<'a> {
    kind: Kind,
    text: Cow<'a, str>,
}

impl<'a> From<Value<'a>> for Text<'a> {
    fn from(Value { kind, text }: Value<'a>) -> Self {
        Self {
            kind,
            text: Cow::Borrowed(text),
        }
    }
}

impl Text<'_> {
    fn value(&self) -> Value<'_> {
        Value {
            kind: self.kind,
            text: &self.text,
        }
    }

    fn is_null(&self) -> bool {
        self.kind == Kind::Scalar && self.text == "null"
    }
}

impl<'a> Change<'a> {
    /// The fields that the event sets, by name in byte order.
    pub fn set(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let (whole, ruled) = match &self.set {
            Set::Whole(fields) => (Some(fields), None),
            Set::Ruled(fields) => (None, Some(fields)),
        };
        let whole = whole.into_iter().flat_map(Fields::iter);
        let ruled = ruled.into_iter().flatten();
        whole
            .map(|(name, value)| (name.as_ref(), *value))
            .chain(ruled.map(|(name, text)| (name.as_ref(), text.value())))
    }

    /// Whether the event sets this field.
    #[must_use]
    pub fn sets(&self, name: &str) -> bool {
        match &self.set {
            Set::Whole(fields) => fields.contains_key(name),
            Set::Ruled(fields) => fields.contains_key(name),
        }
    }

    /// Sets one more field.
    fn add(&mut self, name: Cow<'a, str>, text: Text<'a>) {
        if let Set::Ruled(fields) = &mut self.set {
            fields.insert(name, text);
        }
    }
}

impl Projection {
    /// Checks rules and makes them ready.
    ///
    /// # Errors
    /// [`RulesError`] where the rules contradict themselves.
    pub fn new(version: u32, rules: Rules) -> Result<Self, RulesError> {
        let fields = rules.compile()?;
        let named = fields
            .iter()
            .flat_map(|field| [Some(field.name.as_ref()), field.source.whole_property()])
            .flatten()
            .map(Box::from)
            .collect();
        let ruled = rules != Rules::default();
        Ok(Self {
            version,
            rules,
            fields,
            named,
            ruled,
        })
    }

    /// What the operator wrote.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether bodies are taken as they are.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.ruled
    }

    /// Whether an event replaces its item.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.rules.merge == Merge::Replace
    }

    /// Whether events are applied in log order and no event takes a field away: then what set the fields of an item is all that it needs.
    #[must_use]
    pub fn only_adds(&self) -> bool {
        self.rules.merge == Merge::Merge
            && self.rules.nulls == Nulls::Store
            && self.rules.order_by.is_none()
    }

    /// What an event does to which item; `fields` are those of its body.
    ///
    /// # Errors
    /// [`Unfit`] where the event doesn't fit the rules.
    pub fn read<'a>(&'a self, event: &'a Event, fields: Fields<'a>) -> Result<Change<'a>, Unfit> {
        let item_id = self.item_id(event, &fields)?;
        let order = match &self.rules.order_by {
            Some(source) => source.find(&fields).map(Order::of).transpose()?.flatten(),
            None => None,
        };
        let mut change = Change {
            item_id,
            unset: BTreeSet::new(),
            order,
            set: Set::Whole(Fields::default()),
        };
        if self.is_plain() {
            change.set = Set::Whole(fields);
            return Ok(change);
        }
        let mut set = self.mapped(&fields)?;
        if self.rules.unknown == Unknown::Keep {
            for (name, value) in fields {
                if !self.named.contains(name.as_ref()) && !set.contains_key(&name) {
                    set.insert(name, value.into());
                }
            }
        }
        if self.rules.nulls == Nulls::Delete {
            let gone: Vec<_> = set.extract_if(.., |_, text| text.is_null()).collect();
            change.unset = gone.into_iter().map(|(name, _)| name).collect();
        }
        change.set = Set::Ruled(set);
        Ok(change)
    }

    fn item_id<'a>(&self, event: &'a Event, fields: &Fields<'a>) -> Result<Cow<'a, ItemId>, Unfit> {
        let found = self
            .rules
            .id
            .as_ref()
            .and_then(|source| source.find(fields))
            .and_then(|value| value.id_text());
        match found {
            Some(text) => ItemId::new(text).map(Cow::Owned).map_err(|_| Unfit::ItemId),
            None => Ok(Cow::Borrowed(&event.event.item_id)),
        }
    }

    /// The fields that rules make.
    fn mapped<'a>(
        &'a self,
        fields: &Fields<'a>,
    ) -> Result<BTreeMap<Cow<'a, str>, Text<'a>>, Unfit> {
        let mut set = BTreeMap::new();
        for rule in self.fields.iter().filter(|rule| !rule.drop) {
            let Some(value) = rule.source.find(fields) else {
                continue;
            };
            let fits = match &rule.flatten {
                Some(separator) => flatten(&rule.name, value, separator, &mut set),
                None => insert(&mut set, Cow::Borrowed(&rule.name), rule.convert(value)?),
            };
            fits.ok_or_else(|| Unfit::Flattened(rule.name.clone()))?;
        }
        Ok(set)
    }

    /// Fields that have a default.
    pub(crate) fn defaults(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.fields
            .iter()
            .filter_map(|field| Some((field.name.as_ref(), field.default.as_ref()?.value())))
    }

    /// Adds to what an event says what became of it: fields that got their default, and fields that went with a replaced item.
    pub fn adjust<'a>(
        &'a self,
        change: &mut Change<'a>,
        defaulted: &[Box<str>],
        unset: &'a [Box<str>],
    ) {
        for field in &self.fields {
            if let Some(default) = field
                .default
                .as_ref()
                .filter(|_| defaulted.contains(&field.name))
            {
                change.unset.remove(field.name.as_ref());
                change.add(Cow::Borrowed(&field.name), default.value().into());
            }
        }
        change
            .unset
            .extend(unset.iter().map(|name| Cow::Borrowed(name.as_ref())));
    }
}

/// One field for each leaf of a nested object, named by its path; what is no object is one field.
fn flatten<'a>(
    name: &str,
    value: Value<'a>,
    separator: &str,
    set: &mut BTreeMap<Cow<'a, str>, Text<'a>>,
) -> Option<()> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    match json::members(value) {
        Some(members) => members.into_iter().try_for_each(|(member, value)| {
            flatten(&format!("{name}{separator}{member}"), value, separator, set)
        }),
        None => insert(set, Cow::Owned(name.to_owned()), value.into()),
    }
}

/// `None` if there is one already.
fn insert<'a>(
    set: &mut BTreeMap<Cow<'a, str>, Text<'a>>,
    name: Cow<'a, str>,
    text: Text<'a>,
) -> Option<()> {
    let new = !set.contains_key(&name);
    set.insert(name, text);
    new.then_some(())
}

#[cfg(test)]
mod tests;
