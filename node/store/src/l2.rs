//! The tables of the L2 chain: what a block writes, and how it is read.

use crate::change::Change;
use crate::codec::{Codec, decode, encode, rows, split};
use crate::error::Result;
use crate::history::at;
use crate::read::{Reader, Rows, corrupt, missing, row};
use crate::table::{Domain, Table};
use crate::tries::{node_key, version_key};
use alloy_consensus::Header;
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_rlp::Decodable;
use alloy_sol_types::SolEvent;
use bitcoin::ScriptBuf;
use kedge_bridge::derive::L2Cursor;
use kedge_bridge::payout::Withdrawal;
use kedge_genesis::abi::BitcoinBridge::WithdrawalQueued;
use kedge_genesis::{L2Number, Sats, predeploys};
use kedge_vm::{
    AccountInfo, ExecutedBlock, GenesisBlock, OpReceiptEnvelope, OpTxEnvelope, Payload, PayloadTx,
    StateDiff, TrieDiff,
};

rows! {
    /// What execution and derivation know of a block beyond its header.
    pub struct BlockInfo {
        /// [`Payload::id`].
        pub payload_id: B256,
        /// Output root after the block.
        pub output_root: B256,
        /// Gas by the meter.
        pub metered_gas: u64,
        /// Bytes by the witness meter.
        pub witness_bytes: u64,
        /// Derivation's cursor after the block.
        pub cursor: L2Cursor,
        /// Senders of the block's transactions, in order.
        pub senders: Vec<Address>,
        /// Indices into the payload of listed transactions that are not in the block, ascending.
        pub skipped: Vec<u32>,
    }

    /// A withdrawal in `BitcoinBridge`'s queue.
    pub struct QueuedWithdrawal {
        /// Its place in the queue, from 0.
        pub index: u64,
        /// Who withdrew.
        pub sender: Address,
        /// The Bitcoin script to pay.
        pub script: ScriptBuf,
        /// What to pay.
        pub amount: Sats,
        /// What it paid for the payout.
        pub fee: Sats,
        /// The L2 block that queued it.
        pub block: L2Number,
        /// The L2 transaction that queued it.
        pub transaction: B256,
    }

    /// Running sums over the L2 chain up to `latest`.
    pub struct L2Sums {
        /// Everything that deposits minted.
        pub minted: Sats,
        /// Everything that withdrawals burnt, payout fees included.
        pub burnt: Sats,
        /// Everything that withdrawals are to be paid, paid ones included.
        pub withdrawn: Sats,
        /// Number of withdrawals, which is the next one's index.
        pub withdrawals: u64,
    }
}

impl L2Sums {
    const NONE: Self =
        Self { minted: Sats::ZERO, burnt: Sats::ZERO, withdrawn: Sats::ZERO, withdrawals: 0 };

    /// What exists on L2.
    pub const fn supply(&self) -> Sats {
        Sats(self.minted.0.saturating_sub(self.burnt.0))
    }
}

impl From<QueuedWithdrawal> for Withdrawal {
    fn from(queued: QueuedWithdrawal) -> Self {
        Self { index: queued.index, script: queued.script, amount: queued.amount, fee: queued.fee }
    }
}

impl Codec for L2Cursor {
    fn put(&self, out: &mut Vec<u8>) {
        self.encode().put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Self::decode(&Vec::take(input)?).ok()
    }
}

/// Nonce, length of the balance, balance without leading zeros, code hash. Absent is no row, and an empty one in
/// the history.
pub(crate) struct AccountRow(pub(crate) AccountInfo);

impl Codec for AccountRow {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.nonce.put(out);
        let balance = self.0.balance.to_be_bytes_trimmed_vec();
        out.push(balance.len() as u8);
        out.extend_from_slice(&balance);
        // Most accounts have no code.
        if self.0.code_hash != KECCAK256_EMPTY {
            self.0.code_hash.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        let nonce = u64::take(input)?;
        let length = u8::take(input)?;
        let balance = trimmed(split(input, length.into())?)?;
        let code_hash = if input.is_empty() { KECCAK256_EMPTY } else { B256::take(input)? };
        Some(Self(AccountInfo { nonce, balance, code_hash }))
    }
}

