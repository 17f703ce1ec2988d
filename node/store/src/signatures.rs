//! The sequencer's signatures of blocks that are not final, to show to other nodes.

use crate::change::Change;
use crate::codec::rows;
use crate::error::Result;
use crate::read::{Rows, row};
use crate::table::Table;
use kedge_genesis::L2Number;

rows! {
    /// What the sequencer signed of a block, beyond what other tables have.
    pub struct SignatureRow {
        /// How many transactions at the payload's end the sequencer listed; the rules put those before.
        pub listed: u32,
        /// BIP-340 signature.
        pub signature: [u8; 64],
    }
}

/// Reading signatures.
pub trait SignatureRows: Rows {
    /// The signature of a block; none when the block was derived, or is final.
    ///
    /// # Errors
    /// When the database fails.
    fn signature(&self, number: L2Number) -> Result<Option<SignatureRow>> {
        row(self, Table::Signatures, &number.0.to_be_bytes())
    }
}

impl<R: Rows + ?Sized> SignatureRows for R {}

impl Change<'_> {
    /// Writes the signature of a block, which goes when the block is unwound.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_signature(&mut self, number: L2Number, signature: &SignatureRow) -> Result<()> {
        self.put_row(Table::Signatures, &number.0.to_be_bytes(), signature)
    }

    /// Deletes the signature of a block, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget_signature(&mut self, number: L2Number) -> Result<()> {
        self.delete(Table::Signatures, &number.0.to_be_bytes())
    }
}
