//! Recent frames of one stream, and when those who wait for them are woken.
//!
//! To wake a follower costs a write of its own, however little there is to write. So where there are many of them and frames come quickly,
//! there is a pause between two wake-ups, and what comes meanwhile is one piece. Knows nothing of logs and pools.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::position::Position;
use tokio::{sync::watch, time::Instant};

use super::{Rewrite, locked};

/// Bytes of encoded frames that a ring keeps, for each who follows: whoever falls behind it reads the log alone, and if many do at once there
/// is no time left to write.
const BYTES_EACH: usize = 8 << 10;
const BYTES_MIN: usize = 1 << 20;
const BYTES_MAX: usize = 64 << 20;
/// Bytes of frames that are shown although the pause has not ended.
const WAITING_BYTES: usize = BYTES_MIN / 4;
/// Pause after frames were shown, for each of them and each who waits.
const PAUSE_EACH: Duration = Duration::from_micros(2);
/// As many frames make the longest pause.
const PAUSE_FRAMES: usize = 15;
/// Where the pause would be shorter there is none: frames then gather by themselves while others are written.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Frames of the served generation of one stream, encoded once.
#[derive(Debug)]
pub(super) struct Ring {
    recent: Mutex<Recent>,
    /// Whether another generation is served by now; touched whenever there is something new.
    retired: watch::Sender<bool>,
}

impl Ring {
    pub(super) fn new(from: Position, retired: bool) -> Self {
        Self {
            recent: Mutex::new(Recent::new(from)),
            retired: watch::Sender::new(retired),
        }
    }

    /// Touched when there is something new; whether another generation is served by now.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.retired.subscribe()
    }

    /// Takes frames, and shows them unless there was something only just now: then when the pause has ended.
    pub(super) fn push(self: &Arc<Self>, fresh: Fresh) {
        if fresh.ends.is_empty() {
            return;
        }
        let mut recent = locked(&self.recent);
        recent.waiting.append(fresh);
        let now = Instant::now();
        if now >= recent.pause_ends || recent.waiting.bytes.len() >= WAITING_BYTES {
            drop(recent);
            self.show();
        } else if !recent.timed {
            recent.timed = true;
            let (ring, pause_ends) = (Arc::downgrade(self), recent.pause_ends);
            tokio::spawn(async move {
                tokio::time::sleep_until(pause_ends).await;
                if let Some(ring) = ring.upgrade() {
                    locked(&ring.recent).timed = false;
                    ring.show();
                }
            });
        }
    }

    /// Wakes all who wait for what is there.
    fn show(&self) {
        let followers = self.retired.receiver_count();
        locked(&self.recent).show(followers);
        self.retired.send_modify(|_| {});
    }

    /// Leaves out what was not encoded: followers read it from the log.
    pub(super) fn skip(&self, through: Position) {
        *locked(&self.recent) = Recent::new(through);
        self.retired.send_modify(|_| {});
    }

    /// Says that another generation is served, after all frames of this one.
    pub(super) fn retire(&self) {
        self.show();
        self.retired.send_replace(true);
    }

    /// The next frames after a position, as they are or rewritten: `None` if nothing is, or an error if the ring does not go back that far.
    pub(super) fn next(
        &self,
        after: Position,
        rewrite: Option<Rewrite>,
    ) -> Result<Option<(Bytes, Position)>, Behind> {
        locked(&self.recent).next(after, rewrite)
    }
}

/// The ring does not go back that far.
pub(super) struct Behind;

/// All frames after `from`, in chunks.
#[derive(Debug)]
struct Recent {
    from: Position,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// What comes next, and is not shown yet.
    waiting: Fresh,
    pause_ends: Instant,
    /// Whether a timer runs that ends with the pause.
    timed: bool,
}

impl Recent {
    fn new(from: Position) -> Self {
        Self {
            from,
            chunks: VecDeque::new(),
            bytes: 0,
            waiting: Fresh::default(),
            pause_ends: Instant::now(),
            timed: false,
        }
    }

