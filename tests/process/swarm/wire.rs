//! One HTTP answer as its bytes come, cut wherever it is cut.

/// Takes the bytes of an answer and gives those of its body.
#[derive(Default)]
pub(super) struct Answer {
    rest: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Size,
    /// So many bytes to go.
    Chunk(usize),
    Trailer,
    End,
}

impl Answer {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut body = Vec::new();
        while let Some(next) = self.step(&mut body) {
            self.state = next;
        }
        body
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.state == State::Head
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, body: &mut Vec<u8>) -> Option<State> {
        Some(match self.state {
            State::Head => {
                let head = self.take_through(b"\r\n\r\n")?;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                assert!(head.to_lowercase().contains("transfer-encoding: chunked"));
                State::Size
            }
            State::Size => {
                let size = self.take_through(b"\r\n")?;
                match usize::from_str_radix(size.trim_end(), 16).unwrap() {
                    0 => State::Trailer,
                    size => State::Chunk(size),
                }
            }
            State::Chunk(0) => {
                assert_eq!(self.take_through(b"\r\n")?, "\r\n");
                State::Size
            }
            State::Chunk(_) if self.rest.is_empty() => return None,
            State::Chunk(left) => {
                let taken = left.min(self.rest.len());
                body.extend(self.rest.drain(..taken));
                State::Chunk(left - taken)
            }
            State::Trailer => {
                self.take_through(b"\r\n")?;
                State::End
            }
            State::End => return None,
        })
    }

    fn take_through(&mut self, end: &[u8]) -> Option<String> {
        let at = self.rest.windows(end.len()).position(|part| part == end)?;
        let taken = self.rest.drain(..at + end.len()).collect();
        Some(String::from_utf8(taken).unwrap())
    }
}
