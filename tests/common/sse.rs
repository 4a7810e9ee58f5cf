//! A parser for `text/event-stream`, written from the HTML standard.

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The event type; empty where none was named.
    pub(crate) event: String,
    /// The id that this frame itself carried.
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

impl Frame {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("{error} in the data of {self:?}"))
    }

    /// `position` of the data.
    pub(crate) fn position(&self) -> u64 {
        self.json()["position"]
            .as_u64()
            .unwrap_or_else(|| panic!("no position in {self:?}"))
    }
}

/// Takes bytes as they come and gives events as they are complete; an unfinished event at the end is discarded.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    event: String,
    id: Option<String>,
    data: String,
    last_id: String,
}

impl Parser {
    /// What a client sends as `Last-Event-ID`; empty before the first id.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Forgets a half-read event, keeps the last id: what a client does when its connection is cut.
    pub(crate) fn reconnect(&mut self) {
        *self = Self {
            last_id: std::mem::take(&mut self.last_id),
            ..Self::default()
        };
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            let ends_crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if ends_crlf => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    frames.extend(self.line(str::from_utf8(&line).unwrap()));
                }
                _ => self.line.push(byte),
            }
        }
        frames
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        let id = self.id.take();
        if let Some(id) = &id {
            self.last_id.clone_from(id);
        }
        let data = data.strip_suffix('\n')?.to_owned();
        Some(Frame { event, id, data })
    }
}

#[test]
fn a_parser_fed_byte_by_byte_follows_the_standard() {
    let text =
        "event: change\r\nid: 1\r\ndata: a\rdata:b\ndata:  c\n\n: hb\n\nid: 2\n\ndata\n\ndata: cut";
    let mut parser = Parser::default();
    let frames: Vec<Frame> = text.bytes().flat_map(|byte| parser.push(&[byte])).collect();
    let frame = |event: &str, id: Option<&str>, data: &str| Frame {
        event: event.to_owned(),
        id: id.map(str::to_owned),
        data: data.to_owned(),
    };
    assert_eq!(
        frames,
        [frame("change", Some("1"), "a\nb\n c"), frame("", None, "")]
    );
    assert_eq!(parser.last_id(), "2");
}
