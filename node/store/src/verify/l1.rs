//! Bitcoin's blocks and what was derived from them.

use super::{Verifier, VerifyStep};
use crate::codec::decode;
use crate::error::Result;
use crate::l1::{L1Row, L1Rows};
use crate::l2::L2Rows;
use crate::read::Rows;
use crate::table::Table;
use alloy_primitives::B256;
use bitcoin::hashes::Hash;
use kedge_genesis::{L1Height, L1Ref, L2Number};

impl Verifier<'_, '_> {
    /// Every Bitcoin block up to the processed tip.
    pub(super) fn bitcoin(&mut self) -> Result<()> {
        let Some(tip) = self.row(self.reader.l1_tip(), Table::L1Meta, b"tip")? else {
            return Ok(());
        };
        let rows = self.reader.all(Table::L1Rows).collect::<Result<Vec<_>>>()?;
        let mut before: Option<(L1Ref, L2Number)> = None;
        let mut count = 0_u64;
        for (key, value) in rows {
            let row = decode::<L1Row>(Table::L1Rows, &key, &value);
            let Some(row) = self.readable(row, Table::L1Rows, &key)? else { continue };
            let Some(height) = key.first_chunk::<4>().map(|it| L1Height(u32::from_be_bytes(*it)))
            else {
                self.fault(Table::L1Rows, &key, "is not a height");
                continue;
            };
            let at = L1Ref { height, hash: row.hash };
            self.l1_block(at, &row, &key, before)?;
            before = Some((at, row.safe));
            count = count.saturating_add(1);
            self.found.l1_blocks = count;
            (self.progress)(VerifyStep::Bitcoin, count);
        }
        let last = before.map(|(at, _)| at);
        self.check(last == Some(tip), Table::L1Meta, b"tip", "is not the last block");
        self.check_rows(Table::L1Heights, count)?;
        self.check_rows(Table::DeriveStates, count)?;
        if count > 1 {
            let key = u64::from(tip.height.0).to_be_bytes();
            self.row(self.reader.get(Table::UndoL1, &key), Table::UndoL1, &key)?;
        }
        Ok(())
    }

    fn l1_block(
        &mut self,
        at: L1Ref,
        row: &L1Row,
        key: &[u8],
        before: Option<(L1Ref, L2Number)>,
    ) -> Result<()> {
        let height = self.reader.l1_height(at.hash);
        let height = self.row(height, Table::L1Heights, at.hash.as_slice())?;
        let leads = height == Some(at.height);
        self.check(leads, Table::L1Heights, at.hash.as_slice(), "leads to another block");
        let state = self.reader.derive_state(at.height);
        let state = self.row(state, Table::DeriveStates, key)?;
        if let Some(state) = &state {
            self.check(state.l1 == at, Table::DeriveStates, key, "is of another block");
            let same = state.cursor.number == row.safe;
            self.check(same, Table::DeriveStates, key, "has another safe head than the block");
        }
        let notes = self.reader.notes(at.height);
        if let Some(notes) = self.readable(notes, Table::Notes, key)? {
            let same = notes.len() == row.notes as usize;
            self.check(same, Table::L1Rows, key, "has another number of notes than are stored");
        }
        let mut deposits = 0_usize;
        for deposit in self.reader.prefixed(Table::Deposits, key) {
            deposit?;
            deposits = deposits.saturating_add(1);
        }
        let same = deposits == row.deposits as usize;
        self.check(same, Table::L1Rows, key, "has another number of deposits than are stored");
        let known = self.reader.latest()?.is_some_and(|latest| row.safe <= latest);
        self.check(known, Table::L1Rows, key, "its safe head is not there");
        // The network's start, whose body nothing reads.
        let Some((parent, safe)) = before else { return Ok(()) };
        let follows = at.height == parent.height.next();
        self.check(follows, Table::L1Rows, key, "does not follow the block before it");
        self.check(safe <= row.safe, Table::L1Rows, key, "its safe head goes back");
        let block = self.reader.l1_block_at(at.height);
        if let Some(block) = self.row(block, Table::L1Blocks, key)? {
            let hash = B256::from(block.block_hash().to_byte_array());
            self.check(hash == at.hash, Table::L1Blocks, key, "has another hash");
            self.check(block.header.time == row.time, Table::L1Rows, key, "has another time");
            let previous = B256::from(block.header.prev_blockhash.to_byte_array());
            self.check(previous == parent.hash, Table::L1Blocks, key, "has another parent");
            let whole = block.check_merkle_root() && block.check_witness_commitment();
            self.check(whole, Table::L1Blocks, key, "has another body than its header");
        }
        let claims = self.reader.claims(at.height);
        for claim in self.row(claims, Table::Claims, key)?.unwrap_or_default() {
            let info = self.reader.block_info(claim.number);
            let info = self.readable(info, Table::Claims, key)?.flatten();
            let same = info.is_some_and(|info| info.output_root == claim.output_root);
            self.check(same, Table::Claims, key, "has another output root than the L2 block");
            if claim.l1_height == at.height && claim.offset == 0 {
                let same = state.as_ref().is_some_and(|state| state.hash() == claim.derive_state);
                self.check(same, Table::Claims, key, "has another derive state");
            }
        }
        Ok(())
    }
}
