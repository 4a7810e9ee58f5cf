//! A case as data: what `tests/corpus/README.md` says of it.

use std::fmt;

use serde::Deserialize;

use crate::common::program::repository;

const FILES: [(&str, &str); 8] = [
    ("A", "a-transport"),
    ("B", "b-path"),
    ("C", "c-bearer"),
    ("D", "d-signature"),
    ("E", "e-encoding"),
    ("F", "f-json"),
    ("G", "g-item-id"),
    ("H", "h-load"),
];

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Case {
    pub(super) number: u16,
    name: String,
    #[serde(skip)]
    group: &'static str,
    each: Vec<String>,
    /// For people.
    note: String,
    pub(super) elsewhere: Vec<String>,

    pub(super) signed: bool,
    pub(super) method: Option<String>,
    pub(super) target: Option<String>,
    pub(super) version: Option<String>,
    pub(super) host: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) headers: Vec<String>,
    pub(super) length: Option<bool>,
    pub(super) body: Option<String>,
    pub(super) chunked: Option<usize>,
    pub(super) timestamp: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) mac: Option<Mac>,
    pub(super) raw: Option<String>,
    pub(super) pace: Option<Pace>,
    pub(super) end: Option<End>,

    status: Option<OneOf<u16>>,
    pub(super) code: Option<String>,
    answers: Option<Vec<u16>>,
    pub(super) header: Option<String>,
    pub(super) contains: Option<String>,
    closes: Option<OneOf<bool>>,
    grows: Option<OneOf<usize>>,
    late: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mac {
    pub(super) key: String,
    pub(super) form: String,
    pub(super) body: Option<String>,
    /// Another timestamp than the one that is sent.
    pub(super) at: Option<String>,
}

/// So many bytes first, then so many each time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pace {
    pub(super) first: usize,
    pub(super) then: usize,
    pub(super) every_ms: u64,
}

/// What the client does after its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    Close,
    HalfClose,
    Reset,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOf<T> {
    One(T),
    Any(Vec<T>),
}

impl<T: Clone> OneOf<T> {
    fn all(&self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Any(all) => all.clone(),
        }
    }
}

/// What has to come of it.
#[derive(Debug)]
pub(super) struct Expected {
    /// Per answer the statuses that are right.
    pub(super) answers: Vec<Vec<u16>>,
    pub(super) closes: Vec<bool>,
    /// Without it one for each 202.
    pub(super) grows: Option<Vec<usize>>,
}

