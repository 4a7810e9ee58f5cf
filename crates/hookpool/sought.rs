//! What a command asked for, so that where it is not there the command says what it was and where to look.

use std::fmt::{self, Display};

use hookpool_client::Error;

/// Stands before the server's refusal.
#[derive(Debug)]
pub(crate) struct Sought {
    what: String,
    /// What to do where there is no such thing.
    pub(crate) hint: String,
}

impl Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Answers of the server that may be refusals.
pub(crate) trait Seek<T> {
    /// Names what was asked for where it is refused, and what to do where it is not there.
    fn sought(self, what: impl Into<String>, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T> Seek<T> for Result<T, Error> {
    fn sought(self, what: impl Into<String>, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| match error {
            Error::Problem(_) => anyhow::Error::new(error).context(Sought {
                what: what.into(),
                hint: hint.into(),
            }),
            // Nobody said that it is not there.
            _ => error.into(),
        })
    }
}
