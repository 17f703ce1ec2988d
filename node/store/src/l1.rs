//! The tables that follow Bitcoin: what one L1 block writes, and how it is read.

use crate::change::Change;
use crate::codec::{Codec, decode, encode, rows};
use crate::db::Store;
use crate::error::{Result, StoreError};
use crate::l2::{L2Rows, L2Sums};
use crate::read::{Reader, Row, Rows, corrupt, missing, row};
use crate::table::Table;
use alloy_primitives::{Address, B256, Bytes};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, OutPoint, ScriptBuf, Txid};
use kedge_bridge::derive::{DeriveState, L1Lookup};
use kedge_fraud_proof::{
    AssertionNode, AssertionStatus, AssertionTracker, Claim, FraudKind, OwnBlock, OwnChain,
    Rejection,
};
use kedge_genesis::{L1Height, L1Ref, L2Number, Sats};
use std::sync::Arc;

rows! {
    /// One processed L1 block.
    pub struct L1Row {
        /// Its hash, internal byte order.
        pub hash: B256,
        /// Its header time, Unix seconds.
        pub time: u32,
        /// The last L2 block derived from Bitcoin up to and including it.
        pub safe: L2Number,
        /// Deposits in it.
        pub deposits: u32,
        /// Messages that the rules passed over in it.
        pub notes: u32,
    }

    /// A deposit on Bitcoin.
    pub struct DepositRow {
        /// The L1 block.
        pub l1: L1Ref,
        /// The vault output.
        pub outpoint: OutPoint,
        /// Who is credited.
        pub recipient: Address,
        /// How much.
        pub amount: Sats,
        /// Hash of the L2 transaction that credits it, in the chain or still to come.
        pub transaction: B256,
    }

    /// A vault output that names no recipient.
    pub struct UnattributedRow {
        /// The vault output.
        pub outpoint: OutPoint,
        /// What it holds.
        pub amount: Sats,
        /// The L1 block's height.
        pub height: L1Height,
        /// Why nobody is credited.
        pub reason: String,
    }

    /// The payout of one withdrawal.
    pub struct PayoutRow {
        /// The Bitcoin transaction.
        pub txid: Txid,
        /// The output that pays.
        pub vout: u32,
        /// The L1 block.
        pub l1: L1Ref,
    }

    /// An unspent vault output.
    pub struct VaultUtxo {
        /// Where it is.
        pub outpoint: OutPoint,
        /// What it holds.
        pub amount: Sats,
        /// Its script.
        pub script: ScriptBuf,
        /// The L1 block's height.
        pub height: L1Height,
        /// Whether a coinbase made it, so that it cannot be spent for 100 blocks.
        pub coinbase: bool,
    }

    /// A batch that consumed its index.
    pub struct BatchRow {
        /// Its index.
        pub index: u64,
        /// Its channel id.
        pub channel: B256,
        /// Its body hash.
        pub body_hash: B256,
        /// The reveals of its chunks.
        pub txids: Vec<Txid>,
        /// The L1 block that completed it.
        pub l1: L1Ref,
        /// The first and last L2 block taken from it, when any was.
        pub blocks: Option<(L2Number, L2Number)>,
        /// Why nothing was taken from it, when nothing was.
        pub dropped: Option<String>,
    }

    /// Something that the rules passed over.
    pub struct NoteRow {
        /// A short constant name of the reason, to count by.
        pub label: String,
        /// What and why, for people.
        pub text: String,
    }

    /// The proof that rejected an assertion.
    pub struct RejectionRow {
        /// The segment proven wrong.
        pub segment: u32,
        /// What is wrong in it.
        pub kind: FraudKind,
        /// Whom the bond pays, x-only key.
        pub challenger: B256,
        /// Height of the last of its commit transactions.
        pub committed: L1Height,
        /// The reveal that completed it.
        pub txid: Txid,
        /// The L1 block of that reveal.
        pub height: L1Height,
    }

    /// An assertion that counts, forgotten ones included.
    pub struct AssertionRow {
        /// Its id.
        pub id: B256,
        /// The assertion that it continues; zero is the genesis.
        pub parent: B256,
        /// The L1 block at whose end its last claim holds.
        pub l1: L1Ref,
        /// Claim hashes, one per segment since the parent.
        pub claims: Vec<B256>,
        /// Height of its reveal.
        pub confirmed_at: L1Height,
        /// The L1 block that settles it if nobody proves it wrong before.
        pub deadline: L1Height,
        /// Its bond.
        pub bond: OutPoint,
        /// What the bond holds.
        pub bond_value: Sats,
        /// To whom the bond returns, x-only key.
        pub proposer: B256,
        /// The L1 block that settled it.
        pub settled_at: Option<L1Height>,
        /// Whether a proof against it has begun on Bitcoin.
        pub challenged: bool,
        /// The L1 block in which it was proven wrong, or one that it continues.
        pub rejected_at: Option<L1Height>,
        /// The proof; none when it fell with its parent.
        pub rejection: Option<RejectionRow>,
        /// Whether it and all before it equal this node's own derivation.
        pub agrees: bool,
    }

    /// Running sums over Bitcoin up to the processed tip.
    pub struct L1Sums {
        /// All unspent vault outputs.
        pub vault: Sats,
        /// Everything deposited, credited on L2 or still to be.
        pub deposited: Sats,
        /// Everything paid to withdrawals.
        pub paid: Sats,
        /// What the paid withdrawals had paid for their payouts.
        pub paid_fees: Sats,
        /// Index of the next withdrawal to be paid.
        pub next_payout: u64,
        /// Number of deposits.
        pub deposits: u64,
        /// Number of vault outputs without recipient.
        pub unattributed: u64,
    }
}

