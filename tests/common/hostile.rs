//! Texts that have broken some framing somewhere, and the ways in which a sender may spell them in JSON.

use std::collections::BTreeMap;

use rand::Rng;

/// Ends of lines, of strings and of everything, by somebody's rules.
const PIECES: [&str; 32] = [
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\0",
    "\u{feff}",
    " ",
    "  ",
    "\t",
    "\u{b}",
    "\u{c}",
    "\u{1c}",
    "\u{1e}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\"",
    "\\",
    "\\u000a",
    "\u{fffe}",
    "\u{d7ff}\u{e000}",
    "\u{10ffff}",
    "\u{1f600}",
    ":",
    "{}",
    "id: 7\n",
    "data: x\n\n",
    "event: reset\rdata:\r\r",
    "\r\n0\r\n\r\n",
    "retry: 1\n",
    "\n: hb\n",
];

/// A few pieces, and any characters in between.
pub(crate) fn text(random: &mut impl Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(0..6) {
        if random.random_bool(0.7) {
            text.push_str(PIECES[random.random_range(0..PIECES.len())]);
        } else {
            text.push(random.random());
        }
    }
    text
}

/// The same as an item id, which has no control characters and is not empty.
pub(crate) fn item_id(random: &mut impl Rng) -> String {
    let mut id = text(random);
    id.retain(|c| !c.is_ascii_control());
    id.push_str(["", " ", "a"][random.random_range(0..3)]);
    if id.is_empty() { "x".into() } else { id }
}

/// A JSON string of a text, spelled in one of many ways.
pub(crate) fn spelled(random: &mut impl Rng, text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        let must = c < ' ' || c == '"' || c == '\\';
        if !must && random.random_bool(0.6) {
            json.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            match random.random_bool(0.5) {
                true => json.push_str(&format!("\\u{unit:04x}")),
                false => json.push_str(&format!("\\u{unit:04X}")),
            }
        }
    }
    json.push('"');
    json
}

/// A body, and what its fields have to come back as.
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Delivery {
    /// One with a few fields beside `id`.
    pub(crate) fn random(random: &mut impl Rng) -> Self {
        let id = item_id(random);
        let mut fields = BTreeMap::from([("id".to_owned(), id.clone())]);
        let mut body = format!("{{\"id\":{}", spelled(random, &id));
        for _ in 0..random.random_range(1..8) {
            let (name, value) = (text(random), text(random));
            if fields.contains_key(&name) {
                continue;
            }
            let spaces = ["", " ", "\r\n", "\n\n", "\t"][random.random_range(0..5)];
            let json = spelled(random, &value);
            let nested = format!("[{spaces}{json},{{{json}:{spaces}1}}]");
            let (json, value) = match random.random_bool(0.3) {
                // Stored as a string of the bytes that were sent.
                true => (nested.clone(), nested),
                false => (json, value),
            };
            let name_json = spelled(random, &name);
            body.push_str(&format!(",{spaces}{name_json}{spaces}:{spaces}{json}"));
            fields.insert(name, value);
        }
        body.push('}');
        Self { id, fields, body }
    }

    /// How many texts it holds.
    pub(crate) fn texts(&self) -> u64 {
        1 + 2 * self.fields.len() as u64
    }
}