/// The value of a slot without leading zeros: zero is no row, and an empty one in the history.
pub(crate) struct SlotRow(pub(crate) U256);

impl Codec for SlotRow {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes_trimmed_vec());
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        trimmed(std::mem::take(input)).map(Self)
    }
}

/// The number that these bytes are without leading zeros.
fn trimmed(bytes: &[u8]) -> Option<U256> {
    U256::try_from_be_slice(bytes).filter(|_| bytes.first() != Some(&0))
}

const LATEST: &[u8] = b"latest";
const SUMS: &[u8] = b"sums";

/// Key of a slot.
pub(crate) fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    key
}

/// A row of a state; none where nothing is stored.
type StateRow = (Table, Vec<u8>, Option<Bytes>);

/// The rows of a state, in an order that follows from their keys.
pub(crate) fn state_rows<'d>(state: &'d StateDiff) -> impl Iterator<Item = StateRow> + use<'d> {
    let codes = state.codes.iter();
    let codes = codes.map(|(hash, code)| (Table::Codes, hash.to_vec(), Some(code.clone())));
    let accounts = state.accounts.iter().map(|(address, account)| {
        let row = account.map(|account| encode(&AccountRow(account)).into());
        (Table::Accounts, address.to_vec(), row)
    });
    let slots = state.storage.iter().map(|((address, slot), value)| {
        let row = (!value.is_zero()).then(|| encode(&SlotRow(*value)).into());
        (Table::Storage, slot_key(*address, *slot).to_vec(), row)
    });
    codes.chain(accounts).chain(slots)
}

/// The rows of the nodes that block `number` changed.
pub(crate) fn node_rows(
    trie: &TrieDiff,
    number: L2Number,
) -> impl Iterator<Item = (Vec<u8>, Bytes)> + use<'_> {
    trie.nodes.iter().map(move |((owner, path), node)| {
        (version_key(&node_key(*owner, path), number), node.clone().unwrap_or_default())
    })
}

/// Reading the L2 chain. Blocks are those of the one chain up to `latest`.
pub trait L2Rows: Rows {
    /// Number of the latest block; none before genesis is written.
    ///
    /// # Errors
    /// When the database fails, as everywhere here.
    fn latest(&self) -> Result<Option<L2Number>> {
        row(self, Table::L2Meta, LATEST)
    }

    /// A block's hash.
    ///
    /// # Errors
    /// When the database fails.
    fn hash(&self, number: L2Number) -> Result<Option<B256>> {
        row(self, Table::Hashes, &number.0.to_be_bytes())
    }

    /// The number of the block with that hash.
    ///
    /// # Errors
    /// When the database fails.
    fn number(&self, hash: B256) -> Result<Option<L2Number>> {
        row(self, Table::Numbers, hash.as_slice())
    }

    /// A block's header.
    ///
    /// # Errors
    /// When the database fails.
    fn header(&self, number: L2Number) -> Result<Option<Header>> {
        rlp_row(self, Table::Headers, number)
    }

    /// A block's payload, skipped transactions included. Genesis has an empty one.
    ///
    /// # Errors
    /// When the database fails.
    fn payload(&self, number: L2Number) -> Result<Option<Payload>> {
        rlp_row(self, Table::Payloads, number)
    }