impl L1Sums {
    const NONE: Self = Self {
        vault: Sats::ZERO,
        deposited: Sats::ZERO,
        paid: Sats::ZERO,
        paid_fees: Sats::ZERO,
        next_payout: 0,
        deposits: 0,
        unattributed: 0,
    };
}

/// What the vault holds against what it owes, in satoshis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solvency {
    /// All unspent vault outputs.
    pub vault: Sats,
    /// What exists on L2 at `latest`: minted by deposits, less what withdrawals burnt.
    pub supply: Sats,
    /// Deposits on Bitcoin that no L2 block has credited yet.
    pub pending: Sats,
    /// What queued withdrawals are still to be paid.
    pub queued: Sats,
    /// What the queued withdrawals paid for their payouts.
    pub queued_fees: Sats,
}

impl Solvency {
    fn of(l2: &L2Sums, l1: &L1Sums) -> Self {
        let less = |from: Sats, what: Sats| Sats(from.0.saturating_sub(what.0));
        let fees = less(l2.burnt, l2.withdrawn);
        Self {
            vault: l1.vault,
            supply: l2.supply(),
            pending: less(l1.deposited, l2.minted),
            queued: less(l2.withdrawn, l1.paid),
            queued_fees: less(fees, l1.paid_fees),
        }
    }

    /// The invariant: the vault covers supply and queue.
    pub fn holds(&self) -> bool {
        self.supply.checked_add(self.queued).is_some_and(|owed| self.vault >= owed)
    }

    /// What the vault holds beyond everything that it owes or will owe; zero when that is not covered.
    pub fn surplus(&self) -> Sats {
        [self.supply, self.pending, self.queued, self.queued_fees]
            .into_iter()
            .try_fold(Sats::ZERO, Sats::checked_add)
            .and_then(|owed| self.vault.checked_sub(owed))
            .unwrap_or_default()
    }
}

impl From<&Rejection> for RejectionRow {
    fn from(proof: &Rejection) -> Self {
        Self {
            segment: proof.segment,
            kind: proof.kind,
            challenger: B256::new(proof.challenger),
            committed: proof.committed,
            txid: proof.reveal.txid,
            height: proof.reveal.height,
        }
    }
}

impl Codec for FraudKind {
    fn put(&self, out: &mut Vec<u8>) {
        self.wire().put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Self::from_wire(u8::take(input)?)
    }
}

impl From<&AssertionNode> for AssertionRow {
    fn from(node: &AssertionNode) -> Self {
        let (settled_at, rejected_at, rejection) = match &node.status {
            AssertionStatus::Proposed | AssertionStatus::Challenged => (None, None, None),
            AssertionStatus::Settled { at } => (Some(*at), None, None),
            AssertionStatus::Rejected { at, proof } => {
                (None, Some(*at), proof.as_ref().map(RejectionRow::from))
            }
        };
        Self {
            id: node.id,
            parent: node.parent,
            l1: node.l1,
            claims: node.claims.clone(),
            confirmed_at: node.confirmed_at,
            deadline: node.deadline,
            bond: node.bond,
            bond_value: node.bond_value,
            proposer: B256::new(node.proposer),
            settled_at,
            challenged: node.status == AssertionStatus::Challenged,
            rejected_at,
            rejection,
            agrees: node.agrees,
        }
    }
}