    fn show(&mut self, followers: usize) {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.ends.is_empty() {
            return;
        }
        self.pause_ends = Instant::now() + pause(waiting.ends.len(), followers);
        let chunk = Chunk::new(waiting);
        let bytes_max = followers.saturating_mul(BYTES_EACH);
        self.push(chunk, bytes_max.clamp(BYTES_MIN, BYTES_MAX));
    }

    fn push(&mut self, chunk: Chunk, bytes_max: usize) {
        self.bytes += chunk.frames.bytes.len();
        self.chunks.push_back(chunk);
        while self.bytes > bytes_max && self.chunks.len() > 1 {
            if let Some(old) = self.chunks.pop_front() {
                self.bytes -= old.frames.bytes.len();
                self.from = old.last();
            }
        }
    }

    fn next(
        &self,
        after: Position,
        rewrite: Option<Rewrite>,
    ) -> Result<Option<(Bytes, Position)>, Behind> {
        if after < self.from {
            return Err(Behind);
        }
        let next = self.chunks.partition_point(|chunk| chunk.last() <= after);
        Ok(self
            .chunks
            .get(next)
            .map(|chunk| (chunk.after(after, rewrite), chunk.last())))
    }
}

/// How long nobody is woken after so many followers were woken for so many frames.
fn pause(frames: usize, followers: usize) -> Duration {
    let each = u32::try_from(frames.min(PAUSE_FRAMES).saturating_mul(followers));
    let pause = PAUSE_EACH * each.unwrap_or(u32::MAX);
    if pause < PAUSE_MIN {
        Duration::ZERO
    } else {
        pause.min(PAUSE_MAX)
    }
}

/// Frames of one stream that are being encoded.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    bytes: Vec<u8>,
    /// Position and end of each frame.
    ends: Vec<(Position, usize)>,
}

impl Fresh {
    /// Adds a frame.
    pub(super) fn push(&mut self, position: Position, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.ends.push((position, self.bytes.len()));
    }

    fn shown(self) -> Shown {
        Shown {
            bytes: self.bytes.into(),
            ends: self.ends,
        }
    }

    fn append(&mut self, more: Self) {
        if self.ends.is_empty() {
            *self = more;
            return;
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&more.bytes);
        let moved = |(position, end)| (position, before + end);
        self.ends.extend(more.ends.into_iter().map(moved));
    }
}

/// Frames that are shown at once.
#[derive(Debug)]
struct Chunk {
    frames: Shown,
    /// The same rewritten, once somebody wants it; for who comes next it is there. Not counted as bytes that the ring keeps: it is as much again.
    rewritten: OnceLock<Shown>,
}

#[derive(Debug)]
struct Shown {
    bytes: Bytes,
    /// Position and end of each frame.
    ends: Vec<(Position, usize)>,
}

impl Chunk {
    fn new(fresh: Fresh) -> Self {
        Self {
            frames: fresh.shown(),
            rewritten: OnceLock::new(),
        }
    }

    fn last(&self) -> Position {
        let last = self.frames.ends.last();
        last.map_or(Position::ZERO, |(position, _)| *position)
    }

    /// The frames after a position.
    fn after(&self, after: Position, rewrite: Option<Rewrite>) -> Bytes {
        match rewrite {
            Some(rewrite) => {
                let rewritten = self.rewritten.get_or_init(|| self.frames.each(rewrite));
                rewritten.after(after)
            }
            None => self.frames.after(after),
        }
    }
}

impl Shown {
    fn after(&self, after: Position) -> Bytes {
        let seen = self
            .ends
            .partition_point(|(position, _)| *position <= after);
        let start = seen
            .checked_sub(1)
            .and_then(|seen| self.ends.get(seen))
            .map_or(0, |(_, end)| *end);
        self.bytes.slice(start..)
    }

