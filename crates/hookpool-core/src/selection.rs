//! What a reader wants of a stream: items that meet conditions, and of these some fields.
//!
//! Pure and total: a condition that was read holds or does not, whatever an item looks like.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeSet, str::FromStr};

use thiserror::Error;

use crate::{
    fold::Item,
    json::{self, Kind, Value},
    projection::Decimal,
};

/// Conditions and fields; the default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Names of fields; `None` is all of them.
    pub fields: Option<BTreeSet<Box<str>>>,
}

impl Selection {
    /// Whether all conditions hold.
    #[must_use]
    pub fn takes(&self, item: &Item) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(item))
    }

    /// Whether a field is one of those that are wanted.
    #[must_use]
    pub fn shows(&self, field: &str) -> bool {
        self.fields
            .as_ref()
            .is_none_or(|fields| fields.contains(field))
    }

    /// Whether it is everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.conditions.is_empty() && self.fields.is_none()
    }
}

/// Why a text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// There is no name before the operator.
    #[error("read the condition: it does not begin with the name of a field")]
    NoField,
    /// `<` and its like need a number or a string.
    #[error("read the condition on {0}: true, false and null have no order")]
    NoOrder(Box<str>),
}

/// What must hold of an item: `name` (the field is there), `!name` (it is not), or `name`, an operator (`=`, `!=`, `<`, `<=`, `>`, `>=`) and a
/// value.
///
/// A value is a JSON scalar, or else a string as it stands; so `5` is the number and `"5"` the string. Numbers are compared digit by
/// digit and only with numbers, strings by their bytes and only with strings; a nested value is the string of its JSON text. `!=` holds
/// where `=` does not, also where there is no such field. A name that holds an operator is written as a JSON string.
///
/// ```
/// use hookpool_core::selection::Condition;
///
/// let condition: Condition = "sales>=1e3".parse()?;
/// # Ok::<(), hookpool_core::selection::ConditionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    field: Box<str>,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Test {
    Present,
    Absent,
    Compares(Operator, Literal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longest first, so that none is taken for the beginning of another.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl Operator {
    /// Of values that may not be comparable.
    fn holds(self, ordering: Option<Ordering>) -> bool {
        match self {
            Self::Equal => ordering == Some(Ordering::Equal),
            Self::NotEqual => ordering != Some(Ordering::Equal),
            Self::Less => ordering.is_some_and(Ordering::is_lt),
            Self::LessOrEqual => ordering.is_some_and(Ordering::is_le),
            Self::Greater => ordering.is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
        }
    }

    fn needs_order(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Literal {
    Number(Decimal),
    Text(Box<str>),
    /// `true`, `false` or `null`.
    Word(Box<str>),
}

impl Literal {
    fn read(text: &str) -> Self {
        let scalar = json::value(text)
            .filter(|value| value.kind == Kind::Scalar && value.text == text)
            .map(Self::of);
        scalar.unwrap_or_else(|| Self::Text(text.into()))
    }

    fn of(value: Value<'_>) -> Self {
        let string = match value.kind {
            Kind::Scalar => value.as_string(),
            Kind::Nested => Some(Cow::Borrowed(value.text)),
        };
        match (string, Decimal::parse(value.text)) {
            (Some(text), _) => Self::Text(text.as_ref().into()),
            (None, Some(number)) => Self::Number(number),
            (None, None) => Self::Word(value.text.into()),
        }
    }

    /// `None` for values of different sorts, and for words that differ.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Word(one), Self::Word(other)) => (one == other).then_some(Ordering::Equal),
            (Self::Number(_) | Self::Text(_) | Self::Word(_), _) => None,
        }
    }
}

impl Condition {
    /// Whether it holds of an item.
    #[must_use]
    pub fn holds(&self, item: &Item) -> bool {
        let field = item.field(&self.field);
        match &self.test {
            Test::Present => field.is_some(),
            Test::Absent => field.is_none(),
            Test::Compares(operator, literal) => {
                let value = field.map(|field| Literal::of(field.value()));
                operator.holds(value.and_then(|value| value.compare(literal)))
            }
        }
    }
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        if let Some(name) = text.strip_prefix('!') {
            let (field, rest) = name_of(name).ok_or(ConditionError::NoField)?;
            let test = Test::Absent;
            return match rest {
                "" => Ok(Self { field, test }),
                _ => Err(ConditionError::NoField),
            };
        }
        let (field, rest) = name_of(text).ok_or(ConditionError::NoField)?;
        let operator = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)));
        let test = match operator {
            None if rest.is_empty() => Test::Present,
            // Something stands between a quoted name and the operator.
            None => return Err(ConditionError::NoField),
            Some((operator, value)) => {
                let literal = Literal::read(value);
                if operator.needs_order() && matches!(literal, Literal::Word(_)) {
                    return Err(ConditionError::NoOrder(field));
                }
                Test::Compares(operator, literal)
            }
        };
        Ok(Self { field, test })
    }
}