const TIP: &[u8] = b"tip";
const SUMS: &[u8] = b"sums";
const TRACKER: &[u8] = b"tracker";

const fn height_key(height: L1Height) -> [u8; 4] {
    height.0.to_be_bytes()
}

fn outpoint_key(outpoint: &OutPoint) -> Vec<u8> {
    encode(outpoint)
}

/// Reading what follows Bitcoin, up to the processed tip.
pub trait L1Rows: Rows {
    /// The last processed L1 block; none before genesis is written.
    ///
    /// # Errors
    /// When the database fails, as everywhere here.
    fn l1_tip(&self) -> Result<Option<L1Ref>> {
        row(self, Table::L1Meta, TIP)
    }

    /// A processed L1 block's row. The network's start has one too.
    ///
    /// # Errors
    /// When the database fails.
    fn l1_row(&self, height: L1Height) -> Result<Option<L1Row>> {
        row(self, Table::L1Rows, &height_key(height))
    }

    /// A processed L1 block. Not at hand for the network's start, which nothing reads.
    ///
    /// # Errors
    /// When the database fails.
    fn l1_block_at(&self, height: L1Height) -> Result<Option<Block>> {
        let key = height_key(height);
        let Some(bytes) = self.get(Table::L1Blocks, &key)? else { return Ok(None) };
        deserialize(&bytes).map(Some).map_err(|_| corrupt(Table::L1Blocks, &key))
    }

    /// The height of the processed L1 block with that hash (internal byte order).
    ///
    /// # Errors
    /// When the database fails.
    fn l1_height(&self, hash: B256) -> Result<Option<L1Height>> {
        row(self, Table::L1Heights, hash.as_slice())
    }

    /// Derivation's state after an L1 block.
    ///
    /// # Errors
    /// When the database fails.
    fn derive_state(&self, height: L1Height) -> Result<Option<DeriveState>> {
        let key = height_key(height);
        let Some(bytes) = self.get(Table::DeriveStates, &key)? else { return Ok(None) };
        DeriveState::decode(&bytes).map(Some).map_err(|_| corrupt(Table::DeriveStates, &key))
    }

    /// This node's claims at the ends of an L1 block's segments, in order.
    ///
    /// # Errors
    /// When the database fails.
    fn claims(&self, height: L1Height) -> Result<Option<Vec<Claim>>> {
        let key = height_key(height);
        let Some(claims) = row::<Vec<Bytes>>(self, Table::Claims, &key)? else {
            return Ok(None);
        };
        claims
            .iter()
            .map(|bytes| Claim::decode(bytes).map_err(|_| corrupt(Table::Claims, &key)))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The deposit of a vault output.
    ///
    /// # Errors
    /// When the database fails.
    fn deposit(&self, outpoint: &OutPoint) -> Result<Option<DepositRow>> {
        match self.get(Table::DepositOutpoints, &outpoint_key(outpoint))? {
            Some(key) => row(self, Table::Deposits, &key),
            None => Ok(None),
        }
    }

    /// The payout of a withdrawal; none while it is not paid.
    ///
    /// # Errors
    /// When the database fails.
    fn payout(&self, index: u64) -> Result<Option<PayoutRow>> {
        row(self, Table::Payouts, &index.to_be_bytes())
    }

    /// A batch by its index.
    ///
    /// # Errors
    /// When the database fails.
    fn batch(&self, index: u64) -> Result<Option<BatchRow>> {
        row(self, Table::Batches, &index.to_be_bytes())
    }

    /// An assertion by its id.
    ///
    /// # Errors
    /// When the database fails.
    fn assertion(&self, id: B256) -> Result<Option<AssertionRow>> {
        row(self, Table::Assertions, id.as_slice())
    }

    /// The tracker of assertions after the processed tip.
    ///
    /// # Errors
    /// When the database fails.
    fn tracker(&self) -> Result<AssertionTracker> {
        let bytes =
            self.get(Table::L1Meta, TRACKER)?.ok_or_else(|| missing(Table::L1Meta, TRACKER))?;
        AssertionTracker::decode(&bytes).map_err(|_| corrupt(Table::L1Meta, TRACKER))
    }

    /// Running sums.
    ///
    /// # Errors
    /// When the database fails.
    fn l1_sums(&self) -> Result<L1Sums> {
        Ok(row(self, Table::L1Meta, SUMS)?.unwrap_or(L1Sums::NONE))
    }

    /// What the vault holds against what it owes.
    ///
    /// # Errors
    /// When the database fails.
    fn solvency(&self) -> Result<Solvency> {
        Ok(Solvency::of(&self.l2_sums()?, &self.l1_sums()?))
    }

    /// The last L2 block derived from Bitcoin up to an L1 block; genesis below the network's start.
    ///
    /// # Errors
    /// When the database fails.
    fn safe_at(&self, height: L1Height) -> Result<L2Number> {
        Ok(self.l1_row(height)?.map_or(L2Number(0), |row| row.safe))
    }
}

impl<R: Rows + ?Sized> L1Rows for R {}

/// A store's own derivation, for the tracker and for building assertions.
#[derive(Debug)]
pub struct OwnClaims<'r, R: ?Sized>(pub &'r R);

