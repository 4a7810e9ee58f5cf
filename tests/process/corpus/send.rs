//! One case over one socket, in one of the ways, and what has to be true afterwards.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::case::{Case, End, Expected, Pace};
use super::world::World;
use super::{CUT_EVERYWHERE_MAX, FIRST_BYTES, SLOW, SOME_PLACES};
use crate::common::http::{Connection, Response};

/// Long enough that the server has read what was sent.
const BETWEEN_PARTS: Duration = Duration::from_micros(200);

/// For an answer or an end: longer than the server waits for anything that the corpus does not send.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Plain,
    /// Behind a good one, in one write.
    Pipelined,
    /// In two writes, at so many places.
    Cut {
        places: usize,
        seed: u64,
    },
}

/// Sends a case and checks everything that it says.
pub(super) fn probe(world: &mut World<'_>, case: &Case, mode: Mode) -> Result<(), String> {
    let expected = case.expected();
    let mut wire = Wire::default();
    let accepted = match mode {
        Mode::Plain => wire.whole(world, case, &expected)?,
        Mode::Pipelined => wire.behind_a_good_one(world, case, &expected)?,
        Mode::Cut { places, seed } => wire.cut(world, case, &expected, places, seed)?,
    };
    let last = wire.good(world, case)?;
    let grown = world.grown(case, last)? - 1;
    let right = match &expected.grows {
        Some(grows) => grows.contains(&grown),
        None => grown == accepted,
    };
    if right {
        Ok(())
    } else {
        Err(format!("the log grew by {grown}, {accepted} were accepted"))
    }
}

/// A connection for as long as the server keeps it.
#[derive(Default)]
struct Wire(Option<Connection>);

impl Wire {
    fn open(&mut self, world: &World<'_>) -> Result<&mut Connection, String> {
        if self.0.is_none() {
            let connection = Connection::open(world.server.addr);
            let connection = connection.map_err(|error| format!("no connection: {error}"))?;
            connection.patience(PATIENCE);
            self.0 = Some(connection);
        }
        self.0.as_mut().ok_or_else(String::new)
    }

    fn whole(
        &mut self,
        world: &mut World<'_>,
        case: &Case,
        expected: &Expected,
    ) -> Result<usize, String> {
        let bytes = world.render(case);
        world.sent += 1;
        let connection = self.open(world)?;
        match case.pace {
            None => send(connection, &bytes),
            Some(pace) => send_slowly(connection, &bytes, pace),
        }
        if let Some(end) = case.end {
            let connection = self.0.take();
            connection
                .ok_or("no connection")?
                .end(end == End::HalfClose, end == End::Reset);
            return Ok(0);
        }
        self.answers(case, expected, &bytes)
    }

    fn behind_a_good_one(
        &mut self,
        world: &mut World<'_>,
        case: &Case,
        expected: &Expected,
    ) -> Result<usize, String> {
        let (good, bytes) = (world.good(case), world.render(case));
        world.sent += 2;
        let connection = self.open(world)?;
        send(connection, &[good, bytes.clone()].concat());
        let first = connection
            .response()
            .map_err(|error| format!("no answer to the good one before: {error}"))?;
        if first.status != 202 {
            return Err(format!("the good one before got {first:?}"));
        }
        Ok(1 + self.answers(case, expected, &bytes)?)
    }

    fn cut(
        &mut self,
        world: &mut World<'_>,
        case: &Case,
        expected: &Expected,
        places: usize,
        seed: u64,
    ) -> Result<usize, String> {
        let begun = Instant::now();
        let mut accepted = self.whole(world, case, expected)?;
        let length = world.render(case).len();
        let few = begun.elapsed() > SLOW || length > CUT_EVERYWHERE_MAX;
        let mut random = StdRng::seed_from_u64(seed);
        let mut cuts: Vec<usize> = if few {
            (1..length).choose_multiple(&mut random, SOME_PLACES.min(places))
        } else {
            let later = (FIRST_BYTES..length).choose_multiple(&mut random, SOME_PLACES);
            let all = (1..length.min(FIRST_BYTES)).chain(later);
            all.choose_multiple(&mut random, places)
        };
        cuts.sort_unstable();
        for at in cuts {
            let bytes = world.render(case);
            world.sent += 1;
            let (first, rest) = bytes.split_at(at.min(bytes.len()));
            let connection = self.open(world)?;
            send(connection, first);
            std::thread::sleep(BETWEEN_PARTS);
            send(connection, rest);
            let outcome = self.answers(case, expected, &bytes);
            accepted += outcome.map_err(|failure| format!("cut at byte {at}: {failure}"))?;
        }
        Ok(accepted)
    }

