//! One strict pass over a body: what it accepts, every JSON reader accepts.
//!
//! `serde_json`'s `RawValue` keeps the sender's text but lets 100,000 levels and lone surrogates through; its `Value` rounds
//! numbers. This pass keeps the text *and* checks it. It knows nothing of streams or events.

mod fields;

use std::borrow::Cow;

use thiserror::Error;

pub use fields::Fields;

/// Deepest nesting that is accepted; the body's own braces are level 1 (`api.md` section 1).
pub const DEPTH_MAX: u32 = 128;

/// Why a body is not one strict JSON object. It names a place, never a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason} at byte {offset}")]
pub struct JsonError {
    /// Bytes from the start of the body.
    pub offset: usize,
    /// A fixed phrase.
    pub reason: &'static str,
}

/// How a value is stored in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string, number, boolean or null: its JSON text is the value.
    Scalar,
    /// An object or array: stored as a string that holds the JSON text as sent.
    Nested,
}

/// A value as the sender spelled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// How it is stored.
    pub kind: Kind,
    /// The JSON text, exactly as sent.
    pub text: &'a str,
}

impl<'a> Value<'a> {
    /// The decoded text if the value is a JSON string.
    #[must_use]
    pub fn as_string(&self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inner))
    }

    /// The text that names an item by this value: a string's content, or the JSON text of a number or boolean. `None` for null, `""`,
    /// objects and arrays (`api.md` section 1).
    #[must_use]
    pub fn id_text(&self) -> Option<Cow<'a, str>> {
        match (self.kind, self.text) {
            (Kind::Nested, _) | (Kind::Scalar, "null" | "\"\"") => None,
            (Kind::Scalar, text) => Some(self.as_string().unwrap_or(Cow::Borrowed(text))),
        }
    }

    /// The same for what a delivery is named by: `true` and `false` name nothing.
    #[must_use]
    pub fn name_text(&self) -> Option<Cow<'a, str>> {
        self.id_text()
            .filter(|_| !matches!(self.text, "true" | "false"))
    }
}

/// A body that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    /// Of equal names the last one.
    pub fields: Fields<'a>,
    /// Whether a name came twice.
    pub duplicate_keys: bool,
}

/// Reads a body that must be exactly one JSON object.
///
/// # Errors
/// Anything but one object by RFC 8259, and also: invalid UTF-8, a byte order mark, a lone surrogate escape, more than [`DEPTH_MAX`] levels.
pub fn object(body: &[u8]) -> Result<Object<'_>, JsonError> {
    let text = std::str::from_utf8(body).map_err(|error| JsonError {
        offset: error.valid_up_to(),
        reason: "invalid UTF-8",
    })?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let object = scanner.top_level()?;
    scanner.space();
    if scanner.at == text.len() {
        Ok(object)
    } else {
        scanner.fail("unexpected data after the object")
    }
}

/// The value at a path into a value, by the tokens of a JSON Pointer (RFC 6901): names of properties, of equal ones the last, or
/// indexes of arrays. `None` if there is nothing.
///
/// The text must have passed [`object`]; in any other there is nothing.
#[must_use]
pub fn at<'a>(value: Value<'a>, path: &[impl AsRef<str>]) -> Option<Value<'a>> {
    path.iter()
        .try_fold(value, |value, token| step(value, token.as_ref()))
}

fn step<'a>(value: Value<'a>, token: &str) -> Option<Value<'a>> {
    let mut scanner = Scanner {
        text: value.text,
        at: 1,
    };
    let mut found = None;
    match value.text.as_bytes().first()? {
        b'{' => scanner.members(b'}', |scanner| {
            let name = scanner.name()?;
            let value = scanner.field_value()?;
            if name == token {
                found = Some(value);
            }
            Ok(())
        }),
        b'[' => {
            let mut index = index(token)?;
            scanner.members(b']', |scanner| {
                let value = scanner.field_value()?;
                if index == 0 {
                    found = Some(value);
                }
                index = index.wrapping_sub(1);
                Ok(())
            })
        }
        _ => return None,
    }
    .ok()?;
    found
}

