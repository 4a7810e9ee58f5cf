//! Where a case happens: a server, connectors that only one worker uses, and the texts that stand for their keys.

use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Mac};
use crate::common::server::{Connector, Server, position};
use crate::common::{canary, eventually, hmac, now_s};

/// What all workers share: nothing is ever accepted for these.
pub(super) struct Others {
    other: Connector,
    revoked: Connector,
    read_key: String,
}

impl Others {
    pub(super) fn on(server: &Server) -> Self {
        let other = server.add_connector("other", true);
        let revoked = server.add_connector("revoked", false);
        let target = format!("connectors/{}/keys/{}", revoked.name, revoked.key_id);
        server.admin("DELETE", &target, &json!({})).expect(204);
        let read_key = server.add_reader("corpus", &["*"]);
        Self {
            other,
            revoked,
            read_key,
        }
    }

    /// Events that were applied, once all are.
    pub(super) fn events_of_all_streams(server: &Server) -> usize {
        let ready = || -> Value { server.get("/readyz").expect(200).json() };
        eventually("all is applied", Duration::from_secs(60), || {
            let ready = ready();
            (ready["position"] == ready["applied"]).then_some(())
        });
        let streams: Value = server.get("/api/streams").expect(200).json();
        let events = streams["streams"].as_array().unwrap().iter();
        let count: u64 = events
            .map(|stream| stream["events"].as_u64().unwrap())
            .sum();
        usize::try_from(count).unwrap()
    }
}

