//! One reading of a connection's bytes as requests, so strict that no other reader can divide them differently.
//!
//! A proxy in front and hyper behind may disagree about where a request ends; whatever they could disagree about is refused here
//! (RFC 9112, section 11.2). Bytes in, verdicts out: no sockets, no clock.

mod chunks;
mod head;

use chunks::Chunks;
use head::Head;

use crate::refusal::Refusal;

/// What the bytes of one connection have been so far.
#[derive(Debug, Default)]
pub(super) struct Messages {
    part: Part,
    heads: u64,
}

/// What comes next.
#[derive(Debug)]
enum Part {
    Head(Head),
    /// So many bytes of a body.
    Sized(u64),
    Chunks(Chunks),
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

/// How a head says that its body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Sized(u64),
    Chunked,
}

impl From<Framing> for Part {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Sized(0) => Self::default(),
            Framing::Sized(length) => Self::Sized(length),
            Framing::Chunked => Self::Chunks(Chunks::default()),
        }
    }
}

/// Where reading ends for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// In a head, of which nothing has passed.
    Head(Refusal),
    /// In a chunked body, which has passed in part.
    Chunk,
}

impl Messages {
    /// How many of these bytes may pass: whole heads, and what there is of bodies. What is left, an unfinished head, is shown again
    /// together with what follows it. After a fault nothing may pass.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (usize, Option<Fault>) {
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(0) => break,
                Ok(read) => passed += read,
                Err((read, fault)) => return (passed + read, Some(fault)),
            }
        }
        (passed, None)
    }

    /// Heads that have passed.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Some of the bytes, none if they are an unfinished head.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Fault)> {
        match &mut self.part {
            Part::Head(head) => {
                let whole = head
                    .read(bytes)
                    .map_err(|refusal| (0, Fault::Head(refusal)))?;
                let Some((length, framing)) = whole else {
                    return Ok(0);
                };
                self.heads += 1;
                self.part = framing.into();
                Ok(length)
            }
            Part::Sized(left) => {
                let read = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= read as u64;
                if *left == 0 {
                    self.part = Part::default();
                }
                Ok(read)
            }
            Part::Chunks(chunks) => {
                let read = chunks.read(bytes).map_err(|read| (read, Fault::Chunk))?;
                if chunks.ended() {
                    self.part = Part::default();
                }
                Ok(read)
            }
        }
    }
}

/// A character of a token (RFC 9110, 5.6.2): methods and names of headers are made of them.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of a header's value: a tab, visible, a space, or not ASCII.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const GOOD: &[u8] = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    const CHUNKED: &[u8] =
        b"POST / HTTP/1.1\r\nhost:a\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n";

    /// What passes when the bytes come in these pieces, and the end.
    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64, Option<Fault>) {
        let (mut messages, mut passed, mut held) = (Messages::default(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let (read, fault) = messages.pass(&held);
            passed.extend(held.drain(..read));
            if fault.is_some() {
                return (passed, messages.heads(), fault);
            }
        }
        (passed, messages.heads(), None)
    }

    #[test]
    fn requests_pass_one_after_another_and_an_unfinished_head_is_held() {
        let all = [GOOD, CHUNKED, b"\r\n", GOOD, b"GET / HTT"].concat();
        let (passed, heads, fault) = in_pieces([&all[..]]);
        assert_eq!(passed.len(), all.len() - b"GET / HTT".len());
        assert_eq!((heads, fault), (3, None));
    }

    #[test]
    fn what_came_before_a_bad_head_passes_and_nothing_of_it() {
        let all = [GOOD, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"].concat();
        let (passed, heads, fault) = in_pieces([&all[..]]);
        assert_eq!((&passed[..], heads), (GOOD, 1));
        assert_eq!(fault, Some(Fault::Head(Refusal::Host)));
    }

    /// Requests and pieces of them, right and wrong, in any order.
    fn traffic() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            GOOD,
            GOOD,
            CHUNKED,
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"Content-Length: 2\r\n",
            b"Content-Length: 00\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"X: \xff y\r\n",
            b" folded\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"{}",
            b"2\r\n{}\r\n",
            b"0\r\n\r\n",
            b"0\r\n",
            b"ffffffffffffffff1\r\n",
        ];
        let piece = prop_oneof![
            8 => select(pieces).prop_map(<[u8]>::to_vec),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn where_bytes_are_divided_changes_nothing(
            bytes in traffic(),
            cuts in vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(in_pieces(pieces), in_pieces([&bytes[..]]));
            prop_assert_eq!(in_pieces(bytes.chunks(1)), in_pieces([&bytes[..]]));
        }

        /// The parser that hyper uses finds the same end and the same headers in every head that passes.
        #[test]
        fn a_head_that_passes_is_the_same_head_to_hyper(
            mut head in select(vec![GOOD.to_vec(), CHUNKED.to_vec()]),
            changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4),
        ) {
            for (at, byte, kind) in changes {
                let at = at.index(head.len());
                match kind {
                    0 => head[at] = byte,
                    1 => head.insert(at, byte),
                    _ => drop(head.remove(at)),
                }
            }
            if let Ok(Some((length, framing))) = Head::default().read(&head) {
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut theirs = httparse::Request::new(&mut headers);
                let parsed = theirs.parse(&head);
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
                let value = |name: &str| {
                    let mut all = theirs.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name));
                    let value = all.next().map(|it| it.value);
                    assert!(all.next().is_none(), "{name} is there twice");
                    value
                };
                prop_assert!(theirs.version == Some(0) || value("host").is_some());
                let expected = match (value("content-length"), value("transfer-encoding")) {
                    (None, None) => Framing::Sized(0),
                    (Some(digits), None) => Framing::Sized(std::str::from_utf8(digits)?.parse()?),
                    (None, Some(_)) => Framing::Chunked,
                    (Some(_), Some(_)) => return Err(TestCaseError::fail("two lengths")),
                };
                prop_assert_eq!(framing, expected);
            }
        }
    }
}
