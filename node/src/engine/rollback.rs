//! Taking blocks back because an operator says so.

use super::{Engine, EngineError, Heads};
use kedge_genesis::L2Number;

impl Engine {
    /// Makes `number` the latest block. Unsafe blocks above it are unwound; where it is below the safe head,
    /// Bitcoin blocks are taken back until no block above it is derived from them, and the node processes
    /// them again when it follows Bitcoin next. One atomic write for each Bitcoin block and one for the rest,
    /// so that what is interrupted can be repeated.
    ///
    /// # Errors
    /// [`EngineError::NoBlock`] above the latest block, [`EngineError::BelowFinal`] below the last final one,
    /// and when this machine failed.
    pub fn roll_back_to(&self, number: L2Number) -> Result<Heads, EngineError> {
        let Heads { latest, finalized, .. } = self.heads();
        if number > latest.number {
            return Err(EngineError::NoBlock { number, latest: latest.number });
        }
        if number < finalized.number {
            return Err(EngineError::BelowFinal { finalized: finalized.number });
        }
        while self.heads().safe.number > number {
            self.disconnect_l1()?;
        }
        self.unwind_unsafe_to(number)?;
        Ok(self.heads())
    }
}
