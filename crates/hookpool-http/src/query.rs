//! Query strings, read strictly: a parameter twice or broken is an error, never a guess.

use hookpool_core::{
    selection::{ConditionError, Selection},
    source::{Source, SourceError},
};

use crate::{
    app::Request,
    problem::{Code, Problem},
    render::Nested,
};

/// The parameters of one request, still encoded.
pub(crate) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(crate) fn new(raw: &'a str) -> Self {
        let pair = |part: &'a str| part.split_once('=').unwrap_or((part, ""));
        Self(
            raw.split('&')
                .filter(|part| !part.is_empty())
                .map(pair)
                .collect(),
        )
    }

    /// Those of a request, each of which must be known with its route.
    pub(crate) fn of(request: &'a Request) -> Result<Self, Problem> {
        let (query, known) = (Self::new(&request.query), request.parameters);
        if query.0.iter().all(|(name, _)| known.contains(name)) {
            Ok(query)
        } else {
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            Err(Problem::with(
                Code::InvalidParameter,
                format!("parameters known here: {known}"),
            ))
        }
    }

    /// A parameter's decoded value; an empty one counts as not given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.given(name);
        let (value, again) = (values.next(), values.next());
        if again.is_some() {
            return Err(Problem::with(
                Code::InvalidParameter,
                format!("{name} is given twice"),
            ));
        }
        let value = value.map(|value| text(name, value)).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// A parameter that says where in a body something is: the name of a property, or a JSON Pointer.
    pub(crate) fn source(&self, name: &str) -> Result<Option<Source>, Problem> {
        let invalid =
            |error: SourceError| Problem::with(Code::InvalidParameter, format!("{name}: {error}"));
        let text = self.text(name)?;
        text.map(Source::try_from).transpose().map_err(invalid)
    }

    /// The decoded values of a parameter that may be given several times, without empty ones.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let values: Result<Vec<_>, _> = self.given(name).map(|value| text(name, value)).collect();
        let mut values = values?;
        values.retain(|value| !value.is_empty());
        Ok(values)
    }

    /// What `where`, which may be given several times, and `fields`, names with commas in between, ask for.
    pub(crate) fn selection(&self) -> Result<Selection, Problem> {
        let invalid = |error: ConditionError| {
            Problem::with(Code::InvalidParameter, format!("where: {error}"))
        };
        let conditions = self.texts("where")?;
        let conditions = conditions.iter().map(|text| text.parse().map_err(invalid));
        let names = |text: String| text.split(',').map(Box::from).collect();
        Ok(Selection {
            conditions: conditions.collect::<Result<_, _>>()?,
            fields: self.text("fields")?.map(names),
        })
    }

    /// The query as it was sent, without one parameter, ready for another one to follow.
    pub(crate) fn raw_without(&self, name: &str) -> String {
        let others = self.0.iter().filter(|(given, _)| *given != name);
        others
            .map(|(name, value)| format!("{name}={value}&"))
            .collect()
    }

    fn given(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| *value)
    }

    /// A parameter that is a decimal number in a range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let number = text
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten();
        let outside = || {
            Problem::with(
                Code::InvalidParameter,
                format!(
                    "{name} is a number from {} to {}",
                    range.start(),
                    range.end()
                ),
            )
        };
        number
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(outside)
    }

    /// How nested values are to go out: `expand=json`, or else as strings.
    pub(crate) fn nested(&self) -> Result<Nested, Problem> {
        match self.text("expand")?.as_deref() {
            None => Ok(Nested::AsString),
            Some("json") => Ok(Nested::Expanded),
            Some(_) => Err(Problem::with(Code::InvalidParameter, "expand is json")),
        }
    }

    /// A parameter that is `true` or `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::with(
                Code::InvalidParameter,
                format!("{name} is true or false"),
            )),
        }
    }
}

fn text(name: &str, value: &str) -> Result<String, Problem> {
    let broken = || {
        Problem::with(
            Code::InvalidParameter,
            format!("{name} is not valid percent-encoded UTF-8"),
        )
    };
    decode(value, true).ok_or_else(broken)
}

/// Percent-decodes strictly; `plus` reads `+` as a space, as forms write it.
pub(crate) fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(query: &str) -> Result<Option<String>, ()> {
        Query::new(query).text("idField").map_err(|_| ())
    }

    #[test]
    fn a_parameter_that_may_come_often_keeps_its_order() {
        let texts = |query| Query::new(query).texts("where").map_err(|_| ());
        assert_eq!(
            texts("where=a%3D1&x=y&where=&where=b+c"),
            Ok(vec!["a=1".into(), "b c".into()])
        );
        assert_eq!(texts("where=a&where=%zz"), Err(()));
    }

    #[test]
    fn one_value_is_decoded_and_anything_else_is_an_error() {
        assert_eq!(text("idField=region"), Ok(Some("region".into())));
        assert_eq!(
            text("x=%zz&idField=a%2Eb+c%C3%BC"),
            Ok(Some("a.b cü".into()))
        );
        for absent in ["", "idField", "idField=", "idfield=x", "idField%20=x"] {
            assert_eq!(text(absent), Ok(None), "{absent}");
        }
        for bad in [
            "idField=a&idField=a",
            "idField=&idField=",
            "idField=%",
            "idField=%4",
            "idField=%zz",
            "idField=%ff",
            "idField=%+1",
        ] {
            assert_eq!(text(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn numbers_are_digits_in_their_range() {
        let number = |query| Query::new(query).number("limit", 1..=10).map_err(|_| ());
        assert_eq!((number("limit=10"), number("")), (Ok(Some(10)), Ok(None)));
        for bad in [
            "limit=0",
            "limit=11",
            "limit=+1",
            "limit=1.0",
            "limit=x",
            "limit=99999999999999999999999",
        ] {
            assert_eq!(number(bad), Err(()), "{bad}");
        }
    }
}
