//! The bonds of assertions: which are unspent, and how the others were spent.

use crate::change::Change;
use crate::codec::{Codec, encode, rows};
use crate::error::Result;
use crate::l1::decode_all;
use crate::read::{Reader, Rows, row};
use crate::table::Table;
use alloy_primitives::B256;
use bitcoin::{OutPoint, Txid};
use kedge_genesis::{L1Height, L1Ref, Sats};

rows! {
    /// An unspent bond, large enough for an assertion, that is an output of an assertion's reveal. Whether the
    /// assertion counts does not matter: its proposer gets it back in any case.
    pub struct BondRow {
        /// Where it is.
        pub outpoint: OutPoint,
        /// What it holds.
        pub amount: Sats,
        /// To whom it returns, x-only key.
        pub proposer: B256,
        /// The L1 block's height.
        pub height: L1Height,
    }

    /// The spend of a bond.
    pub struct BondSpendRow {
        /// The Bitcoin transaction.
        pub txid: Txid,
        /// The L1 block.
        pub l1: L1Ref,
        /// Who has it now.
        pub end: BondEnd,
    }
}

/// What became of a bond that is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondEnd {
    /// Its proposer took it back.
    Returned,
    /// The signers gave it to the challenger who proved its assertion wrong.
    Slashed,
    /// The signers did anything else with it.
    Seized,
}

impl Codec for BondEnd {
    fn put(&self, out: &mut Vec<u8>) {
        let number: u8 = match self {
            Self::Returned => 0,
            Self::Slashed => 1,
            Self::Seized => 2,
        };
        number.put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        match u8::take(input)? {
            0 => Some(Self::Returned),
            1 => Some(Self::Slashed),
            2 => Some(Self::Seized),
            _ => None,
        }
    }
}

/// Reading bonds by their outpoint, as of the processed tip.
pub trait BondRows: Rows {
    /// A bond; none when there is none or it is spent.
    ///
    /// # Errors
    /// When the database fails.
    fn bond(&self, outpoint: &OutPoint) -> Result<Option<BondRow>> {
        row(self, Table::Bonds, &encode(outpoint))
    }

    /// How a bond was spent; none when there is none or it is unspent.
    ///
    /// # Errors
    /// When the database fails.
    fn bond_spend(&self, outpoint: &OutPoint) -> Result<Option<BondSpendRow>> {
        row(self, Table::BondSpends, &encode(outpoint))
    }
}

impl<R: Rows + ?Sized> BondRows for R {}

impl Reader<'_> {
    /// All unspent bonds.
    ///
    /// # Errors
    /// When the database fails.
    pub fn bonds(&self) -> Result<Vec<BondRow>> {
        decode_all(Table::Bonds, self.all(Table::Bonds))
    }
}

impl Change<'_> {
    /// Adds an unspent bond.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_bond(&mut self, row: &BondRow) -> Result<()> {
        self.put_row(Table::Bonds, &encode(&row.outpoint), row)
    }

    /// Marks a bond as spent.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_bond_spend(&mut self, outpoint: &OutPoint, row: &BondSpendRow) -> Result<()> {
        let key = encode(outpoint);
        self.delete(Table::Bonds, &key)?;
        self.put_row(Table::BondSpends, &key, row)
    }
}
