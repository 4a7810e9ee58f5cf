//! The bodies that a sender may have signed in place of the one that it sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a body differs from the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewriting {
    /// JSON without white space.
    Compact,
    /// JSON with a space behind each comma and colon.
    Spaced,
    /// JSON with the properties in order, without white space.
    Sorted,
    /// The same with a space behind each comma and colon.
    SortedSpaced,
    /// JSON with an indent of two.
    Indented,
    /// A line feed behind it.
    LineFeedAdded,
    /// Without the line end behind it.
    LineEndRemoved,
    /// CR LF in place of LF.
    CrLf,
    /// LF in place of CR LF.
    Lf,
    /// Nothing at all.
    Empty,
}

impl fmt::Display for Rewriting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compact => "after JSON re-serialisation, without white space",
            Self::Spaced => "after JSON re-serialisation, with a space behind each comma and colon",
            Self::Sorted => "after JSON re-serialisation, with sorted properties",
            Self::SortedSpaced => "after JSON re-serialisation, with sorted properties and a space behind each comma and colon",
            Self::Indented => "after JSON re-serialisation, with an indent of two",
            Self::LineFeedAdded => "with a line feed behind it",
            Self::LineEndRemoved => "without the line end behind it",
            Self::CrLf => "with CR LF at the ends of lines",
            Self::Lf => "with LF at the ends of lines",
            Self::Empty => "left out: the empty text",
        })
    }
}

/// All that differ from the body itself; non-ASCII characters of JSON once as they are, once escaped.
pub(super) fn all(body: &[u8]) -> Vec<(Rewriting, Vec<u8>)> {
    let mut bodies = vec![
        (Rewriting::LineFeedAdded, [body, b"\n"].concat()),
        (Rewriting::LineEndRemoved, body.trim_ascii_end().to_vec()),
        (Rewriting::Lf, without_cr(body)),
        (Rewriting::CrLf, with_cr(&without_cr(body))),
        (Rewriting::Empty, Vec::new()),
    ];
    let text = std::str::from_utf8(body).ok();
    let value = serde_json::from_slice::<serde_json::Value>(body).ok();
    if let (Some(text), Some(value)) = (text, value) {
        let mut push = |how, text: String| {
            let escaped = escaped(&text);
            bodies.push((how, text.into_bytes()));
            bodies.push((how, escaped.into_bytes()));
        };
        // Numbers and the order of properties as they are: nothing but white space is touched.
        push(Rewriting::Compact, respaced(text, false));
        push(Rewriting::Spaced, respaced(text, true));
        let sorted = value.to_string();
        push(Rewriting::SortedSpaced, respaced(&sorted, true));
        push(Rewriting::Sorted, sorted);
        push(Rewriting::Indented, indented(text));
    }
    bodies.retain(|(_, rewritten)| rewritten != body);
    bodies
}

fn without_cr(body: &[u8]) -> Vec<u8> {
    let mut parts = body.split(|byte| *byte == b'\n');
    let mut all = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        if all.last() == Some(&b'\r') {
            all.pop();
        }
        all.push(b'\n');
        all.extend_from_slice(part);
    }
    all
}

fn with_cr(body: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(body.len());
    for byte in body {
        if *byte == b'\n' {
            all.push(b'\r');
        }
        all.push(*byte);
    }
    all
}

/// The tokens of valid JSON: whole strings, and else single characters, without white space.
fn tokens(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let length = match rest.chars().next()? {
            '"' => string_length(rest),
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(token)
    })
}

fn string_length(json: &str) -> usize {
    let mut escaped = false;
    let end = json.bytes().enumerate().skip(1).find(|(_, byte)| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |(at, _)| at + 1)
}

fn respaced(json: &str, spaces: bool) -> String {
    let mut all = String::with_capacity(json.len());
    for token in tokens(json) {
        all.push_str(token);
        if spaces && matches!(token, "," | ":") {
            all.push(' ');
        }
    }
    all
}

fn indented(json: &str) -> String {
    let mut all = String::with_capacity(json.len() * 2);
    let (mut depth, mut opened) = (0_usize, false);
    let line = |all: &mut String, depth: usize| {
        all.push('\n');
        all.extend(std::iter::repeat_n("  ", depth));
    };
    for token in tokens(json) {
        let closes = matches!(token, "}" | "]");
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty object or array stays on its line.
        if closes != opened {
            line(&mut all, depth);
        }
        opened = matches!(token, "{" | "[");
        all.push_str(token);
        match token {
            "{" | "[" => depth += 1,
            "," => line(&mut all, depth),
            ":" => all.push(' '),
            _ => {}
        }
    }
    all
}

/// Non-ASCII characters as JSON's escapes of UTF-16, in lower case.
fn escaped(json: &str) -> String {
    let mut all = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            all.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                all.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(body: &str, how: Rewriting) -> Vec<String> {
        let all = all(body.as_bytes()).into_iter();
        all.filter(|(found, _)| *found == how)
            .map(|(_, body)| String::from_utf8(body).unwrap())
            .collect()
    }

    #[test]
    fn json_is_written_as_others_write_it() {
        let body = r#"{ "b":1.0, "a" : ["x, y: \"z\"",{} , []],"c":"é"}"#;
        let compact = r#"{"b":1.0,"a":["x, y: \"z\"",{},[]],"c":"é"}"#;
        assert_eq!(
            rewritten(body, Rewriting::Compact),
            [compact.to_owned(), compact.replace('é', "\\u00e9")]
        );
        assert_eq!(
            rewritten(body, Rewriting::Spaced)[0],
            r#"{"b": 1.0, "a": ["x, y: \"z\"", {}, []], "c": "é"}"#
        );
        assert_eq!(
            rewritten(body, Rewriting::Sorted)[0],
            r#"{"a":["x, y: \"z\"",{},[]],"b":1.0,"c":"é"}"#
        );
        let indented = "{\n  \"b\": 1.0,\n  \"a\": [\n    \"x, y: \\\"z\\\"\",\n    {},\n    []\n  ],\n  \"c\": \"é\"\n}";
        assert_eq!(rewritten(body, Rewriting::Indented)[0], indented);
    }

    #[test]
    fn line_ends_are_tried_in_each_way() {
        assert_eq!(rewritten("{}\r\n", Rewriting::Lf), ["{}\n"]);
        assert_eq!(rewritten("{}\n", Rewriting::CrLf), ["{}\r\n"]);
        assert_eq!(rewritten("{}\n", Rewriting::LineEndRemoved), ["{}"]);
        assert_eq!(rewritten("{}", Rewriting::LineFeedAdded), ["{}\n"]);
    }
}