/// Of one worker.
pub(super) struct World<'a> {
    pub(super) server: &'a Server,
    others: &'a Others,
    plain: Connector,
    signed: Connector,
    /// Up to where the log of each was seen.
    seen: [u64; 2],
    pub(super) sent: usize,
    pub(super) events: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(server: &'a Server, others: &'a Others, n: usize) -> Self {
        let plain = server.add_connector(&format!("plain-{n}"), false);
        // Cases repeat within a second, and with them their signatures.
        let settings = json!({"stream": format!("signed-{n}"), "signed": true, "replay": "allow"});
        let signed = server.add_connector_with(&settings);
        Self {
            server,
            others,
            plain,
            signed,
            seen: [0; 2],
            sent: 0,
            events: 0,
        }
    }

    pub(super) fn connector(&self, case: &Case) -> &Connector {
        if case.signed {
            &self.signed
        } else {
            &self.plain
        }
    }

    /// How many events came since the last time. The good one has to be the last of them, or any where what was sent before has an end of its own.
    pub(super) fn grown(&mut self, case: &Case, good: u64) -> Result<usize, String> {
        let seen = self.seen[usize::from(case.signed)];
        let (positions, right) = if case.end.is_some() {
            let positions = self.settled(case.signed, seen);
            let right = positions.contains(&good);
            (positions, right)
        } else {
            let positions = self.positions(case.signed, seen);
            let right = positions.last() == Some(&good);
            (positions, right)
        };
        let Some(last) = positions.last().filter(|_| right) else {
            return Err(format!(
                "the good one is at {good}, the log has {positions:?} after {seen}"
            ));
        };
        self.seen[usize::from(case.signed)] = *last;
        self.events += positions.len();
        Ok(positions.len())
    }

    /// What nobody waits for is done when it is done: positions that stay as they are for a while.
    fn settled(&self, signed: bool, after: u64) -> Vec<u64> {
        let mut before = self.positions(signed, after);
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.positions(signed, after);
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// After a failure, so that it is not told again of the next case.
    pub(super) fn catch_up(&mut self) {
        for signed in [false, true] {
            let seen = self.seen[usize::from(signed)];
            let last = self.positions(signed, seen).last().copied();
            self.seen[usize::from(signed)] = last.unwrap_or(seen);
        }
    }

    fn positions(&self, signed: bool, mut after: u64) -> Vec<u64> {
        let stream = if signed {
            &self.signed.stream
        } else {
            &self.plain.stream
        };
        let mut positions = Vec::new();
        loop {
            let target = format!("/api/streams/{stream}/log?after={after}&limit=1000");
            let page: Value = self.server.get(&target).expect(200).json();
            let events = page["events"].as_array().unwrap().iter();
            positions.extend(events.map(|event| event["position"].as_u64().unwrap()));
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return positions,
            }
        }
    }

    /// A good delivery for the connector of a case.
    pub(super) fn good(&self, case: &Case) -> Vec<u8> {
        self.connector(case).delivery(b"{}").encode()
    }

    pub(super) fn position(&self, answer: &crate::common::http::Response) -> u64 {
        position(answer)
    }

    /// The bytes of a case as of now, which is one second for all of its parts.
    pub(super) fn render(&self, case: &Case) -> Vec<u8> {
        let now = now_s();
        let fill = |text: &str| self.fill(text, &|name| self.value(case, now, name));
        if let Some(raw) = &case.raw {
            return fill(raw);
        }
        let text = |text: &Option<String>, good: &str| fill(text.as_deref().unwrap_or(good));
        let mut head = text(&case.method, "POST");
        head.push(b' ');
        head.extend(text(&case.target, "/api/webhook/<stream>"));
        head.push(b' ');
        head.extend(text(&case.version, "HTTP/1.1"));
        let mut lines = vec![text(&case.host, "Host: localhost")];
        let mut field = |name: &str, value: Vec<u8>| {
            if !value.is_empty() {
                lines.push([name.as_bytes(), b": ", &value].concat());
            }
        };
        field("Authorization", text(&case.auth, "Bearer <key>"));
        let body = text(&case.body, "{}");
        if case.signed {
            let timestamp = text(&case.timestamp, "<now>");
            let signed = self.mac(case, now, &timestamp, &body);
            let value = |name: &str| match name {
                "ts" => Some(timestamp.clone()),
                "mac" => Some(crate::common::hex(&signed).into_bytes()),
                "MAC" => Some(crate::common::hex(&signed).to_uppercase().into_bytes()),
                "mac64" => Some(canary::base64(&signed).into_bytes()),
                _ => self.value(case, now, name),
            };
            let signature = case.signature.as_deref().unwrap_or("sha256=<mac>");
            field("X-Webhook-Signature", self.fill(signature, &value));
            field("X-Webhook-Timestamp", timestamp.clone());
        }
        lines.extend(case.headers.iter().map(|line| fill(line)));
        let framed = lines.iter().any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with(b"content-length") || line.starts_with(b"transfer-encoding")
        });
        let body = match case.chunked {
            Some(size) => {
                lines.push(b"Transfer-Encoding: chunked".to_vec());
                chunks(&body, size)
            }
            None => {
                if !framed && case.length != Some(false) {
                    lines.push(format!("Content-Length: {}", body.len()).into_bytes());
                }
                body
            }
        };
        let lines = lines.iter().filter(|line| !line.is_empty());
        for line in lines {
            head.extend_from_slice(b"\r\n");
            head.extend_from_slice(line);
        }
        [&head[..], b"\r\n\r\n", &body].concat()
    }

    fn mac(&self, case: &Case, now: u64, timestamp: &[u8], body: &[u8]) -> Vec<u8> {
        let usual = Mac::default();
        let mac = case.mac.as_ref().unwrap_or(&usual);
        let whole = self.signed.signing_key.as_deref().unwrap();
        let bare = whole.strip_prefix("whsk_").unwrap();
        let key = match &*mac.key {
            "" | "signing" => whole.as_bytes().to_vec(),
            "bare" => bare.as_bytes().to_vec(),
            "decoded" => unbase64(bare),
            "other" => self.others.other.signing_key.clone().unwrap().into_bytes(),
            "ingest" => self.signed.ingest_key.clone().into_bytes(),
            "empty" => Vec::new(),
            other => panic!("{case}: no key {other}"),
        };
        let fill = |text: &String| self.fill(text, &|name| self.value(case, now, name));
        let body = mac.body.as_ref().map_or_else(|| body.to_vec(), fill);
        let at = mac.at.as_ref().map(fill);
        let timestamp = at.as_deref().unwrap_or(timestamp);
        let signed = match &*mac.form {
            "" | "page" => [timestamp, b".", &body].concat(),
            "body" => body,
            "slack" => [b"v0:", timestamp, b":", &body].concat(),
            "standard" => [b"msg_1.", timestamp, b".", &body].concat(),
            other => panic!("{case}: no form {other}"),
        };
        hmac(&key, &signed)
    }

    fn value(&self, case: &Case, now: u64, name: &str) -> Option<Vec<u8>> {
        let connector = self.connector(case);
        let (id, secret) = connector.ingest_key.strip_prefix("ik_")?.split_once('_')?;
        let Others {
            other,
            revoked,
            read_key,
        } = self.others;
        let text = match name {
            "stream" => &connector.stream,
            "key" => &connector.ingest_key,
            "id" => id,
            "secret" => secret,
            "signing-key" => self.signed.signing_key.as_deref()?,
            "other-stream" => &other.stream,
            "other-key" => &other.ingest_key,
            "other-signing-key" => other.signing_key.as_deref()?,
            "revoked-stream" => &revoked.stream,
            "revoked-key" => &revoked.ingest_key,
            "read-key" => read_key,
            "operator-key" => &self.server.operator_key,
            _ => {
                let offset = name.strip_prefix("now")?;
                let offset: i64 = if offset.is_empty() {
                    0
                } else {
                    offset.parse().ok()?
                };
                return Some(now.checked_add_signed(offset)?.to_string().into_bytes());
            }
        };
        Some(text.as_bytes().to_vec())
    }

    /// Puts in what stands between `<` and `>`.
    fn fill(&self, text: &str, value: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<u8> {
        let mut filled = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            let (inner, after) = after
                .split_once('>')
                .unwrap_or_else(|| panic!("no > in {text:?}"));
            filled.extend_from_slice(before.as_bytes());
            filled.extend(put(inner, value).unwrap_or_else(|| panic!("no <{inner}> in {text:?}")));
            rest = after;
        }
        filled.extend_from_slice(rest.as_bytes());
        filled
    }
}

fn put(inner: &str, value: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    if let Some((text, times)) = inner.rsplit_once('*')
        && let Ok(times) = times.parse()
    {
        return Some(text.as_bytes().repeat(times));
    }
    if let Some(digits) = inner.strip_prefix("hex ") {
        return digits
            .split(' ')
            .map(|pair| u8::from_str_radix(pair, 16).ok())
            .collect();
    }
    if let Some((name, length)) = inner.split_once("..") {
        let mut all = value(name)?;
        all.truncate(length.parse().ok()?);
        return Some(all);
    }
    value(inner)
}

fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn unbase64(text: &str) -> Vec<u8> {
    let digits = text
        .bytes()
        .map(|byte| ALPHABET.iter().position(|of| *of == byte).unwrap());
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_usize, 0);
    for digit in digits {
        (bits, count) = (bits << 6 | digit, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255).to_le_bytes()[0]);
        }
    }
    bytes
}
