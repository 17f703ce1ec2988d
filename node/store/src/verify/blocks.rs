//! L2 blocks and their indexes.

use super::{Verifier, VerifyStep};
use crate::error::Result;
use crate::history::{at, change_key};
use crate::l1::finalized;
use crate::l2::L2Rows;
use crate::logs::keys_of;
use crate::read::Rows;
use crate::table::Table;
use crate::tries::split_version;
use crate::undo::{self, Before};
use alloy_eips::Encodable2718;
use alloy_primitives::{B256, Bloom};
use alloy_trie::root::ordered_trie_root_with_encoder;
use kedge_genesis::L2Number;
use kedge_vm::{OpReceiptEnvelope, output_root};

/// The root of a list of transactions or receipts.
fn list_root<T: Encodable2718>(items: &[T]) -> B256 {
    ordered_trie_root_with_encoder(items, |item, out| item.encode_2718(out))
}

impl Verifier<'_, '_> {
    /// Every block up to `latest`.
    pub(super) fn blocks(&mut self) -> Result<()> {
        let Some(latest) = self.row(self.reader.latest(), Table::L2Meta, b"latest")? else {
            return Ok(());
        };
        let last_final = finalized(&self.reader)?;
        let (mut parent, mut transactions, mut log_rows) = (None, 0_u64, 0_u64);
        for number in (0..=latest.0).map(L2Number) {
            let (hash, of_block, logs) = self.block(number, parent)?;
            transactions = transactions.saturating_add(of_block);
            log_rows = log_rows.saturating_add(logs);
            parent = hash;
            if number > last_final {
                let key = number.0.to_be_bytes();
                let record = self.reader.get(Table::UndoL2, &key);
                if let Some(record) = self.row(record, Table::UndoL2, &key)? {
                    self.undo_record(number, &record)?;
                }
            }
            self.found.blocks = self.found.blocks.saturating_add(1);
            (self.progress)(VerifyStep::Blocks, self.found.blocks);
        }
        self.found.log_rows = log_rows;
        let count = latest.0.saturating_add(1);
        for table in [
            Table::Headers,
            Table::Hashes,
            Table::Numbers,
            Table::Payloads,
            Table::Receipts,
            Table::Blocks,
        ] {
            self.check_rows(table, count)?;
        }
        self.check_rows(Table::Transactions, transactions)?;
        self.check_rows(Table::LogIndex, log_rows)
    }

    /// What an undo record finds in the history.
    fn undo_record(&mut self, number: L2Number, record: &[u8]) -> Result<()> {
        let Some(rows) = undo::decode(record) else {
            self.fault(Table::UndoL2, &number.0.to_be_bytes(), "is damaged");
            return Ok(());
        };
        for (table, key, before) in rows {
            if table == Table::Tries {
                self.row(self.reader.get(table, &key), table, &key)?;
                let same = split_version(&key).is_some_and(|(_, of)| of == number);
                self.check(same, table, &key, "is in the undo record of another block");
                self.recorded = self.recorded.saturating_add(1);
            }
            if before != Before::InHistory {
                continue;
            }
            match change_key(table, &key, number) {
                Some((history, change)) => {
                    self.row(self.reader.get(history, &change), history, &change)?;
                    self.recorded = self.recorded.saturating_add(1);
                }
                None => self.fault(table, &key, "is in an undo record and has no history"),
            }
        }
        Ok(())
    }

    /// One block. Gives its hash by its header, and how many transactions and rows of the log index it has.
    fn block(
        &mut self,
        number: L2Number,
        parent: Option<B256>,
    ) -> Result<(Option<B256>, u64, u64)> {
        let key = number.0.to_be_bytes();
        let header = self.row(self.reader.header(number), Table::Headers, &key)?;
        let payload = self.row(self.reader.payload(number), Table::Payloads, &key)?;
        let info = self.row(self.reader.block_info(number), Table::Blocks, &key)?;
        let receipts = self.row(self.reader.receipts(number), Table::Receipts, &key)?;
        let (Some(header), Some(payload), Some(info), Some(receipts)) =
            (header, payload, info, receipts)
        else {
            return Ok((None, 0, 0));
        };
        let hash = header.hash_slow();
        self.check(header.number == number.0, Table::Headers, &key, "has another block's number");
        if let Some(parent) = parent {
            let follows = header.parent_hash == parent;
            self.check(follows, Table::Headers, &key, "does not follow the block before it");
        }
        let stored = self.reader.hash(number);
        let stored = self.row(stored, Table::Hashes, &key)?;
        self.check(stored == Some(hash), Table::Hashes, &key, "is not the hash of the header");
        let found = self.reader.number(hash);
        let found = self.row(found, Table::Numbers, hash.as_slice())?;
        let leads = found == Some(number);
        self.check(leads, Table::Numbers, hash.as_slice(), "leads to another block");

        let fits = payload.number == number && payload.timestamp == header.timestamp;
        self.check(fits, Table::Payloads, &key, "is another block's");
        let same = info.payload_id == payload.id();
        self.check(same, Table::Blocks, &key, "names another payload");
        let root =
            output_root(header.state_root, header.withdrawals_root.unwrap_or_default(), hash);
        self.check(info.output_root == root, Table::Blocks, &key, "has a wrong output root");

        let transactions = self.reader.transactions(number);
        let transactions = self.row(transactions, Table::Payloads, &key)?.unwrap_or_default();
        let same = header.transactions_root == list_root(&transactions);
        self.check(same, Table::Payloads, &key, "has other transactions than the header");
        let same = info.senders.len() == transactions.len();
        self.check(same, Table::Blocks, &key, "has not one sender for each transaction");
        for (index, transaction) in (0_u32..).zip(&transactions) {
            let hash = transaction.tx_hash();
            let place = self.reader.transaction_place(hash);
            let place = self.row(place, Table::Transactions, hash.as_slice())?;
            let leads = place == Some((number, index));
            self.check(leads, Table::Transactions, hash.as_slice(), "leads to another place");
        }

        let same = header.receipts_root == list_root(&receipts);
        self.check(same, Table::Receipts, &key, "has other receipts than the header");
        let blooms = receipts.iter().map(OpReceiptEnvelope::logs_bloom);
        let bloom = blooms.fold(Bloom::ZERO, |all, bloom| all | *bloom);
        self.check(header.logs_bloom == bloom, Table::Headers, &key, "has another logs bloom");
        let keys = keys_of(receipts.iter().flat_map(OpReceiptEnvelope::logs));
        for term in &keys {
            let key = at(term, number);
            self.row(self.reader.get(Table::LogIndex, &key), Table::LogIndex, &key)?;
        }
        Ok((Some(hash), transactions.len() as u64, keys.len() as u64))
    }
}
