//! The head of a request, line by line: each is looked at once, however the bytes come.

use warp::http::uri::PathAndQuery;

use super::{Framing, is_token, is_value};
use crate::{
    refusal::Refusal,
    server::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX},
};

/// A head that has not ended.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the first line begins that has not been looked at.
    at: usize,
    /// Up to where no further end of a line is.
    searched: usize,
    blank_before: bool,
    version: Option<Version>,
    headers: usize,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Head {
    /// Reads on in the bytes of a head, of which those of the last call are the first. Its length and what follows it, once it is whole.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
        while let Some(line) = self.line(bytes)? {
            if !line.is_empty() {
                self.take(line)?;
            } else if self.version.is_some() {
                return self.framing().map(|framing| Some((self.at, framing)));
            } else if std::mem::replace(&mut self.blank_before, true) {
                return Err(Refusal::RequestLine);
            }
        }
        self.fits(bytes).map(|()| None)
    }

    /// The next whole line without its end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        if self.version.is_none() {
            // Before the line ends, as the line of one that speaks no HTTP may never.
            let first = bytes.get(self.at).copied().unwrap_or(b'\r');
            if !is_token(first) && first != b'\r' && first != b'\n' {
                return Err(Refusal::RequestLine);
            }
        }
        let unsearched = bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unsearched) else {
            self.searched = bytes.len();
            return Ok(None);
        };
        let end = self.searched + found;
        let line = bytes.get(self.at..end).unwrap_or_default();
        (self.at, self.searched) = (end + 1, end + 1);
        if self.version.is_some() && self.at > HEAD_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        line.strip_suffix(b"\r").ok_or(Refusal::LineEnd).map(Some)
    }

    /// Refuses an unfinished head that is over the limits already.
    fn fits(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let line = bytes.len().saturating_sub(self.at);
        if self.version.is_none() && line > REQUEST_LINE_BYTES_MAX {
            Err(Refusal::TargetTooLong)
        } else if bytes.len() > HEAD_BYTES_MAX {
            Err(Refusal::TooLarge)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if self.version.is_none() {
            self.version = Some(request_line(line)?);
            return Ok(());
        }
        self.headers += 1;
        if self.headers > HEADERS_MAX {
            return Err(Refusal::TooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(Refusal::Field)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        // A space before the colon or a folded line is no token either.
        if name.is_empty()
            || !name.iter().copied().all(is_token)
            || !value.iter().copied().all(is_value)
        {
            return Err(Refusal::Field);
        }
        self.field(name, value)
    }

    /// What the few headers say that decide about framing.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let text = value.trim_ascii();
        let refusal = if is("host") {
            let again = std::mem::replace(&mut self.host, true);
            (again || !is_host(text)).then_some(Refusal::Host)
        } else if is("content-length") {
            let length = digits(value.trim_ascii_start());
            let again = std::mem::replace(&mut self.length, length).is_some();
            (again || length.is_none()).then_some(Refusal::Length)
        } else if is("transfer-encoding") {
            let again = std::mem::replace(&mut self.chunked, true);
            (again || !text.eq_ignore_ascii_case(b"chunked")).then_some(Refusal::Coding)
        } else if is("expect") {
            (!text.eq_ignore_ascii_case(b"100-continue")).then_some(Refusal::Expectation)
        } else {
            None
        };
        refusal.map_or(Ok(()), Err)
    }

    /// What a whole head says about its body.
    fn framing(&self) -> Result<Framing, Refusal> {
        let modern = self.version == Some(Version::Http11);
        if modern && !self.host {
            return Err(Refusal::Host);
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::TwoLengths),
            (None, true) if !modern => Err(Refusal::Coding),
            (None, true) => Ok(Framing::Chunked),
            (length, false) => Ok(Framing::Sized(length.unwrap_or(0))),
        }
    }
}

const METHOD_BYTES_MAX: usize = 32;
const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + TARGET_BYTES_MAX + "  HTTP/1.1\r".len();

fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    let is_method = (1..=METHOD_BYTES_MAX).contains(&method.len());
    if !is_method || !method.iter().copied().all(is_token) {
        return Err(Refusal::RequestLine);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Refusal::Version),
        _ => return Err(Refusal::RequestLine),
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    // A reader that cuts off a fragment sees another path than one that does not.
    let is_path = target.first() == Some(&b'/') && !target.contains(&b'#');
    if is_path && PathAndQuery::try_from(target).is_ok() {
        Ok(version)
    } else {
        Err(Refusal::Target)
    }
}

