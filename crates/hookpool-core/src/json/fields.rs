//! The properties of an object by name: a sorted list, since most objects are small and are read once.

use std::{borrow::Cow, ops::Index};

use super::Value;

/// Properties by decoded name, in byte order; of equal names the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields<'a>(Vec<Property<'a>>);

type Property<'a> = (Cow<'a, str>, Value<'a>);

impl<'a> Fields<'a> {
    /// Of properties in the order of their object; and whether a name came twice.
    pub(super) fn of(mut properties: Vec<Property<'a>>) -> (Self, bool) {
        // Stable, so that of equal names the last one stays behind the others.
        properties.sort_by(|(one, _), (other, _)| one.cmp(other));
        let given = properties.len();
        properties.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        let twice = properties.len() < given;
        (Self(properties), twice)
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let at = self
            .0
            .binary_search_by(|(property, _)| property.as_ref().cmp(name))
            .ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether there is such a property.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By name, in byte order.
    pub fn iter(&self) -> std::slice::Iter<'_, Property<'a>> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = Property<'a>;
    type IntoIter = std::vec::IntoIter<Property<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> Index<&str> for Fields<'a> {
    type Output = Value<'a>;

    /// # Panics
    /// Where there is no such property.
    fn index(&self, name: &str) -> &Value<'a> {
        self.get(name).expect("a property of this name")
    }
}