/// `0`, or digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (token == "0" || !token.starts_with('0'));
    plain.then(|| token.parse().ok()).flatten()
}

/// The members of a nested object by name, of equal ones the last; `None` if the value is no object.
///
/// The text must have passed [`object`].
#[must_use]
pub fn members<'a>(value: Value<'a>) -> Option<Fields<'a>> {
    object_of(value).map(|object| object.fields)
}

/// The same, and whether a name came twice.
#[must_use]
pub fn object_of<'a>(value: Value<'a>) -> Option<Object<'a>> {
    let mut scanner = Scanner {
        text: value.text,
        at: 0,
    };
    scanner.top_level().ok()
}

/// The elements of an array; `None` if the value is none.
///
/// The text must have passed [`object`].
#[must_use]
pub fn elements<'a>(value: Value<'a>) -> Option<Vec<Value<'a>>> {
    let mut scanner = Scanner {
        text: value.text,
        at: 0,
    };
    scanner.expect(b'[', "expected an array").ok()?;
    let mut elements = Vec::new();
    let all = scanner.members(b']', |scanner| {
        elements.push(scanner.field_value()?);
        Ok(())
    });
    all.ok().map(|()| elements)
}

/// A text that is one JSON value of any kind, by the rules of [`object`]; space around it is not kept.
#[must_use]
pub fn value(text: &str) -> Option<Value<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let value = scanner.field_value().ok()?;
    scanner.space();
    (scanner.at == text.len()).then_some(value)
}

/// Room for the properties of most objects.
const PROPERTIES: usize = 8;

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn top_level(&mut self) -> Result<Object<'a>, JsonError> {
        self.expect(b'{', "expected a JSON object")?;
        let mut properties = Vec::with_capacity(PROPERTIES);
        self.members(b'}', |scanner| {
            let name = scanner.name()?;
            properties.push((name, scanner.field_value()?));
            Ok(())
        })?;
        let (fields, duplicate_keys) = Fields::of(properties);
        Ok(Object {
            fields,
            duplicate_keys,
        })
    }

    fn name(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.fail("expected a property name");
        }
        let quoted = self.taken(Self::string)?;
        self.space();
        self.expect(b':', "expected a colon")?;
        self.space();
        let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
        Ok(unescape(inner))
    }

    fn field_value(&mut self) -> Result<Value<'a>, JsonError> {
        let kind = match self.peek() {
            Some(b'{' | b'[') => Kind::Nested,
            _ => Kind::Scalar,
        };
        let text = self.taken(|scanner| scanner.value(1))?;
        Ok(Value { kind, text })
    }

    /// Passes one value; `depth` is the level of what holds it.
    fn value(&mut self, depth: u32) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.nested(depth, b'}', |scanner| {
                scanner.name()?;
                scanner.value(depth + 1)
            }),
            Some(b'[') => self.nested(depth, b']', |scanner| scanner.value(depth + 1)),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.fail("expected a value"),
        }
    }

    fn nested(
        &mut self,
        depth: u32,
        close: u8,
        member: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return self.fail("nesting deeper than 128 levels");
        }
        self.at += 1;
        self.members(close, member)
    }

    /// Passes comma-separated members up to and including `close`; the opening bracket is behind us.
    fn members(
        &mut self,
        close: u8,
        mut member: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            member(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fail("expected a comma or a closing bracket"),
            }
            self.space();
        }
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            let rest = self.bytes().get(self.at..).unwrap_or_default();
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            self.at += rest.iter().position(special).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail("control character in a string"),
                None => return self.fail("unfinished string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            _ => self.fail("unknown escape"),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), JsonError> {
        match self.code_unit()? {
            0xd800..=0xdbff => {
                if self.peek() == Some(b'\\') {
                    self.at += 1;
                    if self.peek() == Some(b'u') && (0xdc00..=0xdfff).contains(&self.code_unit()?) {
                        return Ok(());
                    }
                }
                self.fail("lone surrogate")
            }
            0xdc00..=0xdfff => self.fail("lone surrogate"),
            _ => Ok(()),
        }
    }

    /// `u` and four hex digits.
    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.bytes().get(self.at + 1..self.at + 5);
        let unit = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        match unit {
            Some(unit) => {
                self.at += 5;
                Ok(unit)
            }
            None => self.fail("broken unicode escape"),
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.skip_one(b"-");
        if !self.skip_one(b"0") {
            self.digits()?;
        }
        if self.skip_one(b".") {
            self.digits()?;
        }
        if self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > from {
            Ok(())
        } else {
            self.fail("expected a digit")
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        if self
            .bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.at += word.len();
            Ok(())
        } else {
            self.fail("expected a value")
        }
    }

    fn taken(
        &mut self,
        pass: impl FnOnce(&mut Self) -> Result<(), JsonError>,
    ) -> Result<&'a str, JsonError> {
        let from = self.at;
        pass(self)?;
        Ok(self.text.get(from..self.at).unwrap_or_default())
    }

    fn skip_one(&mut self, any_of: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.fail(reason)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, JsonError> {
        Err(JsonError {
            offset: self.at,
            reason,
        })
    }
}

