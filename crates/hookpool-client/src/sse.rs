//! An incremental parser of server-sent events, by the letter of the HTML standard, section 9.2.6.
//!
//! Bytes in, events out; it knows no connection and no clock. What stands unfinished when the stream ends is discarded by
//! dropping the parser.

use std::{collections::VecDeque, time::Duration};

/// What a block of lines said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The type; `message` where the block names none.
    pub name: String,
    /// The data lines, joined by LF.
    pub data: String,
    /// The id that this very block carries.
    pub id: Option<String>,
    /// The id to resume from after this event: its own, or the last one before it. Empty if there was none.
    pub last_event_id: String,
}

/// More bytes without an end of the event than anybody should send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {} MiB", EVENT_BYTES_MAX >> 20)]
pub struct TooLong;

/// Of one event, so that a broken server can't fill the memory.
const EVENT_BYTES_MAX: usize = 64 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    /// Of the line that has not ended yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    after_first_line: bool,
    /// The block so far.
    name: String,
    data: String,
    id: Option<String>,
    last_event_id: String,
    retry: Option<Duration>,
    ready: VecDeque<Event>,
}

impl Parser {
    /// A parser for a new connection that resumes from an id (empty for none).
    #[must_use]
    pub fn resuming(last_event_id: impl Into<String>) -> Self {
        Self {
            last_event_id: last_event_id.into(),
            ..Self::default()
        }
    }

    /// Takes the next bytes as they came, cut anywhere.
    ///
    /// # Errors
    /// One event is too long; the connection should be given up.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = bytes.split_at(1).1;
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(line);
            let Some((end, rest)) = rest.split_first() else {
                break;
            };
            self.after_cr = *end == b'\r';
            self.end_line();
            bytes = rest;
        }
        Ok(())
    }

    /// The oldest event that is complete and was not taken yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// The reconnection time that the server asked for last.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut bytes = line.as_slice();
        if !std::mem::replace(&mut self.after_first_line, true) {
            bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        }
        if bytes.is_empty() {
            return self.end_block();
        }
        let line = String::from_utf8_lossy(bytes);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // Too many digits for a number, or none, is a time that can't be meant.
                self.retry = value.parse().map(Duration::from_millis).ok().or(self.retry);
            }
            // A comment has an empty field name; unknown names are ignored.
            _ => {}
        }
    }

    fn end_block(&mut self) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        let id = self.id.take();
        if let Some(id) = &id {
            // Even a block without data moves the id.
            self.last_event_id.clone_from(id);
        }
        // The last LF is of the joining, not of the data. Nothing to take means no data line at all: no event.
        if data.pop().is_none() {
            return;
        }
        self.ready.push_back(Event {
            name: if name.is_empty() {
                "message".to_owned()
            } else {
                name
            },
            data,
            id,
            last_event_id: self.last_event_id.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.push(chunk).unwrap();
        }
        std::iter::from_fn(|| parser.next_event()).collect()
    }

    /// `name|data|last id` of each event.
    fn check(input: &str, expected: &[&str]) {
        let seen: Vec<_> = parse(&[input.as_bytes()])
            .into_iter()
            .map(|event| format!("{}|{}|{}", event.name, event.data, event.last_event_id))
            .collect();
        assert_eq!(seen, expected, "{input:?}");
    }

    #[test]
    fn examples_of_the_standard_hold() {
        check(
            "data: YHOO\ndata: +2\ndata: 10\n\n",
            &["message|YHOO\n+2\n10|"],
        );
        check(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[
                "message|first event|1",
                "message|second event|",
                "message| third event|",
            ],
        );
        check("data\n\ndata\ndata\n\ndata:", &["message||", "message|\n|"]);
        check(
            "data:test\n\ndata: test\n\n",
            &["message|test|", "message|test|"],
        );
    }

    #[test]
    fn every_line_end_ends_a_line() {
        check("data:a\r\n\r\n", &["message|a|"]);
        check(
            "data:a\r\rdata:b\n\ndata:c\r\n\n",
            &["message|a|", "message|b|", "message|c|"],
        );
        check("data:a\rdata:b\n\r\n", &["message|a\nb|"]);
    }

    #[test]
    fn one_leading_bom_is_dropped() {
        check("\u{feff}data:a\n\n", &["message|a|"]);
        check("\u{feff}\u{feff}data:a\n\n", &[]);
        check("\n\u{feff}data:a\n\n", &[]);
    }

    #[test]
    fn ids_persist_reset_and_refuse_nul() {
        check(
            "id:1\ndata:a\n\ndata:b\n\n",
            &["message|a|1", "message|b|1"],
        );
        check("id:1\n\ndata:b\n\n", &["message|b|1"]);
        check(
            "id:1\ndata:a\n\nid:2\0\ndata:b\n\n",
            &["message|a|1", "message|b|1"],
        );
        check("id:1\nid:2\ndata:a\n\n", &["message|a|2"]);
        check("id:1\ndata:a\n\nid:2\ndata:b\n", &["message|a|1"]);
    }

    #[test]
    fn names_and_fields_are_taken_literally() {
        check("event: x\ndata:a\n\ndata:b\n\n", &["x|a|", "message|b|"]);
        check("event:x\n\ndata:a\n\n", &["message|a|"]);
        check(" data:a\nDATA:b\ndatax:c\ndata:d:e\n\n", &["message|d:e|"]);
    }

    #[test]
    fn retry_takes_digits_only() {
        let retry = |input: &str| {
            let mut parser = Parser::default();
            parser.push(input.as_bytes()).unwrap();
            parser.retry().map(|retry| retry.as_millis())
        };
        assert_eq!(retry("retry: 2000\n"), Some(2000));
        assert_eq!(
            retry("retry:10\nretry: -1\nretry: 1s\nretry:\nretry:99999999999999999999\n"),
            Some(10)
        );
        assert_eq!(retry("retry: 2000"), None);
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 20];
        let pushed = (0..100).take_while(|_| parser.push(&chunk).is_ok()).count();
        assert_eq!(pushed, 64);
    }

    const PIECES: &[&str] = &[
        "data: a", "data:b", "data", "id: 1", "id:", "id: 2\0", "event: e", "retry: 7", ": hb",
        "x", "ü€", "\u{feff}", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        ) {
            let input = pieces.concat();
            let bytes = input.as_bytes();
            let whole = parse(&[bytes]);
            for cut in 0..=bytes.len() {
                let (a, b) = bytes.split_at(cut);
                prop_assert_eq!(&parse(&[a, b]), &whole, "cut at {}", cut);
            }
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(parse(&single), whole);
        }

        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            parse(&[&bytes]);
        }
    }
}