impl<R: Rows + ?Sized> OwnChain for OwnClaims<'_, R> {
    type Error = StoreError;

    fn own_block(&self, height: L1Height) -> Result<Option<OwnBlock>> {
        let (Some(row), Some(claims)) = (self.0.l1_row(height)?, self.0.claims(height)?) else {
            return Ok(None);
        };
        Ok(Some(OwnBlock { hash: row.hash, claims: claims.iter().map(Claim::hash).collect() }))
    }
}

impl L1Lookup for Store {
    type Error = StoreError;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>> {
        self.l1_block_at(height)?
            .map(Arc::new)
            .ok_or_else(|| missing(Table::L1Blocks, &height_key(height)))
    }
}

impl Reader<'_> {
    /// The latest deposits, newest first, at most `count`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn latest_deposits(&self, count: usize) -> Result<Vec<DepositRow>> {
        decode_all(Table::Deposits, self.down_from(Table::Deposits, &[0xff; 8]).take(count))
    }

    /// Vault outputs without recipient, at most `count`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn unattributed(&self, count: usize) -> Result<Vec<UnattributedRow>> {
        decode_all(Table::Unattributed, self.all(Table::Unattributed).take(count))
    }

    /// All unspent vault outputs.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vault_utxos(&self) -> Result<Vec<VaultUtxo>> {
        decode_all(Table::VaultUtxos, self.all(Table::VaultUtxos))
    }

    /// The latest batches, newest first, at most `count`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn latest_batches(&self, count: usize) -> Result<Vec<BatchRow>> {
        decode_all(Table::Batches, self.down_from(Table::Batches, &[0xff; 8]).take(count))
    }

    /// The batches up to that index, newest first, at most `count`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn batches_to(&self, last: u64, count: usize) -> Result<Vec<BatchRow>> {
        let rows = self.down_from(Table::Batches, &last.to_be_bytes());
        decode_all(Table::Batches, rows.take(count))
    }

    /// All assertions that ever counted, in the order of their confirmation.
    ///
    /// # Errors
    /// When the database fails.
    pub fn assertions(&self) -> Result<Vec<AssertionRow>> {
        let mut all: Vec<AssertionRow> =
            decode_all(Table::Assertions, self.all(Table::Assertions))?;
        all.sort_by_key(|row| (row.confirmed_at, row.l1.height, row.id));
        Ok(all)
    }

    /// The notes of one L1 block.
    ///
    /// # Errors
    /// When the database fails.
    pub fn notes(&self, height: L1Height) -> Result<Vec<NoteRow>> {
        decode_all(Table::Notes, self.prefixed(Table::Notes, &height_key(height)))
    }
}

pub(crate) fn decode_all<T: Codec>(
    table: Table,
    rows: impl Iterator<Item = Result<Row>>,
) -> Result<Vec<T>> {
    rows.map(|row| row.and_then(|(key, value)| decode(table, &key, &value))).collect()
}

