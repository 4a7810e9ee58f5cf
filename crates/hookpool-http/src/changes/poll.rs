//! Long polling: the same frames as one JSON answer, which ends once there is something and a place to go on from.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use tokio::time::{Instant, timeout_at};
use warp::reply::Response;

use super::{Connection, streamed};
use crate::{
    app::Request,
    read::{WAIT_SECONDS_MAX, preferred_wait},
    render::push_string,
};

/// How long an answer waits for its first frame where there is nothing yet, without a word of the client's.
const WAIT: Duration = Duration::from_secs(30);
/// Bytes of an answer after which it ends at the next place to go on from.
const BYTES_MAX: usize = 1 << 20;

/// `{"frames":[...],"cursor":...}`, written as the frames come.
pub(super) fn answer(request: &Request, connection: Connection) -> Response {
    let wait = preferred_wait(request).map(|seconds| seconds.min(WAIT_SECONDS_MAX));
    let wait = wait.map_or(WAIT, Duration::from_secs);
    let poll = Poll {
        connection,
        ends_at: Instant::now() + wait,
        bytes: 0,
        frames: 0,
        state: State::Begin,
    };
    let body = stream::unfold(poll, |mut poll| async move {
        let bytes = poll.next().await?;
        Some((Ok::<_, Infallible>(bytes), poll))
    });
    streamed(body, "application/json")
}

struct Poll {
    connection: Connection,
    ends_at: Instant,
    bytes: usize,
    frames: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Begin,
    Frames,
    Ended,
}

impl Poll {
    /// The next part of the answer; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        match self.state {
            State::Begin => {
                self.state = State::Frames;
                Some(Bytes::from_static(br#"{"frames":["#))
            }
            State::Frames => match self.wait().await {
                Some(lines) => Some(self.members(&lines)),
                None => {
                    self.state = State::Ended;
                    Some(self.end())
                }
            },
            State::Ended => None,
        }
    }

    /// What comes next; `None` if that was all for this time.
    async fn wait(&mut self) -> Option<Bytes> {
        if self.connection.wire.moved() {
            let more = self.bytes < BYTES_MAX;
            return more.then(|| self.connection.next().now_or_never())??;
        }
        loop {
            // Once there are frames there will be a place behind them, and without it they are worth nothing. Before, whatever could be read
            // is read, however long that takes: the next call would begin with the same, and come no further.
            let has_begun = self.frames > 0 || !self.connection.is_at_rest();
            let step = self.connection.step();
            let bytes = match has_begun {
                true => step.await,
                false => timeout_at(self.ends_at, step).await.ok()?,
            }?;
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
    }

    /// Lines of frames as members of an array.
    fn members(&mut self, lines: &[u8]) -> Bytes {
        let mut members = Vec::with_capacity(lines.len() + 1);
        for line in lines.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            if self.frames > 0 {
                members.push(b',');
            }
            members.extend_from_slice(line);
            self.frames += 1;
        }
        self.bytes += members.len();
        members.into()
    }

    fn end(&self) -> Bytes {
        let mut end = String::from(r#"],"cursor":"#);
        match self.connection.wire.place() {
            Some(place) => push_string(&mut end, &place),
            None => end.push_str("null"),
        }
        end.push('}');
        end.into()
    }
}
