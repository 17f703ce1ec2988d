//! How long a source is left alone after its connection ended.

use super::Verdict;
use std::time::Duration;

/// The first pause; it doubles.
const FIRST: Duration = Duration::from_millis(250);
/// The longest after what may happen to an honest source.
const LONGEST_ACCIDENT: Duration = Duration::from_secs(5);
/// The longest after what no honest source does.
const LONGEST_FAULT: Duration = Duration::from_secs(300);

/// The next pauses of one source. Those after faults grow on their own: neither good blocks between faults nor
/// accidents make them shorter, only a connection that lasts as long as the longest pause.
#[derive(Debug)]
pub(super) struct Pauses {
    accident: Duration,
    fault: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { accident: FIRST, fault: FIRST }
    }
}

impl Pauses {
    /// The pause after a connection that ended with this verdict, and whether blocks of it were added.
    pub(super) fn after(&mut self, verdict: Verdict, adopted: bool, lasted: Duration) -> Duration {
        if lasted >= LONGEST_FAULT {
            *self = Self::default();
        }
        let (next, longest) = if verdict.is_accident() {
            if adopted {
                self.accident = FIRST;
            }
            (&mut self.accident, LONGEST_ACCIDENT)
        } else {
            (&mut self.fault, LONGEST_FAULT)
        };
        let pause = *next;
        *next = pause.saturating_mul(2).min(longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn good_blocks_and_accidents_between_faults_do_not_shorten_the_pause() {
        let mut pauses = Pauses::default();
        let mut last = Duration::ZERO;
        for _ in 0..16 {
            let pause = pauses.after(Verdict::Signature, true, SHORT);
            assert!(pause > last || pause == LONGEST_FAULT, "{pause:?} after {last:?}");
            last = pause;
            assert_eq!(pauses.after(Verdict::Disconnected, true, SHORT), FIRST);
        }
        assert_eq!(last, LONGEST_FAULT);
        assert_eq!(pauses.after(Verdict::Invalid, true, LONGEST_FAULT), FIRST, "long enough");
    }

    #[test]
    fn accidents_are_tried_again_soon_and_at_once_where_blocks_came() {
        let mut pauses = Pauses::default();
        let last = (0..16).map(|_| pauses.after(Verdict::Unreachable, false, SHORT)).last();
        assert_eq!(last, Some(LONGEST_ACCIDENT));
        assert_eq!(pauses.after(Verdict::Disconnected, true, SHORT), FIRST);
    }
}
