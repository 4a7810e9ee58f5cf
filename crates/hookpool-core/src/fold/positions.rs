//! Positions of one item, each as its distance from the one before: a rebuild holds some for every item that it has in hand, and eight bytes
//! for each were most of what an item took.

use crate::position::Position;

/// Positions, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    /// Seven bits a byte, low ones first; the last byte of a distance has its highest bit clear.
    bytes: Vec<u8>,
    length: u32,
    last: Position,
}

impl Positions {
    /// Adds one.
    ///
    /// # Panics
    /// If it is before the last one.
    pub fn push(&mut self, position: Position) {
        let step = position.0.checked_sub(self.last.0);
        let mut step = step.expect("positions are added in order");
        while step > 0x7f {
            self.bytes.push(low_bits(step) | 0x80);
            step >>= 7;
        }
        self.bytes.push(low_bits(step));
        self.length += 1;
        self.last = position;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        self.iter().any(|other| other == position)
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
        self.last = Position::ZERO;
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Position> {
        self.steps().scan(Position::ZERO, |at, step| {
            *at = at.plus(step);
            Some(*at)
        })
    }

    /// The distance of each from the one before, and of the first from zero.
    pub(crate) fn steps(&self) -> impl Iterator<Item = u64> {
        let ends = self.bytes.split_inclusive(|byte| byte & 0x80 == 0);
        ends.map(|step| {
            let bits = step.iter().rev();
            bits.fold(0, |step, byte| step << 7 | u64::from(byte & 0x7f))
        })
    }

    /// Of these distances; `None` if they lead too far.
    pub(crate) fn from_steps(steps: &[u64]) -> Option<Self> {
        let mut positions = Self::default();
        for step in steps {
            positions.push(Position(positions.last.0.checked_add(*step)?));
        }
        Some(positions)
    }

    /// Bytes that are set aside for them.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl FromIterator<Position> for Positions {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut all = Self::default();
        for position in positions {
            all.push(position);
        }
        all
    }
}

fn low_bits(step: u64) -> u8 {
    let [low, ..] = step.to_le_bytes();
    low & 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_what_was_pushed() {
        let pushed = [0, 1, 1, 128, 129, 16_511, 1 << 40, u64::MAX - 1, u64::MAX].map(Position);
        let mut positions: Positions = pushed.into_iter().collect();
        assert_eq!(positions.iter().collect::<Vec<_>>(), pushed);
        assert_eq!((positions.len(), positions.is_empty()), (9, false));
        assert!(positions.contains(Position(16_511)) && !positions.contains(Position(2)));
        let steps: Vec<_> = positions.steps().collect();
        assert_eq!(Positions::from_steps(&steps), Some(positions.clone()));
        positions.clear();
        assert_eq!(positions, Positions::default());
    }

    #[test]
    fn steps_that_lead_too_far_are_refused() {
        assert_eq!(Positions::from_steps(&[u64::MAX, 1]), None);
    }
}
