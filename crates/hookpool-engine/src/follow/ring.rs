//! Recent frames of one stream, and when those who wait for them are woken.
//!
//! To wake a follower costs a write of its own, however little there is to write. So where there are many of them and frames come quickly,
//! there is a pause between two wake-ups, and what comes meanwhile is one piece. Knows nothing of logs and pools.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{name::ItemId, position::Position};
use tokio::{sync::watch, time::Instant};

use super::{Rewrite, locked};

/// Bytes that a ring keeps, of encoded frames and of what says what they are of, for each who follows: whoever falls behind it reads the log
/// alone, and if many do at once there is no time left to write.
pub(super) const BYTES_EACH: usize = 8 << 10;
/// Of a whole stream a ring keeps as much at least.
pub(super) const BYTES_MIN: usize = 1 << 20;
const BYTES_MAX: usize = 64 << 20;
/// What a chunk and a frame count for beside their text: without it, chunks without a frame would cost nothing and pile up.
const CHUNK_BYTES: usize = 256;
const MARK_BYTES: usize = size_of::<Mark>() + size_of::<usize>();
/// Bytes of frames that are shown although the pause has not ended.
const WAITING_BYTES: usize = 256 << 10;
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
    /// Bytes that it keeps at least.
    bytes_min: usize,
    /// Whether another generation is served by now; touched whenever there is something new.
    retired: watch::Sender<bool>,
}

impl Ring {
    /// A ring of what comes after a position, which keeps so many bytes at least.
    pub(super) fn new(from: Position, bytes_min: usize) -> Self {
        Self {
            recent: Mutex::new(Recent::new(from)),
            bytes_min,
            retired: watch::Sender::new(false),
        }
    }

    /// How many wait for what is new.
    pub(super) fn followers(&self) -> usize {
        self.retired.receiver_count()
    }

    /// Waits until nobody does.
    pub(super) async fn unfollowed(&self) {
        self.retired.closed().await;
    }

