//! How the process ends: one table of exit codes, and what is said beside them.

use std::{borrow::Cow, process::ExitCode};

use hookpool_client::{Error, Problem};

use crate::{
    client::{NoKey, WrongKey},
    output::{self, StdoutClosed},
    sought::Sought,
};

/// The exit codes that scripts rely on. 2 is clap's too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Unauthorized = 4,
    Conflict = 5,
    Problems = 6,
    Unreachable = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Says on stderr what went wrong and what to do next, and names the code.
pub(crate) fn explain(error: &anyhow::Error) -> Exit {
    if error.is::<StdoutClosed>() {
        return Exit::Ok;
    }
    output::say(&format!(
        "error: {}",
        output::printable(&format!("{error:#}"))
    ));
    if let Some(hint) = hint(error) {
        output::say(&format!("hint: {}", output::printable_line(&hint)));
    }
    code(error)
}

fn code(error: &anyhow::Error) -> Exit {
    if error.is::<NoKey>() || error.is::<WrongKey>() {
        return Exit::Unauthorized;
    }
    error
        .downcast_ref()
        .map_or(Exit::Failure, |error| match last(error) {
            Error::Invalid(_) => Exit::Usage,
            Error::Unreachable { .. } => Exit::Unreachable,
            Error::Problem(problem) => match problem.status {
                401 | 403 => Exit::Unauthorized,
                404 => Exit::NotFound,
                409 | 412 => Exit::Conflict,
                _ => Exit::Failure,
            },
            _ => Exit::Failure,
        })
}

/// What became of the last try.
fn last(error: &Error) -> &Error {
    match error {
        Error::MayBeRecorded { last, .. } => last,
        error => error,
    }
}

fn hint(error: &anyhow::Error) -> Option<Cow<'_, str>> {
    if error.is::<NoKey>() {
        return Some(
            "set HOOKPOOL_OPERATOR_KEY, name a file with --operator-key-file, or name the server's data folder with --data-dir".into(),
        );
    }
    Some(match last(error.downcast_ref()?) {
        Error::Unreachable { .. } => {
            "is `hookpool serve` running? --server or HOOKPOOL_SERVER says where to look".into()
        }
        Error::Problem(problem) => match error.downcast_ref::<Sought>() {
            Some(sought) if problem.status == 404 => sought.hint.as_str().into(),
            _ => hint_of(problem)?.into(),
        },
        Error::Protocol(_) => {
            "is it Hookpool that answers at --server, in the same version?".into()
        }
        _ => return None,
    })
}

fn hint_of(problem: &Problem) -> Option<&'static str> {
    let detail = problem.detail.as_deref().unwrap_or_default();
    Some(match problem.code.as_str() {
        "UNAUTHORIZED" => {
            "check that the key is of the right kind (ik_ sends, rk_ reads, ok_ operates), of this server, and not revoked"
        }
        "SIGNATURE_INVALID" => {
            "this connector is signed: pass its signing key, whsk_ included, in HOOKPOOL_SIGNING_KEY"
        }
        "TIMESTAMP_OUT_OF_RANGE" => "compare this machine's clock with the server's",
        "NOT_FOUND" => "names are case-sensitive; `hookpool connector list` shows what there is",
        "CONFLICT" if detail == "the name is taken" => {
            "choose another name, or look at the one that is there with `list`"
        }
        "CONFLICT" if detail.ends_with("is not promoted or cancelled yet") => {
            "`hookpool rebuild promote` serves it, `hookpool rebuild cancel` throws it away"
        }
        "IDEMPOTENCY_MISMATCH" => "a key names one request: choose another for this one",
        "BEFORE_RETENTION" => {
            "`hookpool retention show` says how far back the stream goes; without --after all of that is read"
        }
        "PAGE_EXPIRED" => "run the command again",
        "UNAVAILABLE" => "try again in a moment; nothing that was accepted is lost",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16) -> anyhow::Error {
        let problem = Problem {
            status,
            code: String::new(),
            title: String::new(),
            detail: None,
            line: None,
            request_id: None,
            retry_after: None,
        };
        anyhow::Error::new(Error::Problem(Box::new(problem))).context("sending body 3")
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let unreachable = || Error::Unreachable {
            server: String::new(),
            reason: String::new(),
            sent: false,
        };
        let in_doubt = Error::MayBeRecorded {
            idempotency_key: String::new(),
            last: Box::new(unreachable()),
        };
        let no_key = NoKey {
            looked_for: "x".into(),
            why: "gone".to_owned(),
        };
        let wrong_key = WrongKey("an operator key");
        for (error, expected) in [
            (anyhow::anyhow!("anything"), 1),
            (problem(400), 1),
            (problem(404), 3),
            (problem(401), 4),
            (problem(403), 4),
            (anyhow::Error::new(no_key), 4),
            (anyhow::Error::new(wrong_key).context("reading"), 4),
            (anyhow::Error::new(Error::Invalid(String::new())), 2),
            (problem(409), 5),
            (problem(412), 5),
            (problem(503), 1),
            (anyhow::Error::new(in_doubt), 7),
            (anyhow::Error::new(unreachable()).context("connecting"), 7),
        ] {
            assert_eq!(code(&error) as u8, expected, "{error:#}");
        }
        assert_eq!((Exit::Ok as u8, Exit::Problems as u8), (0, 6));
    }
}