    /// Reads the answers; how many of them were 202.
    fn answers(&mut self, case: &Case, expected: &Expected, bytes: &[u8]) -> Result<usize, String> {
        let mut connection = self.0.take().ok_or("no connection")?;
        let mut accepted = 0;
        for (n, statuses) in expected.answers.iter().enumerate() {
            let answer = if case.is_head() {
                connection.response_to_head()
            } else {
                connection.response()
            };
            let answer =
                answer.map_err(|error| format!("no answer {n}, {error}, to {}", shown(bytes)))?;
            check(case, statuses, &answer, expected.answers.len())
                .map_err(|what| format!("{what}: {answer:?} to {}", shown(bytes)))?;
            accepted += usize::from(answer.status == 202);
        }
        match expected.closes[..] {
            [true] => connection
                .is_closed()
                .then_some(())
                .ok_or_else(|| format!("not closed after {}", shown(bytes)))?,
            // What follows on the same connection shows whether it is open.
            [false] => self.0 = Some(connection),
            _ => {}
        }
        Ok(accepted)
    }

    /// A good request, on the same connection if it is open.
    fn good(&mut self, world: &mut World<'_>, case: &Case) -> Result<u64, String> {
        let bytes = world.good(case);
        world.sent += 1;
        let connection = self.open(world)?;
        send(connection, &bytes);
        let answer = connection
            .response()
            .map_err(|error| format!("no answer to the good one after: {error}"))?;
        if answer.status == 202 {
            Ok(world.position(&answer))
        } else {
            Err(format!("the good one after got {answer:?}"))
        }
    }
}

fn check(case: &Case, statuses: &[u16], answer: &Response, answers: usize) -> Result<(), String> {
    if !statuses.contains(&answer.status) {
        return Err(format!("not {statuses:?}"));
    }
    if answer.status >= 400 && !case.is_head() {
        let code = answer.problem();
        if case.code.as_ref().is_some_and(|wanted| *wanted != code) {
            return Err(format!("not {:?}", case.code));
        }
    }
    if answers > 1 {
        return Ok(());
    }
    if let Some((name, value)) = case.header.as_ref().and_then(|line| line.split_once(": "))
        && answer.header(name) != Some(value)
    {
        return Err(format!("no {name}: {value}"));
    }
    let text = String::from_utf8_lossy(&answer.body);
    match &case.contains {
        Some(part) if !text.contains(part) => Err(format!("no {part}")),
        _ => Ok(()),
    }
}

/// A server that has refused already may have closed; its answer counts.
fn send(connection: &mut Connection, bytes: &[u8]) {
    let _ = connection.send(bytes);
}

fn send_slowly(connection: &mut Connection, bytes: &[u8], pace: Pace) {
    let (first, rest) = bytes.split_at(pace.first.min(bytes.len()));
    send(connection, first);
    let mut rest = rest
        .chunks(pace.then.max(1))
        .take(if pace.then == 0 { 0 } else { usize::MAX });
    while let Some(part) = rest.next().filter(|_| !connection.has_something()) {
        send(connection, part);
        std::thread::sleep(Duration::from_millis(pace.every_ms));
    }
}

fn shown(bytes: &[u8]) -> String {
    let first: String = bytes
        .iter()
        .take(700)
        .map(|byte| byte.escape_ascii().to_string())
        .collect();
    format!("{} bytes: {first}", bytes.len())
}
