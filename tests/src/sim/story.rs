//! What happened in a run, as numbered lines that a person can follow.

use alloy_primitives::{B256, Keccak256};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// The events of one run. Clones write to the same story.
#[derive(Clone, Debug, Default)]
pub struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    /// Adds an event.
    pub fn tell(&self, event: impl Into<String>) {
        self.0.lock().push(event.into());
    }

    /// Hash of all events: equal for two runs of which nobody could tell one from the other.
    pub fn hash(&self) -> B256 {
        let mut hasher = Keccak256::new();
        for line in &*self.0.lock() {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize()
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in (1..).zip(&*self.0.lock()) {
            writeln!(f, "{number:>5}  {line}")?;
        }
        Ok(())
    }
}