pub(super) fn corpus() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        case: Vec<Case>,
    }
    let read = |(group, file): (&'static str, &str)| {
        let path = repository(&format!("tests/corpus/{file}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        file.case
            .into_iter()
            .map(move |case| Case { group, ..case })
    };
    FILES.into_iter().flat_map(read).collect()
}

/// Refusals of the head, after which nothing more can be read.
const OF_THE_HEAD: [&str; 5] = [
    "MALFORMED_REQUEST",
    "URI_TOO_LONG",
    "EXPECTATION_FAILED",
    "HEAD_TOO_LARGE",
    "VERSION_NOT_SUPPORTED",
];

/// When a fault is found, by its code: the order that is promised. What is accepted has none.
fn turn(case: &Case) -> Option<u8> {
    Some(match case.code.as_deref() {
        None => u8::MAX,
        Some(code) if OF_THE_HEAD.contains(&code) => 0,
        Some("NOT_FOUND") => 1,
        Some("METHOD_NOT_ALLOWED") => 2,
        Some("UNAUTHORIZED") => 4,
        Some("SIGNATURE_INVALID" | "TIMESTAMP_OUT_OF_RANGE") => 5 + 3 * u8::from(case.late),
        Some("INVALID_PARAMETER") => 6,
        Some("UNSUPPORTED_ENCODING") => 7,
        Some("INVALID_PAYLOAD") => 9,
        Some("INVALID_ITEM_ID") => 10,
        Some(_) => return None,
    })
}

impl Case {
    /// One for each text that `<each>` stands for.
    pub(super) fn instances(&self) -> Vec<Self> {
        if !self.is_request() {
            return Vec::new();
        }
        if self.each.is_empty() {
            return vec![self.clone()];
        }
        self.each.iter().map(|each| self.instance(each)).collect()
    }

    fn instance(&self, each: &str) -> Self {
        let mut case = self.clone();
        case.each.clear();
        case.name = format!("{} ({})", self.name, shorten(each));
        let texts = [
            &mut case.method,
            &mut case.target,
            &mut case.version,
            &mut case.host,
            &mut case.auth,
            &mut case.body,
            &mut case.timestamp,
            &mut case.signature,
            &mut case.raw,
            &mut case.contains,
        ];
        let texts = texts.into_iter().flatten().chain(&mut case.headers);
        let of_mac = case.mac.iter_mut().flat_map(|mac| {
            [
                Some(&mut mac.key),
                Some(&mut mac.form),
                mac.body.as_mut(),
                mac.at.as_mut(),
            ]
        });
        for text in texts.chain(of_mac.flatten()) {
            *text = text.replace("<each>", each);
        }
        case
    }

    pub(super) fn is_request(&self) -> bool {
        self.status.is_some() || self.answers.is_some()
    }

    /// Takes its time.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Sent to the end and answered.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_paced() && self.end.is_none()
    }

    pub(super) fn is_head(&self) -> bool {
        self.method.as_deref() == Some("HEAD")
    }

    pub(super) fn expected(&self) -> Expected {
        let answers: Vec<Vec<u16>> = match (&self.answers, &self.status) {
            (Some(all), _) => all.iter().map(|status| vec![*status]).collect(),
            (None, Some(status)) => vec![status.all()],
            (None, None) => Vec::new(),
        };
        let closes = match (&self.closes, &self.code) {
            (Some(closes), _) => closes.all(),
            (None, Some(code)) => vec![OF_THE_HEAD.contains(&&**code)],
            (None, None) if answers.iter().any(|any| any.len() > 1) => vec![true, false],
            (None, None) => vec![false],
        };
        Expected {
            answers,
            closes,
            grows: self.grows.as_ref().map(OneOf::all),
        }
    }

    /// Both faults in one request, if they touch different parts of it and their order is promised.
    pub(super) fn with(&self, other: &Self) -> Option<Self> {
        let parts = |case: &Self| {
            [
                case.method.is_some(),
                case.target.is_some(),
                case.version.is_some(),
                case.host.is_some(),
                case.auth.is_some(),
                case.body.is_some() || case.chunked.is_some() || case.mac.is_some(),
                case.timestamp.is_some(),
                case.signature.is_some(),
                !case.headers.is_empty(),
            ]
        };
        let apart = parts(self)
            .iter()
            .zip(parts(other))
            .all(|(one, two)| !(*one && two));
        if !apart || !self.can_be_paired_with(other) || !other.can_be_paired_with(self) {
            return None;
        }
        let (one, two) = (turn(self)?, turn(other)?);
        let first = if one <= two { self } else { other };
        // Faults of the head are found line by line, all of them before anything else.
        let status = if one.max(two) == 0 {
            let both = [self.status.as_ref()?.all(), other.status.as_ref()?.all()].concat();
            OneOf::Any(both)
        } else {
            first.status.clone()?
        };
        Some(Self {
            number: self.number,
            name: format!("{} and {other}", self.name),
            group: self.group,
            signed: self.signed || other.signed,
            method: self.method.clone().or_else(|| other.method.clone()),
            target: self.target.clone().or_else(|| other.target.clone()),
            version: self.version.clone().or_else(|| other.version.clone()),
            host: self.host.clone().or_else(|| other.host.clone()),
            auth: self.auth.clone().or_else(|| other.auth.clone()),
            headers: [&self.headers[..], &other.headers].concat(),
            body: self.body.clone().or_else(|| other.body.clone()),
            chunked: self.chunked.or(other.chunked),
            timestamp: self.timestamp.clone().or_else(|| other.timestamp.clone()),
            signature: self.signature.clone().or_else(|| other.signature.clone()),
            mac: self.mac.clone().or_else(|| other.mac.clone()),
            status: Some(status),
            code: first.code.clone().filter(|_| one.max(two) > 0),
            closes: Some(OneOf::Any(vec![true, false])),
            ..Self::default()
        })
    }

    fn can_be_paired_with(&self, other: &Self) -> bool {
        let alone = self.raw.is_some()
            || !self.is_whole()
            || self.answers.is_some()
            || self.closes.is_some()
            || self.group == "H"
            || self
                .status
                .as_ref()
                .is_some_and(|status| status.all().len() > 1)
            || self.frames_its_body();
        // What is read as the id, and who is asked for a signature, depends on both.
        let names_the_id = self
            .target
            .as_ref()
            .is_some_and(|target| target.contains("idField"));
        // Two faults that undo each other: signed for another second and sent with just that one, another stream and its own key.
        let signed_at = self.mac.as_ref().and_then(|mac| mac.at.as_ref());
        let names =
            |part: &Option<String>, name| part.as_ref().is_some_and(|text| text.contains(name));
        let tangled = names_the_id && other.body.is_some()
            || signed_at.is_some() && signed_at == other.timestamp.as_ref()
            || names(&self.target, "<other-stream>") && names(&other.auth, "<other-key>")
            || self.number == 88 && other.signed
            || self.version.is_some() && other.chunked.is_some();
        !alone && !tangled
    }

    fn frames_its_body(&self) -> bool {
        let framing = |line: &String| {
            let line = line.to_ascii_lowercase();
            line.contains("content-length") || line.contains("transfer-encoding")
        };
        self.headers.iter().any(framing)
    }
}

fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("{shown:?}")
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.group, self.number, self.name)
    }
}
