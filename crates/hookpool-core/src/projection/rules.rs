//! The rules as an operator writes them: TOML in files, the same keys as JSON over HTTP.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::{Text, Unfit, convert::convert};
use crate::{
    json::{self, Value},
    source::Source,
};

/// A rule that is there says something: it is left out and not `null` where there is none.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(rule: D) -> Result<Option<T>, D::Error> {
    T::deserialize(rule).map(Some)
}

/// The rules of a projection. Left out, each is what the webhook page does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rules {
    /// Where the item id is; an event without it keeps the id that was fixed when it was appended.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub id: Option<Source>,
    /// What happens to fields that an event does not name.
    #[serde(default)]
    pub merge: Merge,
    /// What a null does.
    #[serde(default)]
    pub nulls: Nulls,
    /// What happens to properties that no rule names.
    #[serde(default)]
    pub unknown: Unknown,
    /// Where a time or version is; an event with an older one than its item has seen changes nothing.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub order_by: Option<Source>,
    /// By name of the field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<Box<str>, FieldRule>,
}

/// What happens to fields that an event does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// They stay.
    #[default]
    Merge,
    /// They go.
    Replace,
}

/// What a null does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    /// It is a value.
    #[default]
    Store,
    /// It takes its field away.
    Delete,
}

/// What happens to properties that no rule names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// Each is a field.
    #[default]
    Keep,
    /// None is.
    Drop,
}

/// The rule of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FieldRule {
    /// Where its value is; left out, the property of its name.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub from: Option<Source>,
    /// What the value becomes; left out, it is taken as it is.
    #[serde(
        rename = "type",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub into: Option<Type>,
    /// What the field is while no event gives it a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// A nested object becomes a field for each of its leaves, named by the path with this between its parts.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub flatten: Option<Box<str>>,
    /// There is no such field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop: bool,
}

/// What a value can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// Whatever is no string becomes its JSON text.
    String,
    /// Also out of a string that holds one.
    Number,
    /// Also out of the strings `true` and `false`.
    Boolean,
    /// RFC 3339 or Unix time, as RFC 3339 in UTC.
    Time,
    /// What a string holds; what is no string stays.
    Json,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Time => "time",
            Self::Json => "JSON text",
        })
    }
}

/// Rules that can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RulesError {
    /// A rule says two things.
    #[error("field {0}: {1}")]
    Field(Box<str>, &'static str),
    /// Too many.
    #[error("a projection has at most {FIELDS_MAX} field rules")]
    TooMany,
}

/// Rules of fields in one projection.
const FIELDS_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompiledField {
    pub(super) name: Box<str>,
    pub(super) source: Source,
    pub(super) into: Option<Type>,
    pub(super) default: Option<DefaultValue>,
    pub(super) flatten: Option<Box<str>>,
    pub(super) drop: bool,
}

/// A default as it is stored in items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DefaultValue {
    kind: json::Kind,
    text: Box<str>,
}

impl DefaultValue {
    pub(super) fn value(&self) -> Value<'_> {
        Value {
            kind: self.kind,
            text: &self.text,
        }
    }
}

impl CompiledField {
    pub(super) fn convert<'a>(&self, value: Value<'a>) -> Result<Text<'a>, Unfit> {
        match self.into {
            Some(into) => convert(value, into).ok_or_else(|| Unfit::Type(self.name.clone(), into)),
            None => Ok(value.into()),
        }
    }
}

impl Rules {
    pub(super) fn compile(&self) -> Result<Vec<CompiledField>, RulesError> {
        if self.fields.len() > FIELDS_MAX {
            return Err(RulesError::TooMany);
        }
        self.fields
            .iter()
            .map(|(name, rule)| rule.compile(name))
            .collect()
    }
}

impl FieldRule {
    fn compile(&self, name: &str) -> Result<CompiledField, RulesError> {
        let fail = |why| Err(RulesError::Field(name.into(), why));
        let others = self.into.is_some() || self.default.is_some();
        if self.drop && (others || self.flatten.is_some()) {
            return fail("what is dropped has no type, default or flatten");
        }
        if self.flatten.is_some() && others {
            return fail("what is flattened has no type or default");
        }
        let source = self.from.clone().unwrap_or_else(|| Source::property(name));
        let mut field = CompiledField {
            name: name.into(),
            source,
            into: self.into,
            default: None,
            flatten: self.flatten.clone(),
            drop: self.drop,
        };
        if let Some(default) = &self.default {
            let text = default.to_string();
            let value = json::value(&text).and_then(|value| field.convert(value).ok());
            let Some(Text { kind, text }) = value else {
                return fail("its default does not fit its type");
            };
            field.default = Some(DefaultValue {
                kind,
                text: text.into(),
            });
        }
        Ok(field)
    }
}
