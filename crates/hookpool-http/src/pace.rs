//! What limited connectors are told of their limit (IETF draft `ratelimit-headers`).

use hookpool_core::rate::{Level, Rate};
use hookpool_engine::pace::{Pace, TooFast};
use warp::{http::HeaderName, reply::Response};

use crate::{
    app::set,
    problem::{Code, Problem},
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// An answer to a connector, with what is left for it where it is limited.
pub(crate) fn told(
    pace: Option<Pace>,
    answer: Result<Response, Problem>,
) -> Result<Response, Problem> {
    let Some(Pace { rate, level }) = pace else {
        return answer;
    };
    let headers = headers(rate, level);
    match answer {
        Ok(mut response) => {
            for (name, value) in headers {
                set(&mut response, name, &value);
            }
            Ok(response)
        }
        Err(problem) => Err(with(problem, headers)),
    }
}

/// The burst is the quota, and the window the time in which it comes back.
fn headers(rate: Rate, level: Level) -> [(HeaderName, String); 2] {
    let (quota, window) = (rate.burst(), rate.window_seconds());
    let Level { left, full_in } = level;
    [
        (POLICY, format!("\"connector\";q={quota};w={window}")),
        (LIMIT, format!("\"connector\";r={left};t={full_in}")),
    ]
}

fn with(problem: Problem, headers: [(HeaderName, String); 2]) -> Problem {
    headers.into_iter().fold(problem, |problem, (name, value)| {
        problem.header(name, value)
    })
}

impl From<TooFast> for Problem {
    fn from(TooFast { rate, wait }: TooFast) -> Self {
        let problem = Self::wait(Code::RateLimited, wait.seconds);
        with(problem, headers(rate, wait.level))
    }
}