    /// A block's transactions, without the skipped ones.
    ///
    /// # Errors
    /// When the database fails.
    fn transactions(&self, number: L2Number) -> Result<Option<Vec<OpTxEnvelope>>> {
        let (Some(payload), Some(info)) = (self.payload(number)?, self.block_info(number)?) else {
            return Ok(None);
        };
        let included = (0u32..)
            .zip(payload.transactions)
            .filter(|(index, _)| info.skipped.binary_search(index).is_err());
        included
            .map(|(_, tx)| match tx {
                PayloadTx::System(deposit) => Ok(OpTxEnvelope::from(deposit)),
                PayloadTx::User(bytes) => OpTxEnvelope::decode_2718_exact(&bytes)
                    .map_err(|_| corrupt(Table::Payloads, &number.0.to_be_bytes())),
            })
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The receipts of a block's transactions.
    ///
    /// # Errors
    /// When the database fails.
    fn receipts(&self, number: L2Number) -> Result<Option<Vec<OpReceiptEnvelope>>> {
        let key = number.0.to_be_bytes();
        let Some(receipts) = row::<Vec<Bytes>>(self, Table::Receipts, &key)? else {
            return Ok(None);
        };
        receipts
            .iter()
            .map(|bytes| {
                OpReceiptEnvelope::decode_2718_exact(bytes)
                    .map_err(|_| corrupt(Table::Receipts, &key))
            })
            .collect::<Result<_>>()
            .map(Some)
    }

    /// What is known of a block beyond its header.
    ///
    /// # Errors
    /// When the database fails.
    fn block_info(&self, number: L2Number) -> Result<Option<BlockInfo>> {
        row(self, Table::Blocks, &number.0.to_be_bytes())
    }

    /// The block that includes a transaction and the index in it.
    ///
    /// # Errors
    /// When the database fails.
    fn transaction_place(&self, hash: B256) -> Result<Option<(L2Number, u32)>> {
        row(self, Table::Transactions, hash.as_slice())
    }

    /// An account at `latest`.
    ///
    /// # Errors
    /// When the database fails.
    fn account(&self, address: Address) -> Result<Option<AccountInfo>> {
        Ok(row::<AccountRow>(self, Table::Accounts, address.as_slice())?.map(|it| it.0))
    }

    /// A slot at `latest`; zero when it was never written.
    ///
    /// # Errors
    /// When the database fails.
    fn slot(&self, address: Address, slot: U256) -> Result<U256> {
        let row = row::<SlotRow>(self, Table::Storage, &slot_key(address, slot))?;
        Ok(row.map_or(U256::ZERO, |it| it.0))
    }

    /// A code by its hash; of the empty hash, nothing.
    ///
    /// # Errors
    /// When the database fails.
    fn code(&self, hash: B256) -> Result<Option<Bytes>> {
        if hash == KECCAK256_EMPTY {
            return Ok(Some(Bytes::new()));
        }
        self.get(Table::Codes, hash.as_slice())
    }

    /// The node of a trie at `latest`. Owner none is the account trie, else the storage trie of that
    /// hashed address.
    ///
    /// # Errors
    /// When the database fails.
    fn trie_node(&self, owner: Option<B256>, path: &kedge_vm::Nibbles) -> Result<Option<Bytes>> {
        self.find_node(&mut self.node_rows(), &node_key(owner, path))
    }

    /// A queued withdrawal.
    ///
    /// # Errors
    /// When the database fails.
    fn withdrawal(&self, index: u64) -> Result<Option<QueuedWithdrawal>> {
        row(self, Table::Withdrawals, &index.to_be_bytes())
    }

    /// Running sums.
    ///
    /// # Errors
    /// When the database fails.
    fn l2_sums(&self) -> Result<L2Sums> {
        Ok(row(self, Table::L2Meta, SUMS)?.unwrap_or(L2Sums::NONE))
    }
}

impl<R: Rows + ?Sized> L2Rows for R {}

fn rlp_row<T: Decodable>(
    rows: &(impl Rows + ?Sized),
    table: Table,
    number: L2Number,
) -> Result<Option<T>> {
    let key = number.0.to_be_bytes();
    let Some(value) = rows.get(table, &key)? else { return Ok(None) };
    alloy_rlp::decode_exact(value).map(Some).map_err(|_| corrupt(table, &key))
}

/// Where it stands which block loaded which account.
const TOUCHES: [Table; 2] = [Table::AccountHistory, Table::AccountReads];

/// The block in such a row's key.
fn touch(table: Table, key: &[u8]) -> Result<L2Number> {
    let number = key.last_chunk().map(|bytes| L2Number(u64::from_be_bytes(*bytes)));
    number.ok_or_else(|| corrupt(table, key))
}

impl Reader<'_> {
    /// The first block from `number` on that loaded an account, changed or not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn touched_from(&self, address: Address, number: L2Number) -> Result<Option<L2Number>> {
        let mut first = None;
        for table in TOUCHES {
            let end = crate::read::successor(address.as_slice());
            let row = self.first_between(table, &at(address.as_slice(), number), end)?;
            let found = row.map(|(key, _)| touch(table, &key)).transpose()?;
            first = found.into_iter().chain(first).min();
        }
        Ok(first)
    }

    /// The last block up to `number` that loaded an account, changed or not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn touched_up_to(&self, address: Address, number: L2Number) -> Result<Option<L2Number>> {
        let mut last = None;
        for table in TOUCHES {
            let prefix = address.as_slice();
            let row = self.last_with_prefix(table, prefix, &at(prefix, number))?;
            let found = row.map(|(key, _)| touch(table, &key)).transpose()?;
            last = last.max(found);
        }
        Ok(last)
    }

    /// The queued withdrawals from `index` on, at most `count`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn withdrawals_from(&self, index: u64, count: usize) -> Result<Vec<QueuedWithdrawal>> {
        let rows = self.from(Table::Withdrawals, &index.to_be_bytes()).take(count);
        rows.map(|entry| entry.and_then(|(key, value)| decode(Table::Withdrawals, &key, &value)))
            .collect()
    }
}

