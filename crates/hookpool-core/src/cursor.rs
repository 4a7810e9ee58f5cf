//! Where a follower is: opaque to clients, three parts to us.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::position::{Epoch, Generation, Position};

/// `<epoch>.<generation>.<position>`: everything up to and including the position has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Of the log.
    pub epoch: Epoch,
    /// Of the stream that is followed.
    pub generation: Generation,
    /// Last seen.
    pub position: Position,
}

/// The text is not a cursor of any log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the cursor is malformed")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.generation, self.position)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parse = || {
            let mut parts = text.split('.');
            let cursor = Self {
                epoch: Epoch(u64::from_str_radix(parts.next()?, 16).ok()?),
                generation: Generation(parts.next()?.parse().ok()?),
                position: Position(parts.next()?.parse().ok()?),
            };
            parts.next().is_none().then_some(cursor)
        };
        // One spelling each: what does not print back as it came (`+5`, `007`, capitals) is not ours.
        parse()
            .filter(|cursor| cursor.to_string() == text)
            .ok_or(CursorError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prints_and_parses_back(epoch: u64, generation: u32, position: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), generation: Generation(generation), position: Position(position) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text in "\\PC{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            "",
            "abc",
            "-1",
            "1e3",
            " 5",
            "1.2",
            "1.2.3.4",
            "0000000000000001.+1.5",
            "000000000000000A.1.5",
            "0000000000000001.1.05",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad}");
        }
    }
}