    fn each(&self, rewrite: Rewrite) -> Self {
        let (mut fresh, mut start) = (Fresh::default(), 0);
        for (position, end) in &self.ends {
            let frame = self.bytes.slice(start..*end);
            fresh.push(*position, |into| rewrite(into, &frame));
            start = *end;
        }
        fresh.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring, and as many who wait.
    fn followed_by(count: usize) -> (Arc<Ring>, Vec<watch::Receiver<bool>>) {
        let ring = Arc::new(Ring::new(Position::ZERO, false));
        let followers = (0..count).map(|_| ring.subscribe()).collect();
        (ring, followers)
    }

    /// One frame for each position, its number and a space.
    fn frames(positions: impl IntoIterator<Item = u64>) -> Fresh {
        let mut fresh = Fresh::default();
        for position in positions {
            fresh.push(Position(position), |into| {
                into.extend_from_slice(format!("{position} ").as_bytes());
            });
        }
        fresh
    }

    fn next(ring: &Ring, after: u64) -> Option<String> {
        let (bytes, _) = ring.next(Position(after), None).ok().flatten()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn few_followers_have_every_page_at_once() {
        let (ring, _followers) = followed_by(100);
        ring.push(frames(1..=20));
        ring.push(frames(21..=21));
        assert_eq!(next(&ring, 20).as_deref(), Some("21 "));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_quickly_for_many_is_one_piece_after_a_pause() {
        let (ring, mut followers) = followed_by(1_000);
        ring.push(frames(1..=10));
        assert_eq!(next(&ring, 8).as_deref(), Some("9 10 "));
        let follower = followers.first_mut().unwrap();
        follower.mark_unchanged();
        let begun = Instant::now();
        ring.push(frames(11..=11));
        ring.push(frames(13..=14));
        assert_eq!(next(&ring, 10), None);
        follower.changed().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(20));
        assert_eq!(next(&ring, 10).as_deref(), Some("11 13 14 "));
        assert_eq!(next(&ring, 12).as_deref(), Some("13 14 "));
        assert_eq!(next(&ring, 14), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_frames_in_another_form_shares_them_with_who_does_too() {
        let (ring, _followers) = followed_by(2);
        ring.push(frames(1..=3));
        let doubled: Rewrite = |into, frame| into.extend_from_slice(&frame.repeat(2));
        let next = |after| ring.next(Position(after), Some(doubled)).ok().flatten();
        let (all, through) = next(0).unwrap();
        assert_eq!((&*all, through), (&b"1 1 2 2 3 3 "[..], Position(3)));
        let (again, _) = next(1).unwrap();
        assert_eq!(again, "2 2 3 3 ");
        assert_eq!(again.as_ptr(), all.slice(4..).as_ptr());
        assert!(next(3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn single_frames_wait_for_nothing() {
        let (ring, _followers) = followed_by(1_000);
        for position in 1..=3 {
            ring.push(frames([position]));
            assert!(next(&ring, position - 1).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn much_does_not_wait_and_the_last_frames_come_before_the_end() {
        let (ring, _followers) = followed_by(1_000);
        ring.push(frames(1..=10));
        let mut much = frames(11..=14);
        much.push(Position(15), |into| into.resize(WAITING_BYTES, b'x'));
        ring.push(much);
        assert!(next(&ring, 10).is_some());
        ring.push(frames([16]));
        assert_eq!(next(&ring, 15), None);
        ring.retire();
        assert_eq!(next(&ring, 15).as_deref(), Some("16 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_keeps_more_where_more_share_it() {
        for (followers, kept) in [(1, BYTES_MIN), (1_000, 1_000 * BYTES_EACH)] {
            let (ring, _followers) = followed_by(followers);
            for position in 1..=100 {
                let mut frame = Fresh::default();
                frame.push(Position(position), |into| into.resize(256 << 10, b'x'));
                ring.push(frame);
            }
            let frames = kept as u64 / (256 << 10);
            assert!(ring.next(Position(100 - frames), None).is_ok());
            assert!(ring.next(Position(99 - frames), None).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_is_read_elsewhere() {
        let (ring, _followers) = followed_by(1_000);
        ring.push(frames(1..=10));
        ring.push(frames([11]));
        ring.skip(Position(12));
        assert!(ring.next(Position(11), None).is_err());
        assert_eq!(next(&ring, 12), None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(next(&ring, 12), None);
    }
}
