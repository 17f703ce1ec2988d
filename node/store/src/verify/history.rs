//! Values from before changes.

use super::state::{holds, split_slot};
use super::{Verifier, VerifyStep};
use crate::codec::decode;
use crate::error::Result;
use crate::history::{HISTORY, oldest_state, split_at};
use crate::l1::finalized;
use crate::l2::{AccountRow, L2Rows, SlotRow};
use crate::read::{Row, Rows as _};
use crate::table::Table;
use crate::tries::{node_key, split_version, version_key};
use alloy_primitives::{Address, U256, keccak256};
use kedge_genesis::L2Number;
use kedge_vm::Nibbles;
use kedge_vm::trie::{AccountProof, EMPTY_ROOT_HASH, prove_account};

/// What a row is about, and the block that changed it.
fn split(table: Table, key: &[u8]) -> Option<(&[u8], L2Number)> {
    if table == Table::Tries { split_version(key) } else { split_at(key) }
}

impl Verifier<'_, '_> {
    /// Every row of the history of accounts and slots, on the nodes of that time; of the latter also every
    /// root.
    pub(super) fn history(&mut self) -> Result<()> {
        let (Some(latest), oldest) = (self.reader.latest()?, oldest_state(&self.reader)?) else {
            return Ok(());
        };
        let last_final = finalized(&self.reader)?;
        let mut changes = 0_u64;
        for table in HISTORY.into_iter().chain([Table::Tries]) {
            // Apart from the reader, which the checks use too.
            let mut next = Some(Vec::new());
            while let Some(from) = next.take() {
                let rows = self.reader.from(table, &from).take(4_096);
                for row in rows.collect::<Result<Vec<Row>>>()? {
                    self.history_row(table, &row, oldest, latest)?;
                    let open = split(table, &row.0).is_some_and(|(_, number)| number > last_final);
                    changes = changes.saturating_add(u64::from(open));
                    next = Some([&*row.0, &[0]].concat());
                }
            }
        }
        if changes != self.recorded {
            let what = format!("names {} changes of {changes} in the history", self.recorded);
            self.fault(Table::UndoL2, &[], what);
        }
        for number in (oldest.0..=latest.0).map(L2Number) {
            let key = number.0.to_be_bytes();
            let header = self.reader.header(number);
            let Some(header) = self.readable(header, Table::Headers, &key)?.flatten() else {
                continue;
            };
            let node = node_key(None, &Nibbles::new());
            let root = self.reader.node_rows().find(&node, number)?;
            let same = root.map_or(EMPTY_ROOT_HASH, keccak256) == header.state_root;
            self.check(same, Table::Tries, &version_key(&node, number), "is not the header's root");
        }
        Ok(())
    }

    fn history_row(
        &mut self,
        table: Table,
        (key, value): &Row,
        oldest: L2Number,
        latest: L2Number,
    ) -> Result<()> {
        let Some((prefix, number)) = split(table, key) else {
            self.fault(table, key, "is not the key of a change");
            return Ok(());
        };
        let changes = (L2Number(0) < number || table == Table::Tries) && number <= latest;
        self.check(changes, table, key, "is not of a block that changed something");
        self.found.history = self.found.history.saturating_add(1);
        (self.progress)(VerifyStep::History, self.found.history);
        // Nothing asks for what was before a pruned change.
        let before = number.prev().filter(|_| number > oldest && number <= latest);
        let Some(before) = before else { return Ok(()) };
        match table {
            Table::AccountHistory if prefix.len() == 20 => {
                let stored = if value.is_empty() {
                    Some(None)
                } else {
                    let row = decode::<AccountRow>(table, key, value);
                    self.readable(row, table, key)?.map(|row| Some(row.0))
                };
                let address = Address::from_slice(prefix);
                let proof = self.prove_before(before, address, &[], table, key)?;
                if let (Some(proof), Some(stored)) = (proof, stored) {
                    let same = holds(&proof.account, stored.as_ref());
                    self.check(same, table, key, "is not the account before that block");
                }
            }
            Table::StorageHistory => {
                let Some((address, slot)) = split_slot(prefix) else {
                    self.fault(table, key, "is not the key of a slot");
                    return Ok(());
                };
                let stored = self.readable(decode::<SlotRow>(table, key, value), table, key)?;
                let proof = self.prove_before(before, address, &[slot], table, key)?;
                if let (Some(proof), Some(stored)) = (proof, stored) {
                    let same = proof.slots.first().is_some_and(|(_, value, _)| *value == stored.0);
                    self.check(same, table, key, "is not the value before that block");
                }
            }
            // Proven as part of what is on its path.
            Table::Tries => {}
            _ => self.fault(table, key, "is not the key of an account"),
        }
        Ok(())
    }

    fn prove_before(
        &mut self,
        number: L2Number,
        address: Address,
        slots: &[U256],
        table: Table,
        key: &[u8],
    ) -> Result<Option<AccountProof>> {
        let header = self.reader.header(number);
        let Some(header) = self.readable(header, table, key)?.flatten() else { return Ok(None) };
        let proven = {
            let mut state = self.reader.state_at(number)?;
            prove_account(header.state_root, address, slots, &mut state)
        };
        match proven {
            Ok(proof) => Ok(Some(proof)),
            Err(error) => {
                self.fault(table, key, format!("cannot be proven: {error}"));
                Ok(None)
            }
        }
    }
}