    /// Touched when there is something new; whether another generation is served by now.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.retired.subscribe()
    }

    /// Takes frames, and shows them unless there was something only just now: then when the pause has ended.
    pub(super) fn push(self: &Arc<Self>, fresh: Fresh) {
        if fresh.marks.is_empty() {
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
        let followers = self.followers();
        let bytes_max = followers.saturating_mul(BYTES_EACH);
        let bytes_max = bytes_max.clamp(self.bytes_min, BYTES_MAX);
        locked(&self.recent).show(followers, bytes_max);
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

    /// The frames that come next after a position: `None` if none do, or an error if the ring does not go back that far.
    pub(super) fn next(&self, after: Position) -> Result<Option<Arc<Chunk>>, Behind> {
        locked(&self.recent).next(after)
    }
}

/// The ring does not go back that far.
pub(super) struct Behind;

/// All frames after `from`, in chunks.
#[derive(Debug)]
struct Recent {
    from: Position,
    chunks: VecDeque<Arc<Chunk>>,
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

    fn show(&mut self, followers: usize, bytes_max: usize) {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.marks.is_empty() {
            return;
        }
        self.pause_ends = Instant::now() + pause(waiting.marks.len(), followers);
        self.push(Chunk::new(waiting), bytes_max);
    }

    fn push(&mut self, chunk: Chunk, bytes_max: usize) {
        // One that says of nothing up to where it ends says so from the one before on: two of them are as good as the second.
        let is_blank = |old: &mut Arc<Chunk>| chunk.is_blank() && old.is_blank();
        if let Some(old) = self.chunks.pop_back_if(is_blank) {
            self.bytes -= old.bytes();
        }
        self.bytes += chunk.bytes();
        self.chunks.push_back(Arc::new(chunk));
        while self.bytes > bytes_max && self.chunks.len() > 1 {
            if let Some(old) = self.chunks.pop_front() {
                self.bytes -= old.bytes();
                self.from = old.last();
            }
        }
    }

    fn next(&self, after: Position) -> Result<Option<Arc<Chunk>>, Behind> {
        if after < self.from {
            return Err(Behind);
        }
        let next = self.chunks.partition_point(|chunk| chunk.last() <= after);
        Ok(self.chunks.get(next).map(Arc::clone))
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
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
    ids: String,
    marks: Vec<Mark>,
}

/// What a frame is of.
#[derive(Debug, Clone)]
struct Mark {
    position: Position,
    /// Where the id of its item is among the ids of all.
    id: Range<usize>,
}

impl Fresh {
    /// Gives back room that was made for frames that did not come.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Adds the frame of what an event did to an item.
    pub(super) fn push(
        &mut self,
        position: Position,
        item: &str,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        encode(&mut self.bytes);
        self.ends.push(self.bytes.len());
        let start = self.ids.len();
        self.ids.push_str(item);
        self.marks.push(Mark {
            position,
            id: start..self.ids.len(),
        });
    }

    /// Says that up to a position there is no other frame.
    pub(super) fn pass(&mut self, position: Position) {
        self.push(position, "", |_| {});
    }

    fn append(&mut self, more: Self) {
        if self.marks.is_empty() {
            *self = more;
            return;
        }
        let (bytes, ids) = (self.bytes.len(), self.ids.len());
        self.bytes.extend_from_slice(&more.bytes);
        self.ends.extend(more.ends.iter().map(|end| bytes + end));
        self.ids.push_str(&more.ids);
        let moved = |Mark { position, id }| Mark {
            position,
            id: ids + id.start..ids + id.end,
        };
        self.marks.extend(more.marks.into_iter().map(moved));
    }
}

/// Frames that are shown at once, and what they are of.
#[derive(Debug)]
pub(super) struct Chunk {
    marks: Vec<Mark>,
    ids: String,
    frames: Shown,
    /// The same rewritten, once somebody wants it; for who comes next it is there. Not counted as bytes that the ring keeps: it is as much again.
    rewritten: OnceLock<Shown>,
}

/// The bytes of frames, and where each ends.
#[derive(Debug)]
struct Shown {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Chunk {
    fn new(fresh: Fresh) -> Self {
        Self {
            marks: fresh.marks,
            ids: fresh.ids,
            frames: Shown {
                bytes: fresh.bytes.into(),
                ends: fresh.ends,
            },
            rewritten: OnceLock::new(),
        }
    }

    /// What it counts for.
    fn bytes(&self) -> usize {
        let text = self.frames.bytes.len() + self.ids.len();
        CHUNK_BYTES + self.marks.len() * MARK_BYTES + text
    }

    /// Whether it tells of no item, and has no frame.
    fn is_blank(&self) -> bool {
        self.frames.bytes.is_empty() && self.ids.is_empty()
    }

    /// Up to where it says all.
    pub(super) fn last(&self) -> Position {
        let last = self.marks.last();
        last.map_or(Position::ZERO, |mark| mark.position)
    }

    /// Whether a frame after a position is of an item.
    pub(super) fn tells_of(&self, item: &ItemId, after: Position) -> bool {
        self.of(item, after).next().is_some()
    }

    /// The frames after a position, all or those of an item, as they are or rewritten; and the position of the last of them. `None` if
    /// there are none.
    pub(super) fn after(
        &self,
        after: Position,
        item: Option<&ItemId>,
        rewrite: Option<Rewrite>,
    ) -> Option<(Bytes, Position)> {
        let shown = match rewrite {
            Some(rewrite) => self.rewritten.get_or_init(|| self.frames.each(rewrite)),
            None => &self.frames,
        };
        let (bytes, last) = match item {
            None => {
                let all = self.first_after(after)..self.marks.len();
                let last = all.clone().rev().find(|frame| !shown.is_empty(*frame))?;
                (shown.slice(all), last)
            }
            Some(item) => shown.picked(self.of(item, after))?,
        };
        Some((bytes, self.marks.get(last)?.position))
    }

    fn first_after(&self, after: Position) -> usize {
        self.marks.partition_point(|mark| mark.position <= after)
    }

    /// Which frames after a position are of an item.
    fn of(&self, item: &ItemId, after: Position) -> impl Iterator<Item = usize> {
        let marks = self.marks.iter().enumerate().skip(self.first_after(after));
        let is_of = |mark: &Mark| self.ids.get(mark.id.clone()) == Some(item.as_str());
        marks.filter_map(move |(frame, mark)| is_of(mark).then_some(frame))
    }
}

impl Shown {
    fn slice(&self, frames: Range<usize>) -> Bytes {
        let end_of = |frame: Option<usize>| frame.and_then(|frame| self.ends.get(frame)).copied();
        let start = end_of(frames.start.checked_sub(1)).unwrap_or(0);
        let end = end_of(frames.end.checked_sub(1)).unwrap_or(start);
        self.bytes.slice(start..end)
    }

    fn is_empty(&self, frame: usize) -> bool {
        self.slice(frame..frame + 1).is_empty()
    }

    /// Some frames, and which is the last of them; one, as it usually is, is shared.
    fn picked(&self, mut frames: impl Iterator<Item = usize>) -> Option<(Bytes, usize)> {
        let first = frames.next()?;
        let one = self.slice(first..first + 1);
        let Some(mut last) = frames.next() else {
            return Some((one, first));
        };
        let mut several = [one, self.slice(last..last + 1)].concat();
        for frame in frames {
            several.extend_from_slice(&self.slice(frame..frame + 1));
            last = frame;
        }
        Some((several.into(), last))
    }

    fn each(&self, rewrite: Rewrite) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for frame in 0..self.ends.len() {
            rewrite(&mut bytes, &self.slice(frame..frame + 1));
            ends.push(bytes.len());
        }
        Self {
            bytes: bytes.into(),
            ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring, and as many who wait.
    fn followed_by(count: usize) -> (Arc<Ring>, Vec<watch::Receiver<bool>>) {
        let ring = Arc::new(Ring::new(Position::ZERO, BYTES_MIN));
        let followers = (0..count).map(|_| ring.subscribe()).collect();
        (ring, followers)
    }

    /// One frame for each position, its number and a space.
    fn frames(positions: impl IntoIterator<Item = u64>) -> Fresh {
        let mut fresh = Fresh::default();
        for position in positions {
            let item = if position % 2 == 0 { "even" } else { "odd" };
            fresh.push(Position(position), item, |into| {
                into.extend_from_slice(format!("{position} ").as_bytes());
            });
        }
        fresh
    }

    fn next(ring: &Ring, after: u64) -> Option<String> {
        let chunk = ring.next(Position(after)).ok().flatten()?;
        let (bytes, _) = chunk.after(Position(after), None, None)?;
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
        let chunk = ring.next(Position(0)).ok().flatten().unwrap();
        let next = |after| chunk.after(Position(after), None, Some(doubled));
        let (all, through) = next(0).unwrap();
        assert_eq!((&*all, through), (&b"1 1 2 2 3 3 "[..], Position(3)));
        let (again, _) = next(1).unwrap();
        assert_eq!(again, "2 2 3 3 ");
        assert_eq!(again.as_ptr(), all.slice(4..).as_ptr());
        assert!(next(3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_one_item_gets_its_frames_and_no_others() {
        let (ring, _followers) = followed_by(1);
        let mut more = frames(1..=3);
        more.append(frames(4..=5));
        ring.push(more);
        let chunk = ring.next(Position(0)).ok().flatten().unwrap();
        let [even, odd, other] = ["even", "odd", "od"].map(|id| ItemId::new(id).unwrap());
        let of = |item, after| {
            let (bytes, last) = chunk.after(Position(after), Some(item), None)?;
            Some((String::from_utf8(bytes.to_vec()).unwrap(), last.0))
        };
        assert_eq!(of(&even, 0), Some(("2 4 ".into(), 4)));
        assert_eq!(of(&odd, 0), Some(("1 3 5 ".into(), 5)));
        assert_eq!(of(&odd, 3), Some(("5 ".into(), 5)));
        assert_eq!(of(&even, 4), None);
        assert_eq!(of(&other, 0), None);
        assert!(chunk.tells_of(&even, Position(3)));
        assert!(!chunk.tells_of(&even, Position(4)));
        let doubled: Rewrite = |into, frame| into.extend_from_slice(&frame.repeat(2));
        let (bytes, _) = chunk.after(Position(1), Some(&odd), Some(doubled)).unwrap();
        assert_eq!(bytes, "3 3 5 5 ");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_passed_over_is_told_of_without_a_frame() {
        let (ring, _followers) = followed_by(1);
        let mut some = frames(1..=2);
        some.pass(Position(5));
        ring.push(some);
        let chunk = ring.next(Position(0)).ok().flatten().unwrap();
        let (bytes, last) = chunk.after(Position(0), None, None).unwrap();
        assert_eq!((&*bytes, last), (&b"1 2 "[..], Position(2)));
        assert_eq!(chunk.last(), Position(5));
        assert!(chunk.after(Position(2), None, None).is_none());
        assert!(ring.next(Position(5)).ok().flatten().is_none());
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
        much.push(Position(15), "odd", |into| into.resize(WAITING_BYTES, b'x'));
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
                frame.push(Position(position), "even", |into| {
                    into.resize((256 << 10) - (1 << 10), b'x')
                });
                ring.push(frame);
            }
            let frames = kept as u64 / (256 << 10);
            assert!(ring.next(Position(100 - frames)).is_ok());
            assert!(ring.next(Position(99 - frames)).is_err());
        }
    }

    fn passed(position: u64) -> Fresh {
        let mut fresh = Fresh::default();
        fresh.pass(Position(position));
        fresh
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_nothing_is_to_be_shown_it_is_said_once() {
        let (ring, _followers) = followed_by(1);
        ring.push(frames(1..=2));
        for position in 3..=100_000 {
            ring.push(passed(position));
        }
        {
            let recent = locked(&ring.recent);
            assert_eq!(recent.chunks.len(), 2);
            let counted: usize = recent.chunks.iter().map(|chunk| chunk.bytes()).sum();
            assert_eq!(recent.bytes, counted);
        }
        assert_eq!(next(&ring, 0).as_deref(), Some("1 2 "));
        for inside in [2, 3, 50_000, 99_999] {
            let chunk = ring.next(Position(inside)).ok().flatten().unwrap();
            assert!(chunk.after(Position(inside), None, None).is_none());
            assert_eq!(chunk.last(), Position(100_000));
        }
        assert!(matches!(ring.next(Position(100_000)), Ok(None)));
        ring.push(frames([100_001]));
        assert_eq!(next(&ring, 100_000).as_deref(), Some("100001 "));
        // One that says of an item is no blank, however short its frame is.
        let mut of_item = Fresh::default();
        of_item.push(Position(100_002), "even", |_| {});
        ring.push(of_item);
        ring.push(passed(100_003));
        let chunk = ring.next(Position(100_001)).ok().flatten().unwrap();
        assert_eq!(chunk.last(), Position(100_002));
    }

    #[tokio::test(start_paused = true)]
    async fn short_frames_with_nothing_between_them_are_evicted_too() {
        let (ring, _followers) = followed_by(1);
        for position in 1..=20_000 {
            ring.push(if position % 2 == 0 {
                passed(position)
            } else {
                frames([position])
            });
        }
        {
            let recent = locked(&ring.recent);
            assert!(recent.bytes <= BYTES_MIN);
            assert!(recent.chunks.len() <= BYTES_MIN / CHUNK_BYTES);
        }
        assert!(ring.next(Position(0)).is_err());
        assert_eq!(next(&ring, 19_998).as_deref(), Some("19999 "));
        let chunk = ring.next(Position(19_999)).ok().flatten().unwrap();
        assert_eq!(chunk.last(), Position(20_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_is_read_elsewhere() {
        let (ring, _followers) = followed_by(1_000);
        ring.push(frames(1..=10));
        ring.push(frames([11]));
        ring.skip(Position(12));
        assert!(ring.next(Position(11)).is_err());
        assert_eq!(next(&ring, 12), None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(next(&ring, 12), None);
    }
}
