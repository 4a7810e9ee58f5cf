//! HTTP/1.1 over a raw, blocking socket: requests go out exactly as written, answers are read to their last byte.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;
use socket2::SockRef;

use super::{canary, openapi::DOCUMENT};

/// A request, header by header in the order they were added. Nothing is escaped or checked.
#[derive(Clone)]
pub(crate) struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        Self {
            head,
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value.as_ref());
        self.head.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("Authorization", format!("Bearer {key}"))
    }

    /// The body, with its `Content-Length`.
    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let mut request = self.header("Content-Length", body.len().to_string());
        request.body = body;
        request
    }

    /// The body in chunks of `size` bytes, without a `Content-Length`.
    pub(crate) fn chunked(self, body: &[u8], size: usize) -> Self {
        let mut request = self.header("Transfer-Encoding", "chunked");
        for chunk in body.chunks(size) {
            request
                .body
                .extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.body.extend_from_slice(chunk);
            request.body.extend_from_slice(b"\r\n");
        }
        request.body.extend_from_slice(b"0\r\n\r\n");
        request
    }

    /// The very same request to another target.
    pub(crate) fn retarget(mut self, target: &str) -> Self {
        let (method, old) = self.line();
        let line = format!("{method} {target}");
        let old = method.len() + 1 + old.len();
        self.head.splice(..old, line.into_bytes());
        self
    }

    /// Method and target.
    fn line(&self) -> (&str, &str) {
        let line = self.head.split(|byte| *byte == b'\r').next();
        let line = str::from_utf8(line.unwrap_or_default()).unwrap();
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        (word(), word())
    }

    /// The bytes on the wire.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.head[..], b"\r\n", &self.body].concat()
    }
}

/// A whole answer. Header names keep the case they came in.
#[derive(Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header; two of one name fail the test, no answer of ours repeats one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| &**v);
        let value = values.next();
        assert!(
            values.next().is_none(),
            "{name} came twice: {:?}",
            self.headers
        );
        value
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    /// `code` of a problem, after a look at the fields that every problem has.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Problem {
            r#type: String,
            title: String,
            status: u16,
            code: String,
            request_id: String,
        }
        assert_eq!(
            self.header("Content-Type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status);
        assert!(
            problem.r#type.starts_with("/problems/"),
            "{}",
            problem.r#type
        );
        assert!(!problem.title.is_empty());
        assert_eq!(self.header("X-Request-Id"), Some(&*problem.request_id));
        problem.code
    }

    /// Asserts the status and gives the answer back, so that a failure shows what came instead.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// Asserts status and problem code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, &*self.problem()), (status, code));
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {body:?}", self.status, self.headers)
    }
}

/// One connection, kept alive between calls.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends, reads the answer and holds it against the OpenAPI document. A server that refuses early may close its side before the last byte is sent: what it
    /// said still counts.
    pub(crate) fn call(&mut self, request: &Request) -> io::Result<Response> {
        match self.send(&request.encode()) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(e) => return Err(e),
        }
        let response = self.response()?;
        let (method, target) = request.line();
        DOCUMENT.check(method, target, &response);
        Ok(response)
    }

    /// Sends the head of a request, and waits until the server has taken it and asks for the body, which [`Connection::finish`] sends.
    pub(crate) fn begin(&mut self, request: &Request) {
        let request = request.clone().header("Expect", "100-continue");
        self.send(&[&request.head[..], b"\r\n"].concat()).unwrap();
        let (head, _) = self.head().unwrap();
        assert_eq!(head.status, 100, "{head:?}");
    }

    /// Sends the body of a request that was begun, and reads the answer.
    pub(crate) fn finish(&mut self, request: &Request) -> Response {
        self.send(&request.body).unwrap();
        self.response().unwrap()
    }

    pub(crate) fn response(&mut self) -> io::Result<Response> {
        let (mut response, mut body) = self.head()?;
        body.read_to_end(&mut response.body)?;
        if response.status >= 400
            && let Ok(server) = self.stream.get_ref().peer_addr()
        {
            canary::refused(server, format!("{response:?}").as_bytes());
        }
        Ok(response)
    }

    /// An answer to `HEAD`: it declares a body and has none.
    pub(crate) fn response_to_head(&mut self) -> io::Result<Response> {
        Ok(self.head()?.0)
    }

    /// Whether the server closes its side, now or after a while; an answer that nobody expected is no end.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Waits no longer than this for anything.
    pub(crate) fn patience(&self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
    }

    /// Whether there is an answer, or the end.
    pub(crate) fn has_something(&mut self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let seen = stream.peek(&mut [0; 1]);
        stream.set_nonblocking(false).unwrap();
        seen.is_ok() || seen.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    }

    /// Ends the connection: half of it, with a reset, or as usual.
    pub(crate) fn end(self, half: bool, reset: bool) {
        let stream = self.stream.into_inner();
        if half {
            stream.shutdown(Shutdown::Write).unwrap();
            // Until the server has closed too.
            let _ = (&stream).read_to_end(&mut Vec::new());
        }
        if reset {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    /// Sends and reads the head of an answer that has no end.
    pub(crate) fn follow(&mut self, request: &Request) -> io::Result<(Response, Body<'_>)> {
        self.send(&request.encode())?;
        self.head()
    }

    fn head(&mut self) -> io::Result<(Response, Body<'_>)> {
        let status_line = read_line(&mut self.stream)?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no status in {status_line:?}")))?;
        let mut response = Response {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = read_line(&mut self.stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| io::Error::other("no colon in a header"))?;
            response
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        let framing = if let Some(length) = response.header("Content-Length") {
            Framing::Left(length.parse().map_err(io::Error::other)?)
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            Framing::Chunk(0)
        } else if matches!(status, 204 | 304) {
            Framing::Left(0)
        } else {
            Framing::UntilClose
        };
        Ok((
            response,
            Body {
                stream: &mut self.stream,
                framing,
            },
        ))
    }
}

enum Framing {
    /// So many bytes to go.
    Left(u64),
    /// So many bytes to go in this chunk; 0 before a chunk.
    Chunk(u64),
    UntilClose,
}

/// The body of an answer; its end is the end that the framing says, anything shorter is an error.
pub(crate) struct Body<'a> {
    stream: &'a mut BufReader<TcpStream>,
    framing: Framing,
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if matches!(self.framing, Framing::Chunk(0)) {
            let line = read_line(self.stream)?;
            let size = u64::from_str_radix(&line, 16).map_err(io::Error::other)?;
            if size == 0 {
                read_line(self.stream)?;
                self.framing = Framing::Left(0);
            } else {
                self.framing = Framing::Chunk(size);
            }
        }
        let (Framing::Left(left) | Framing::Chunk(left)) = &mut self.framing else {
            return self.stream.read(buf);
        };
        if *left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let most = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = self.stream.read(&mut buf[..most])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if matches!(self.framing, Framing::Chunk(0)) {
            read_line(self.stream)?;
        }
        Ok(read)
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    let text = line.strip_suffix(b"\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    String::from_utf8(text.to_vec()).map_err(io::Error::other)
}