/// Decodes the inside of a string that passed the scanner.
fn unescape(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // The text passed the scanner, so a reader of plain JSON strings takes it too.
    let quoted = format!("\"{inner}\"");
    Cow::Owned(serde_json::from_str(&quoted).expect("a scanned string is a JSON string"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn accepts(body: &str) -> bool {
        object(body.as_bytes()).is_ok()
    }

    #[test]
    fn keeps_the_text_of_every_value() {
        let body = br#" { "a" : 1.0 , "b":-1e+2,"c":{"x": [ 1 ]},"d":"\u0041","e":null,"f":123456789012345678901234567890 } "#;
        let object = object(body).unwrap();
        let texts: Vec<_> = object
            .fields
            .iter()
            .map(|(k, v)| (k.as_ref(), v.kind, v.text))
            .collect();
        assert_eq!(
            texts,
            [
                ("a", Kind::Scalar, "1.0"),
                ("b", Kind::Scalar, "-1e+2"),
                ("c", Kind::Nested, r#"{"x": [ 1 ]}"#),
                ("d", Kind::Scalar, r#""\u0041""#),
                ("e", Kind::Scalar, "null"),
                ("f", Kind::Scalar, "123456789012345678901234567890"),
            ]
        );
    }

    #[test]
    fn last_of_equal_names_wins_also_through_escapes() {
        let object = object(br#"{"a":1,"\u0061":2,"":3}"#).unwrap();
        assert!(object.duplicate_keys);
        assert_eq!(object.fields["a"].text, "2");
        assert_eq!(object.fields.len(), 2);
    }

    #[test]
    fn refuses_what_is_not_one_object() {
        for bad in [
            "",
            " ",
            "[]",
            "1",
            "\"a\"",
            "null",
            "true",
            "\u{feff}{}",
            "{}x",
            "{} {}",
            "{\"a\":1,}",
            "{,}",
            "{'a':1}",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1 \"b\":2}",
            "{",
            "{\"a\":1",
            "{\"a",
            "/**/{}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":tru}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":+1}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":01}",
            "{\"a\":0x1}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u+123\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"\\ud800\\n\"}",
            "{\"a\":\"\\ud800\\u0041\"}",
            "{\"a\":[\"\\ud800\"]}",
            "{\"\\ud800\":1}",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        for bad in [
            &b"{\"a\":\"\xff\"}"[..],
            b"{\"a\":\"\xc0\xaf\"}",
            b"{\"a\":\"\xed\xa0\x80\"}",
        ] {
            assert_eq!(object(bad).unwrap_err().reason, "invalid UTF-8");
        }
    }

    #[test]
    fn takes_what_strict_json_allows() {
        for good in [
            "{}",
            " {\t}\r\n",
            "{\"a\":1e400}",
            "{\"a\":-0}",
            "{\"a\":\"\\ud83d\\ude00\\u0000\\/\"}",
            "{\"\":[[],{}]}",
        ] {
            assert!(accepts(good), "{good}");
        }
    }

    #[test]
    fn depth_128_is_in_and_129_is_out() {
        let nested = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(accepts(&nested(128)));
        assert!(!accepts(&nested(129)));
        assert!(!accepts(&format!("{{\"a\":{}", "[".repeat(1_000_000))));
    }

    #[test]
    fn a_pointer_finds_what_serde_json_finds() {
        let body = r#"{"a":{"b":[1,{"c":"x","c":2.0}],"a/b":null,"":{"k":0}},"n":1}"#;
        let body: Value<'_> = value(body).unwrap();
        let serde: serde_json::Value = serde_json::from_str(body.text).unwrap();
        for pointer in [
            "",
            "/a",
            "/a/b",
            "/a/b/0",
            "/a/b/1/c",
            "/a/b/2",
            "/a/b/-",
            "/a/b/01",
            "/a//k",
            "/n",
            "/n/x",
            "/x",
            "/a/b/99999999999999999999",
        ] {
            let tokens: Vec<&str> = pointer.split('/').skip(1).collect();
            let found = at(body, &tokens)
                .map(|value| serde_json::from_str::<serde_json::Value>(value.text).unwrap());
            assert_eq!(found.as_ref(), serde.pointer(pointer), "{pointer}");
        }
        assert_eq!(at(body, &["a", "a/b"]).unwrap().text, "null");
        assert_eq!(at(body, &["a", "b", "1", "c"]).unwrap().text, "2.0");
    }

    #[test]
    fn elements_are_those_of_an_array() {
        let texts = |text| {
            let elements = elements(value(text).unwrap())?;
            Some(elements.iter().map(|it| it.text).collect::<Vec<_>>())
        };
        assert_eq!(
            texts(r#"[ 1 ,{"a":[2]}, "]"]"#),
            Some(vec!["1", r#"{"a":[2]}"#, r#""]""#])
        );
        assert_eq!(texts("[ ]"), Some(vec![]));
        assert_eq!((texts("{}"), texts("1")), (None, None));
    }

    #[test]
    fn any_value_is_one_value() {
        assert_eq!(value(" [1, 2] ").unwrap().text, "[1, 2]");
        assert_eq!(value("1").unwrap().kind, Kind::Scalar);
        for bad in ["", "1 2", "x", "{", "'a'"] {
            assert!(value(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn strings_decode_for_ids() {
        let body = br#"{"a":"x\n\ud83d\ude00","b":1}"#;
        let object = object(body).unwrap();
        assert_eq!(object.fields["a"].as_string().unwrap(), "x\n\u{1f600}");
        assert!(object.fields["b"].as_string().is_none());
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            any::<f64>().prop_map(|f| serde_json::to_string(&f).unwrap()),
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6)
                    .prop_map(|v| format!("[{}]", v.join(" ,"))),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| {
                    let members: Vec<_> = members
                        .iter()
                        .map(|(k, v)| format!("{} : {v}", serde_json::to_string(k).unwrap()))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn agrees_with_serde_json_on_valid_objects(value in json()) {
            let body = format!("{{\"v\":{value}}}");
            let ours = object(body.as_bytes()).unwrap();
            prop_assert_eq!(ours.fields["v"].text, value.as_str());
        }

        #[test]
        fn accepts_nothing_that_serde_json_refuses(value in json(), at: prop::sample::Index, byte: u8) {
            let mut body = format!("{{\"v\":{value}}}").into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            if object(&body).is_ok() {
                let theirs = serde_json::from_slice::<BTreeMap<String, Box<serde_json::value::RawValue>>>(&body);
                prop_assert!(theirs.is_ok(), "{:?}", String::from_utf8_lossy(&body));
            }
        }
    }
}
