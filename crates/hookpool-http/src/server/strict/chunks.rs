//! A chunked body, byte by byte but for the data, which is skipped.

use super::{is_token, is_value};

/// Extensions and trailers of one body, which nobody reads.
const IGNORED_BYTES_MAX: u32 = 8 << 10;
const SIZE_DIGITS_MAX: u8 = 15;

/// A chunked body that has not ended.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    ignored_bytes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    SizeBegin,
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    LineBegin,
    Name,
    Value,
    LineLf,
    EndLf,
    End,
}

impl Chunks {
    /// How many of the bytes belong to this body; an error is the place of the byte that can't.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let mut read = 0;
        while let Some(byte) = bytes.get(read) {
            match &mut self.at {
                At::End => break,
                At::Data { left } => {
                    let skipped = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len() - read);
                    *left -= skipped as u64;
                    read += skipped;
                    if *left == 0 {
                        self.at = At::DataCr;
                    }
                }
                at => {
                    self.at = at.next(*byte).ok_or(read)?;
                    self.ignore().ok_or(read)?;
                    read += 1;
                }
            }
        }
        Ok(read)
    }

    pub(super) fn ended(&self) -> bool {
        self.at == At::End
    }

    /// Counts a byte that nobody reads; `None` if there are too many.
    fn ignore(&mut self) -> Option<()> {
        let ignored = matches!(self.at, At::Extension { .. } | At::Name | At::Value);
        self.ignored_bytes += u32::from(ignored);
        (self.ignored_bytes <= IGNORED_BYTES_MAX).then_some(())
    }
}

impl At {
    /// Where a byte outside the data leads.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::SizeBegin, _) => Self::digit(0, 0, byte)?,
            (Self::Size { size, .. } | Self::Extension { size }, b'\r') => Self::SizeLf { size },
            (Self::Size { size, .. }, b';') => Self::Extension { size },
            (Self::Size { digits, size }, _) => Self::digit(digits, size, byte)?,
            (Self::Extension { size }, _) if is_value(byte) => Self::Extension { size },
            (Self::SizeLf { size: 0 }, b'\n') => Self::LineBegin,
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::SizeBegin,
            (Self::LineBegin, b'\r') => Self::EndLf,
            (Self::LineBegin | Self::Name, _) if is_token(byte) => Self::Name,
            (Self::Name, b':') => Self::Value,
            (Self::Value, b'\r') => Self::LineLf,
            (Self::Value, _) if is_value(byte) => Self::Value,
            (Self::LineLf, b'\n') => Self::LineBegin,
            (Self::EndLf, b'\n') => Self::End,
            _ => return None,
        })
    }

    fn digit(digits: u8, size: u64, byte: u8) -> Option<Self> {
        let digit = char::from(byte).to_digit(16)?;
        (digits < SIZE_DIGITS_MAX).then_some(Self::Size {
            digits: digits + 1,
            size: size << 4 | u64::from(digit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<usize, usize> {
        Chunks::default().read(body.as_bytes())
    }

    #[test]
    fn a_body_ends_with_its_last_line() {
        for body in [
            "0\r\n\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "1;a=\"b\"\r\n{\r\n01\r\n}\r\n000\r\n\r\n",
            "A\r\n0123456789\r\n0\r\nA: b\r\nB:\r\n\r\n",
        ] {
            assert_eq!(read(&format!("{body}GET")), Ok(body.len()), "{body:?}");
        }
        let mut chunks = Chunks::default();
        assert_eq!(chunks.read(b"5\r\n{}"), Ok(5));
        assert!(!chunks.ended());
    }

    #[test]
    fn a_chunk_that_two_readers_could_read_differently_is_refused_at_its_byte() {
        for (body, at) in [
            ("ZZ\r\n", 0),
            ("\r\n", 0),
            (";a\r\n", 0),
            ("2 \r\n", 1),
            ("2\n{}", 1),
            ("2\r{}", 2),
            ("0x2\r\n", 1),
            ("1234567890123456\r\n", 15),
            ("2;a\n{}", 3),
            ("2;a\rb\r\n", 4),
            ("2\r\n{}0\r\n", 5),
            ("2\r\n{}\n", 5),
            ("0\r\nA b: c\r\n", 4),
            ("0\r\n: c\r\n", 3),
            ("0\r\nA: \0\r\n", 6),
            ("0\r\nA: b\n", 7),
            ("0\r\n\n", 3),
        ] {
            assert_eq!(read(body), Err(at), "{body:?}");
        }
    }

    #[test]
    fn what_nobody_reads_is_limited_over_the_whole_body() {
        let spread = format!("1;{}\r\n{{\r\n", "x".repeat(1 << 10)).repeat(9);
        assert!(read(&spread).is_err());
        assert!(read(&format!("0\r\nA: {}\r\n", "x".repeat(9 << 10))).is_err());
        let much = format!("1;{}\r\n{{\r\n", "x".repeat(1 << 10)).repeat(7);
        assert_eq!(read(&much), Ok(much.len()));
    }
}