impl Change<'_> {
    /// Adds block 0.
    ///
    /// # Errors
    /// When the database fails.
    pub fn write_genesis(&mut self, genesis: &GenesisBlock, cursor: &L2Cursor) -> Result<()> {
        let payload = Payload {
            number: L2Number(0),
            timestamp: genesis.header.timestamp,
            origin: cursor.origin,
            sequence_number: 0,
            transactions: Vec::new(),
        };
        let info = BlockInfo {
            payload_id: payload.id(),
            output_root: genesis.output_root,
            metered_gas: 0,
            witness_bytes: 0,
            cursor: *cursor,
            senders: Vec::new(),
            skipped: Vec::new(),
        };
        self.begin(Domain::L2, 0)?;
        self.write_block(&genesis.header, genesis.hash, &payload, &info, &[], &[])?;
        for address in genesis.state.accounts.keys() {
            self.add(Table::AccountReads, at(address.as_slice(), L2Number(0)), Vec::new())?;
        }
        // Without history: there is no state before it.
        for (table, key, value) in state_rows(&genesis.state) {
            self.set(table, key, value);
        }
        for (key, node) in node_rows(&genesis.trie, L2Number(0)) {
            self.set(Table::Tries, key, Some(node));
        }
        self.end(Domain::L2)?;
        // Nothing ever undoes block 0.
        self.forget(Domain::L2, 0);
        Ok(())
    }

    /// Adds the next block, with everything that it changes.
    ///
    /// # Errors
    /// When the database fails.
    pub fn append_block(
        &mut self,
        payload: &Payload,
        block: &ExecutedBlock,
        cursor: &L2Cursor,
    ) -> Result<()> {
        let info = BlockInfo {
            payload_id: payload.id(),
            output_root: block.output_root,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
            cursor: *cursor,
            senders: block.senders.clone(),
            skipped: block
                .skipped
                .iter()
                .filter_map(|(index, _)| u32::try_from(*index).ok())
                .collect(),
        };
        self.begin(Domain::L2, payload.number.0)?;
        let hashes: Vec<B256> = block.transactions.iter().map(OpTxEnvelope::tx_hash).collect();
        self.write_block(&block.header, block.hash, payload, &info, &hashes, &block.receipts)?;
        let mut before = state_rows(&block.before).peekable();
        for (table, key, value) in state_rows(&block.state) {
            let same = |row: &StateRow| (row.0, &row.1) == (table, &key);
            let previous = before.next_if(same).map(|(_, _, previous)| previous);
            self.replace_known(table, &key, previous, value)?;
        }
        for (key, node) in node_rows(&block.trie, payload.number) {
            self.add(Table::Tries, key, node)?;
        }
        for address in &block.unchanged {
            self.add(Table::AccountReads, at(address.as_slice(), payload.number), Vec::new())?;
        }
        self.write_bridge(payload, &hashes, &block.receipts)?;
        self.end(Domain::L2)
    }

    /// Takes the latest block back and returns its number.
    ///
    /// # Errors
    /// [`StoreError::NoUndo`](crate::StoreError::NoUndo) when its undo record has been pruned, and when the database fails.
    pub fn unwind_block(&mut self) -> Result<L2Number> {
        let latest = self.latest()?.ok_or_else(|| missing(Table::L2Meta, LATEST))?;
        self.undo(Domain::L2, latest.0)?;
        self.forget_signature(latest)?;
        Ok(latest)
    }

    fn write_block(
        &mut self,
        header: &Header,
        hash: B256,
        payload: &Payload,
        info: &BlockInfo,
        transactions: &[B256],
        receipts: &[OpReceiptEnvelope],
    ) -> Result<()> {
        let number = payload.number;
        let key = number.0.to_be_bytes();
        self.put(Table::Headers, &key, alloy_rlp::encode(header))?;
        self.put_row(Table::Hashes, &key, &hash)?;
        self.put_row(Table::Numbers, hash.as_slice(), &number)?;
        self.put(Table::Payloads, &key, alloy_rlp::encode(payload))?;
        self.put_row(Table::Blocks, &key, info)?;
        let encoded: Vec<Bytes> = receipts.iter().map(|it| it.encoded_2718().into()).collect();
        self.put_row(Table::Receipts, &key, &encoded)?;
        self.index_logs(number, receipts)?;
        for (index, transaction) in (0u32..).zip(transactions) {
            // A transaction's nonce is used once.
            self.add(Table::Transactions, transaction.to_vec(), encode(&(number, index)))?;
        }
        self.put_row(Table::L2Meta, LATEST, &number)
    }

    /// Withdrawals queued by the block, and the sums.
    fn write_bridge(
        &mut self,
        payload: &Payload,
        hashes: &[B256],
        receipts: &[OpReceiptEnvelope],
    ) -> Result<()> {
        let mut sums = self.l2_sums()?;
        let overflow = || corrupt(Table::L2Meta, SUMS);
        for tx in &payload.transactions {
            if let PayloadTx::System(deposit) = tx {
                // Mints are whole satoshis: derivation makes them from satoshis.
                let mint = Sats::from_wei_exact(U256::from(deposit.mint)).ok_or_else(overflow)?;
                sums.minted = sums.minted.checked_add(mint).ok_or_else(overflow)?;
            }
        }
        for (hash, receipt) in hashes.iter().zip(receipts) {
            for log in receipt.logs() {
                if log.address != predeploys::BITCOIN_BRIDGE {
                    continue;
                }
                let Ok(event) = WithdrawalQueued::decode_log(log) else { continue };
                let queued = QueuedWithdrawal {
                    index: event.index,
                    sender: event.sender,
                    script: ScriptBuf::from_bytes(event.scriptPubKey.to_vec()),
                    amount: Sats(event.amountSats),
                    fee: Sats(event.feeSats),
                    block: payload.number,
                    transaction: *hash,
                };
                let burnt = queued.amount.checked_add(queued.fee).ok_or_else(overflow)?;
                sums.burnt = sums.burnt.checked_add(burnt).ok_or_else(overflow)?;
                sums.withdrawn = sums.withdrawn.checked_add(queued.amount).ok_or_else(overflow)?;
                sums.withdrawals = sums.withdrawals.saturating_add(1);
                self.put_row(Table::Withdrawals, &queued.index.to_be_bytes(), &queued)?;
            }
        }
        self.put_row(Table::L2Meta, SUMS, &sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;

    #[test]
    fn accounts_round_trip_with_and_without_code() {
        for (code_hash, balance) in [
            (KECCAK256_EMPTY, U256::ZERO),
            (KECCAK256_EMPTY, U256::from(5)),
            (B256::repeat_byte(7), U256::MAX),
        ] {
            let info = AccountInfo { nonce: 3, balance, code_hash };
            let bytes = encode(&AccountRow(info));
            let found: AccountRow = decode(Table::Accounts, b"", &bytes).unwrap();
            assert_eq!(found.0, info);
        }
        for damaged in [&[1, 2][..], &[0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 5]] {
            let damaged = decode::<AccountRow>(Table::Accounts, b"", damaged);
            assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
        }
    }

    #[test]
    fn slots_round_trip_without_leading_zeros() {
        for value in [U256::ZERO, U256::from(0x0100), U256::MAX] {
            let bytes = encode(&SlotRow(value));
            assert_eq!(bytes.len(), value.byte_len());
            assert_eq!(decode::<SlotRow>(Table::Storage, b"", &bytes).unwrap().0, value);
        }
        for damaged in [&[0, 1][..], &[1; 33]] {
            let damaged = decode::<SlotRow>(Table::Storage, b"", damaged);
            assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
        }
    }
}