/// Everything that one processed L1 block writes; the engine fills it in.
impl Change<'_> {
    /// Makes `at` the processed tip.
    ///
    /// # Errors
    /// When the database fails, as everywhere here.
    pub fn put_l1_block(&mut self, at: L1Ref, block: Option<&Block>, row: &L1Row) -> Result<()> {
        let key = height_key(at.height);
        if let Some(block) = block {
            self.put(Table::L1Blocks, &key, serialize(block))?;
        }
        self.put_row(Table::L1Heights, at.hash.as_slice(), &at.height)?;
        self.put_row(Table::L1Rows, &key, row)?;
        self.put_row(Table::L1Meta, TIP, &at)
    }

    /// Stores derivation's state after an L1 block and this node's claims in it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_derived(&mut self, state: &DeriveState, claims: &[Claim]) -> Result<()> {
        let key = height_key(state.l1.height);
        self.put(Table::DeriveStates, &key, state.encode())?;
        if claims.is_empty() {
            // Only where the network starts.
            return Ok(());
        }
        let claims: Vec<Bytes> = claims.iter().map(|it| it.encode().into()).collect();
        self.put_row(Table::Claims, &key, &claims)
    }

    /// Adds a deposit; `position` is its place in the L1 block.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_deposit(&mut self, position: u32, row: &DepositRow) -> Result<()> {
        let key = [height_key(row.l1.height), position.to_be_bytes()].concat();
        self.put_row(Table::Deposits, &key, row)?;
        self.put(Table::DepositOutpoints, &outpoint_key(&row.outpoint), key)
    }

    /// Adds a vault output without recipient.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_unattributed(&mut self, row: &UnattributedRow) -> Result<()> {
        self.put_row(Table::Unattributed, &outpoint_key(&row.outpoint), row)
    }

    /// Marks a withdrawal as paid.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_payout(&mut self, index: u64, row: &PayoutRow) -> Result<()> {
        self.put_row(Table::Payouts, &index.to_be_bytes(), row)
    }

    /// Adds an unspent vault output.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_vault_utxo(&mut self, utxo: &VaultUtxo) -> Result<()> {
        self.put_row(Table::VaultUtxos, &outpoint_key(&utxo.outpoint), utxo)
    }

    /// Removes a vault output that is spent now, and returns it; none when it is not the vault's.
    ///
    /// # Errors
    /// When the database fails.
    pub fn take_vault_utxo(&mut self, outpoint: &OutPoint) -> Result<Option<VaultUtxo>> {
        let key = outpoint_key(outpoint);
        let utxo = row(self, Table::VaultUtxos, &key)?;
        if utxo.is_some() {
            self.delete(Table::VaultUtxos, &key)?;
        }
        Ok(utxo)
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_batch(&mut self, row: &BatchRow) -> Result<()> {
        self.put_row(Table::Batches, &row.index.to_be_bytes(), row)
    }

    /// Adds the notes of an L1 block.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_notes(&mut self, height: L1Height, notes: &[NoteRow]) -> Result<()> {
        for (position, note) in (0u32..).zip(notes) {
            let key = [height_key(height), position.to_be_bytes()].concat();
            self.put_row(Table::Notes, &key, note)?;
        }
        Ok(())
    }

    /// Adds or updates an assertion.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_assertion(&mut self, row: &AssertionRow) -> Result<()> {
        self.put_row(Table::Assertions, row.id.as_slice(), row)
    }

    /// Replaces the tracker of assertions.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_tracker(&mut self, tracker: &AssertionTracker) -> Result<()> {
        self.put(Table::L1Meta, TRACKER, tracker.encode())
    }

    /// Replaces the running sums.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_l1_sums(&mut self, sums: &L1Sums) -> Result<()> {
        self.put_row(Table::L1Meta, SUMS, sums)
    }
}

impl Change<'_> {
    /// Records how far the chain is final. It never goes back, so it is outside of what is undone.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put_finalized(&mut self, number: L2Number) -> Result<()> {
        self.put_row(Table::Meta, FINALIZED, &number)
    }
}

const FINALIZED: &[u8] = b"finalized";

/// The last final L2 block that was recorded; genesis before any.
///
/// # Errors
/// When the database fails.
pub fn finalized(rows: &(impl Rows + ?Sized)) -> Result<L2Number> {
    Ok(row(rows, Table::Meta, FINALIZED)?.unwrap_or_default())
}
