//! Why the head of a request is refused before anybody reads it as a request. Knows no status; [`crate::problem`] does.

/// What is wrong with a head. The texts are for the sender and hold nothing of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the first line is not method, target and version with one space between them")]
    RequestLine,
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here")]
    Version,
    #[error("the target has to be a path, without a fragment")]
    Target,
    #[error("the target is longer than {} bytes", crate::server::TARGET_BYTES_MAX)]
    TargetTooLong,
    #[error("every line of the head ends with CR and LF, which come nowhere else")]
    LineEnd,
    #[error("a header is one line of name, colon and value, without control characters")]
    Field,
    #[error("Host has to come once and name a host")]
    Host,
    #[error("Content-Length has to come once, as digits and nothing else")]
    Length,
    #[error("the only Transfer-Encoding is chunked, once, and not in HTTP/1.0")]
    Coding,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    TwoLengths,
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    #[error(
        "the head has more than {} headers or {} bytes",
        crate::server::HEADERS_MAX,
        crate::server::HEAD_BYTES_MAX
    )]
    TooLarge,
}