/// A host with or without a port, loosely: nothing that could belong to something else.
fn is_host(value: &[u8]) -> bool {
    let other = |byte: &u8| !byte.is_ascii_graphic() || b",/?#@\\".contains(byte);
    !value.is_empty() && !value.iter().any(other)
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.iter().all(u8::is_ascii_digit) && value.len() <= 19 {
        std::str::from_utf8(value).ok()?.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Option<(usize, Framing)>, Refusal> {
        Head::default().read(head.as_bytes())
    }

    #[test]
    fn a_head_says_how_long_it_is_and_what_follows() {
        for (fields, framing) in [
            ("", Framing::Sized(0)),
            ("Content-Length:7\r\n", Framing::Sized(7)),
            ("content-length: \t007\r\n", Framing::Sized(7)),
            ("Transfer-Encoding: Chunked \r\n", Framing::Chunked),
            ("X:\r\nExpect: 100-Continue\r\n", Framing::Sized(0)),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a:1\r\n{fields}\r\n");
            assert_eq!(read(&head), Ok(Some((head.len(), framing))), "{fields}");
        }
        let old = "GET / HTTP/1.0\r\n\r\n";
        assert_eq!(read(old), Ok(Some((old.len(), Framing::Sized(0)))));
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
    }

    #[test]
    fn a_header_that_two_readers_could_read_differently_is_refused() {
        for (fields, refusal) in [
            (
                "Content-Length: 2\r\nContent-Length: 2\r\n",
                Refusal::Length,
            ),
            ("Content-Length: 2, 2\r\n", Refusal::Length),
            ("Content-Length: +2\r\n", Refusal::Length),
            ("Content-Length: 2 \r\n", Refusal::Length),
            ("Content-Length:\r\n", Refusal::Length),
            ("Content-Length: 00000000000000000002\r\n", Refusal::Length),
            (
                "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                Refusal::TwoLengths,
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", Refusal::Coding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Refusal::Coding,
            ),
            ("Transfer-Encoding:\r\n", Refusal::Coding),
            ("Host: a\r\n", Refusal::Host),
            ("Content-Length : 2\r\n", Refusal::Field),
            (" folded\r\n", Refusal::Field),
            ("no colon\r\n", Refusal::Field),
            (": no name\r\n", Refusal::Field),
            ("A: \0\r\n", Refusal::Field),
            ("A: b\rc\r\n", Refusal::Field),
            ("A: b\n", Refusal::LineEnd),
            ("Expect: banana\r\n", Refusal::Expectation),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(read(&head), Err(refusal), "{fields:?}");
        }
        for host in [
            "",
            "Host:\r\n",
            "Host: a, b\r\n",
            "Host: a b\r\n",
            "Host: a@b\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{host}\r\n");
            assert_eq!(read(&head), Err(Refusal::Host), "{host:?}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old), Err(Refusal::Coding));
    }

    #[test]
    fn a_request_line_is_three_words() {
        for (line, refusal) in [
            ("GET /", Refusal::RequestLine),
            ("GET  / HTTP/1.1", Refusal::RequestLine),
            ("GET /a b HTTP/1.1", Refusal::RequestLine),
            (" GET / HTTP/1.1", Refusal::RequestLine),
            ("G(T / HTTP/1.1", Refusal::RequestLine),
            ("GET / http/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.10", Refusal::Version),
            ("PRI * HTTP/2.0", Refusal::Version),
            ("OPTIONS * HTTP/1.1", Refusal::Target),
            ("GET http://a/ HTTP/1.1", Refusal::Target),
            ("CONNECT a:1 HTTP/1.1", Refusal::Target),
            ("GET /a#b HTTP/1.1", Refusal::Target),
            ("GET /a\tb HTTP/1.1", Refusal::Target),
        ] {
            assert_eq!(
                read(&format!("{line}\r\nHost: a\r\n\r\n")),
                Err(refusal),
                "{line}"
            );
        }
        assert_eq!(
            read("\r\n\r\nGET / HTTP/1.1\r\n"),
            Err(Refusal::RequestLine)
        );
        assert_eq!(
            read("\u{16}\u{3}"),
            Err(Refusal::RequestLine),
            "TLS, before its line ends"
        );
    }

    #[test]
    fn a_head_has_limits_also_before_it_ends() {
        let head =
            |target: &str, fields: &str| format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{fields}");
        let long = "x".repeat(TARGET_BYTES_MAX);
        assert_eq!(read(&head(&long, "\r\n")), Err(Refusal::TargetTooLong));
        assert!(
            read(&head(&"x".repeat(TARGET_BYTES_MAX - 1), "\r\n"))
                .is_ok_and(|whole| whole.is_some())
        );
        assert_eq!(
            read(&format!("GET /{long}{long}")),
            Err(Refusal::TargetTooLong)
        );
        let wide = format!("A: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(&head("", &wide)), Err(Refusal::TooLarge));
        assert_eq!(
            read(&head("", &format!("{wide}\r\n\r\n"))),
            Err(Refusal::TooLarge)
        );
        let many = "A: b\r\n".repeat(HEADERS_MAX);
        assert_eq!(read(&head("", &many)), Err(Refusal::TooLarge));
        let fits = "A: b\r\n".repeat(HEADERS_MAX - 1);
        assert_eq!(read(&head("", &fits)), Ok(None));
    }
}
