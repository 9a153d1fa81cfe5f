//! The latest lines, in memory: what is asked for by number.

use std::collections::VecDeque;
use std::sync::Arc;

/// Lines from somewhere in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Lines in their order, each one JSON object without a line end.
    pub lines: Vec<Arc<str>>,
    /// Number of the first of them; 0 when there is none. A number that is not the next after the
    /// one asked for says that those between are no longer in memory.
    pub first: u64,
    /// Number of the newest line of the log; 0 when there is none.
    pub newest: u64,
}

/// Bytes of a line for which there is room, taken over all lines. Most are a third of it; peers
/// with long names shorten what is remembered and do not make it larger.
const LINE_BYTES: usize = 1024;

/// The latest lines. Their numbers have no gaps.
#[derive(Debug)]
pub(super) struct Recent {
    lines: VecDeque<Arc<str>>,
    lines_max: usize,
    bytes: usize,
    /// Number of the newest line.
    newest: u64,
}

impl Recent {
    /// None yet; the chain stands at `newest`.
    pub(super) fn new(lines_max: usize, newest: u64) -> Self {
        Self { lines: VecDeque::new(), lines_max, bytes: 0, newest }
    }

    /// Adds the next line.
    pub(super) fn push(&mut self, line: Arc<str>) {
        self.newest += 1;
        self.bytes += line.len();
        self.lines.push_back(line);
        let bytes_max = self.lines_max.saturating_mul(LINE_BYTES);
        while self.lines.len() > self.lines_max || self.bytes > bytes_max {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }

    /// Lines with numbers above `seq`, oldest first.
    pub(super) fn since(&self, seq: u64, limit: usize) -> Page {
        let oldest = self.newest + 1 - self.lines.len() as u64;
        let skipped = usize::try_from(seq.saturating_add(1).saturating_sub(oldest));
        let skipped = skipped.unwrap_or(usize::MAX);
        let lines: Vec<_> = self.lines.iter().skip(skipped).take(limit).cloned().collect();
        let first = if lines.is_empty() { 0 } else { oldest + skipped as u64 };
        Page { lines, first, newest: self.newest }
    }

    /// The newest lines, oldest first.
    pub(super) fn latest(&self, limit: usize) -> Page {
        self.since(self.newest.saturating_sub(limit as u64), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(recent: &Recent, seq: u64, limit: usize) -> (Vec<String>, u64, u64) {
        let Page { lines, first, newest } = recent.since(seq, limit);
        (lines.iter().map(ToString::to_string).collect(), first, newest)
    }

    #[test]
    fn lines_are_found_by_number_and_the_oldest_go() {
        let mut recent = Recent::new(3, 10);
        assert_eq!(since(&recent, 0, 9), (vec![], 0, 10));
        for line in ["11", "12", "13", "14"] {
            recent.push(line.into());
        }
        let all = vec!["12".to_owned(), "13".to_owned(), "14".to_owned()];
        assert_eq!(since(&recent, 0, 9), (all.clone(), 12, 14), "11 is gone, and one sees that");
        assert_eq!(since(&recent, 11, 9), (all.clone(), 12, 14));
        assert_eq!(since(&recent, 12, 1), (all[1..2].to_vec(), 13, 14));
        for beyond in [14, 15, u64::MAX] {
            assert_eq!(since(&recent, beyond, 9), (vec![], 0, 14));
        }
        assert_eq!(since(&recent, 0, 0), (vec![], 0, 14));
    }

    #[test]
    fn the_newest_lines_are_given_in_their_order() {
        let mut recent = Recent::new(3, 10);
        assert_eq!(recent.latest(2), recent.since(0, 2), "none yet");
        for line in ["11", "12", "13", "14"] {
            recent.push(line.into());
        }
        assert_eq!(recent.latest(0).lines, []);
        assert_eq!(recent.latest(2), recent.since(12, 2));
        for all in [3, 4, 99, usize::MAX] {
            assert_eq!(recent.latest(all), recent.since(0, 3), "{all}");
        }
    }

    #[test]
    fn long_lines_leave_room_for_fewer() {
        let mut recent = Recent::new(10, 0);
        let long: Arc<str> = "x".repeat(4 * LINE_BYTES).into();
        (0..20).for_each(|_| recent.push(Arc::clone(&long)));
        assert_eq!((recent.since(0, 99).first, recent.lines.len()), (19, 2));
        recent.push("x".repeat(11 * LINE_BYTES).into());
        assert_eq!((recent.since(0, 99).first, recent.bytes), (0, 0), "no room at all");
        recent.push("22".into());
        assert_eq!((recent.since(0, 99).first, recent.bytes), (22, 2));
    }
}