/// The name of a field at the beginning of a text, and what follows it.
fn name_of(text: &str) -> Option<(Box<str>, &str)> {
    if text.starts_with('"') {
        let (quoted, rest) = text.split_at_checked(quoted_bytes(text)?)?;
        let name = json::value(quoted)?.as_string()?;
        return Some((name.as_ref().into(), rest));
    }
    let end = text.find(['=', '!', '<', '>']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.into(), rest))
}

/// Length of the JSON string at the beginning of a text, its quotes included.
fn quoted_bytes(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map(|end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, NewEvent, Op, RequestId},
        name::{ConnectorName, ItemId, StreamName},
        position::Position,
        projection::Projection,
        time::Timestamp,
    };

    fn item(body: &'static str) -> Item {
        let event = Event {
            position: Position(1),
            event: NewEvent {
                time: Timestamp(1),
                stream: StreamName::new("s").unwrap(),
                op: Op::Upsert,
                item_id: ItemId::new("i").unwrap(),
                generated_id: false,
                duplicate_keys: false,
                field_count: 1,
                connector: ConnectorName::new("c").unwrap(),
                request_id: RequestId([0; 16]),
                dedupe: None,
                idempotency: None,
                body: bytes::Bytes::from_static(body.as_bytes()),
            },
        };
        let object = json::object(body.as_bytes()).unwrap();
        let projection = Projection::default();
        let change = projection.read(&event, object.fields).unwrap();
        let mut item = Item::default();
        assert_eq!(item.apply(&event, &change, &projection), None);
        item
    }

    fn holds(condition: &str, body: &'static str) -> bool {
        condition.parse::<Condition>().unwrap().holds(&item(body))
    }

    #[test]
    fn values_are_compared_with_values_of_their_sort() {
        let body = r#"{"n":1000,"big":123456789012345678901234567890,"s":"North","five":"5","t":true,"z":null,"o":{"a":1},"e":""}"#;
        for (condition, expected) in [
            ("n=1e3", true),
            ("n=1000.0", true),
            ("n>=1000", true),
            ("n>1000", false),
            ("n<1000.0000000000000000000001", true),
            ("big=123456789012345678901234567890", true),
            ("big>123456789012345678901234567889", true),
            ("n=\"1000\"", false),
            ("s=North", true),
            ("s=\"North\"", true),
            ("s!=South", true),
            ("s<O", true),
            ("s>5", false),
            ("five=5", false),
            ("five=\"5\"", true),
            ("t=true", true),
            ("t=false", false),
            ("t!=false", true),
            ("t=\"true\"", false),
            ("z=null", true),
            ("z", true),
            ("!z", false),
            ("none", false),
            ("!none", true),
            ("none=1", false),
            ("none!=1", true),
            ("none<1", false),
            (r#"o={"a":1}"#, true),
            ("e=", true),
            ("s=", false),
        ] {
            assert_eq!(holds(condition, body), expected, "{condition}");
        }
    }

    #[test]
    fn names_may_hold_operators_where_they_are_quoted() {
        let body = r#"{"a=b":1,"c d":"x=y","!":2}"#;
        for condition in [
            r#""a=b"=1"#,
            "c d=x=y",
            r#""!"=2"#,
            r#""a=b""#,
            r#"!"a=c""#,
            r#""c\u0020d"=x=y"#,
        ] {
            assert!(holds(condition, body), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_said() {
        for text in ["", "=1", "!", "!=1", "<", "!a=1", r#""a"b=1"#, "\"a"] {
            assert_eq!(
                text.parse::<Condition>(),
                Err(ConditionError::NoField),
                "{text}"
            );
        }
        assert_eq!(
            "a<true".parse::<Condition>(),
            Err(ConditionError::NoOrder("a".into()))
        );
    }

    #[test]
    fn a_selection_takes_what_meets_all_conditions() {
        let selection = |conditions: &[&str], fields: Option<&[&str]>| Selection {
            conditions: conditions
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            fields: fields.map(|names| names.iter().map(|name| Box::from(*name)).collect()),
        };
        let item = item(r#"{"a":1,"b":2}"#);
        assert!(selection(&[], None).is_all() && selection(&[], None).takes(&item));
        assert!(selection(&["a=1", "b=2"], None).takes(&item));
        assert!(!selection(&["a=1", "b=3"], None).takes(&item));
        let some = selection(&[], Some(&["a"]));
        assert!(some.shows("a") && !some.shows("b") && !some.is_all());
    }
}
