//! What the `kedge_*` methods answer. The command line reads the same types.
//!
//! Numbers are plain JSON numbers, amounts are satoshis, Bitcoin hashes are as Bitcoin displays them.

use alloy_primitives::{Address, B256};
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid, hashes::Hash};
use kedge_genesis::L1Ref;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A Bitcoin block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L1BlockId {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

impl From<L1Ref> for L1BlockId {
    fn from(at: L1Ref) -> Self {
        Self { height: at.height.0, hash: BlockHash::from_byte_array(at.hash.0) }
    }
}

/// An L2 block that is a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadStatus {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// State root after it.
    pub state_root: B256,
    /// Output root after it.
    pub output_root: B256,
    /// Its time, Unix seconds.
    pub timestamp: u64,
    /// Its L1 origin.
    pub l1_origin: L1BlockId,
}

/// What a node takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    /// It makes blocks.
    pub sequencer: bool,
    /// It publishes assertions.
    pub proposer: bool,
    /// It proves wrong assertions wrong.
    pub challenger: bool,
}

/// `kedge_syncStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// Name of the network.
    pub network: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the consensus parameters.
    pub params_hash: B256,
    /// What this node takes part in.
    pub roles: Roles,
    /// The newest block: from the sequencer, or derived.
    pub latest: HeadStatus,
    /// The newest block derived from Bitcoin.
    pub safe: HeadStatus,
    /// The newest block whose batch is final on Bitcoin.
    pub finalized: HeadStatus,
    /// The newest block that a settled assertion covers.
    pub settled: HeadStatus,
    /// The Bitcoin block up to which the chain is derived.
    pub l1_tip: L1BlockId,
    /// The tip of Bitcoin that this node knows of.
    pub l1_best: L1BlockId,
    /// Whether `l1_tip` is `l1_best`.
    pub synced: bool,
    /// Batches on Bitcoin so far.
    pub batches: u64,
    /// The newest batch.
    pub last_batch: Option<BatchStatus>,
    /// The nodes that this node takes `latest` from.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
}

/// A node that blocks are taken from before Bitcoin has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its address, without path, user and password; with `#2`, `#3`, … where that is another source's too.
    pub url: String,
    /// Whether it takes part now.
    pub connected: bool,
    /// The number of the last signed block that came from it.
    pub latest: Option<u64>,
    /// Why it was given up last, unless a block was taken from it since.
    pub problem: Option<String>,
    /// What became of its blocks and of the connection, as [`crate::stream::Verdict::label`] names it, with how
    /// often.
    pub verdicts: BTreeMap<String, u64>,
}

/// A batch on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// Its index.
    pub index: u64,
    /// The reveals of its chunks.
    pub txids: Vec<Txid>,
    /// The Bitcoin block that completed it.
    pub l1: L1BlockId,
    /// Its first L2 block, when any was taken from it.
    pub first: Option<u64>,
    /// Its last L2 block, when any was taken from it.
    pub last: Option<u64>,
    /// Why nothing was taken from it, when nothing was.
    pub dropped: Option<String>,
}

/// `kedge_batches`: which ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchFilter {
    /// The highest index; the newest when absent.
    #[serde(default)]
    pub last: Option<u64>,
    /// How many at most; 100 when absent, and never more than 1,000.
    #[serde(default)]
    pub count: Option<u64>,
}

/// The furthest head that a block is at or below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeadKind {
    /// The sequencer's word.
    Latest,
    /// Derived from Bitcoin.
    Safe,
    /// Its batch is final on Bitcoin.
    Finalized,
    /// A settled assertion covers it.
    Settled,
}

/// `kedge_block`: where an L2 block stands on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockStatus {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time, Unix seconds.
    pub timestamp: u64,
    /// Output root after it.
    pub output_root: B256,
    /// Its L1 origin.
    pub l1_origin: L1BlockId,
    /// How many blocks of the same origin precede it.
    pub sequence_number: u64,
    /// Indices of what was listed for it and is not in it.
    pub skipped: Vec<u32>,
    /// The furthest head that it is at or below.
    pub head: HeadKind,
    /// The Bitcoin block from which on it is derived; none while only the sequencer says it.
    pub derived_in: Option<L1BlockId>,
    /// Confirmations of that Bitcoin block; 1 is the tip.
    pub confirmations: u32,
    /// The batch that it is from; none for one that derivation made by itself.
    pub batch: Option<u64>,
    /// The first assertion that this node agrees with and that covers it.
    pub assertion: Option<B256>,
    /// The Bitcoin block that settles the assertion unless it is proven wrong.
    pub settles_at: Option<u32>,
}

/// `kedge_bridgeStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeStatus {
    /// The vault's address.
    pub vault: String,
    /// The vault's script.
    pub vault_script: ScriptBuf,
    /// The vault output that the next payout spends.
    pub head: Option<OutPoint>,
    /// All that the vault holds.
    pub vault_sats: u64,
    /// Unspent vault outputs.
    pub vault_outputs: u64,
    /// What exists on L2 at `latest`.
    pub supply_sats: u64,
    /// Queued withdrawals that are still to be paid.
    pub queued_sats: u64,
    /// What the vault holds beyond both.
    pub surplus_sats: u64,
    /// Whether the vault covers supply and queue.
    pub solvent: bool,
    /// Smaller deposits are not credited.
    pub min_deposit_sats: u64,
    /// Smaller withdrawals are refused.
    pub min_withdrawal_sats: u64,
    /// Number of deposits so far.
    pub deposit_count: u64,
    /// Vault outputs that name no recipient.
    pub unattributed_count: u64,
    /// Number of withdrawals queued so far.
    pub withdrawal_count: u64,
    /// Index of the next withdrawal to be paid.
    pub next_payout: u64,
    /// The newest deposits, newest first.
    pub deposits: Vec<DepositStatus>,
    /// The newest withdrawals, newest first.
    pub withdrawals: Vec<WithdrawalStatus>,
}

/// How far a deposit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DepositStage {
    /// On Bitcoin; the L2 block that credits it is still to come.
    Confirmed,
    /// In an L2 block.
    Credited,
}

/// A deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepositStatus {
    /// The vault output that pays it.
    pub outpoint: OutPoint,
    /// Who is credited.
    pub recipient: Address,
    /// How much.
    pub amount_sats: u64,
    /// The Bitcoin block with the output.
    pub l1: L1BlockId,
    /// The L2 transaction that credits it.
    pub transaction: B256,
    /// The L2 block that credits it.
    pub block: Option<u64>,
    /// How far it is.
    pub stage: DepositStage,
}

/// How far a withdrawal is. Each stage includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WithdrawalStage {
    /// In an L2 block.
    Queued,
    /// Its batch is on Bitcoin.
    Safe,
    /// An assertion that this node agrees with covers it.
    Asserted,
    /// That assertion is settled.
    Settled,
    /// Bitcoin paid it.
    Paid,
}

/// A withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithdrawalStatus {
    /// Its place in the queue.
    pub index: u64,
    /// Who withdrew.
    pub sender: Address,
    /// The Bitcoin script that is paid.
    pub script: ScriptBuf,
    /// The same as an address.
    pub address: Option<String>,
    /// What is paid.
    pub amount_sats: u64,
    /// What it paid for the payout.
    pub fee_sats: u64,
    /// The L2 block that queued it.
    pub block: u64,
    /// The L2 transaction that queued it.
    pub transaction: B256,
    /// How far it is.
    pub stage: WithdrawalStage,
    /// The Bitcoin block that settles it unless it is proven wrong, once asserted.
    pub settles_at: Option<u32>,
    /// The Bitcoin output that paid it.
    pub payout: Option<OutPoint>,
    /// The Bitcoin block that paid it.
    pub paid_in: Option<L1BlockId>,
}

/// `kedge_withdrawals`: which ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithdrawalFilter {
    /// The first index; 0 when absent.
    #[serde(default)]
    pub from: Option<u64>,
    /// How many at most; 100 when absent, and never more than 1,000.
    #[serde(default)]
    pub count: Option<u64>,
    /// Only of this sender.
    #[serde(default)]
    pub sender: Option<Address>,
}

/// What became of an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AssertionStage {
    /// In its challenge window.
    Proposed,
    /// So it is, and a proof against it has begun on Bitcoin.
    Challenged,
    /// Past it.
    Settled,
    /// Proven wrong, or an assertion that it continues was.
    Rejected,
}

/// `kedge_assertions`: an assertion that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssertionStatus {
    /// Its id.
    pub id: B256,
    /// The assertion that it continues; zero is the genesis.
    pub parent: B256,
    /// The assertions that continue it, in the order of their confirmation.
    pub children: Vec<B256>,
    /// The other assertions that continue its parent.
    pub competing: Vec<B256>,
    /// Whether it is on the best branch: it is the furthest assertion that this node agrees with, which a
    /// proposer continues, or an ancestor of it.
    pub best: bool,
    /// The Bitcoin block at whose end its last claim holds.
    pub l1: L1BlockId,
    /// Claim hashes, one per segment since its parent.
    pub claims: Vec<B256>,
    /// Height of the Bitcoin block that confirmed it.
    pub confirmed_at: u32,
    /// Height of the Bitcoin block that settles it unless it is proven wrong before.
    pub deadline: u32,
    /// Bitcoin blocks until the deadline, while it can be proven wrong.
    pub blocks_left: Option<u32>,
    /// About how many seconds that takes, by the latest intervals between Bitcoin blocks.
    pub seconds_left: Option<u64>,
    /// What became of it.
    pub stage: AssertionStage,
    /// Height of the Bitcoin block that settled it.
    pub settled_at: Option<u32>,
    /// Proofs against it of which Bitcoin has some chunks and not all.
    pub proofs: Vec<ProofProgress>,
    /// Height of the Bitcoin block that rejected it.
    pub rejected_at: Option<u32>,
    /// The segment that was proven wrong. None when it fell with its parent, like the next four.
    pub rejected_segment: Option<u32>,
    /// What is wrong in that segment: `output_root`, `segment_boundary`, `block_number`, `derive_state`,
    /// `l1_block`, `missing_segments` or `extra_segments`.
    pub rejected_for: Option<String>,
    /// Whom its bond pays, x-only key.
    pub challenger: Option<B256>,
    /// Height of the Bitcoin block with the last commit transaction of that proof, by which it has priority.
    pub committed_at: Option<u32>,
    /// The Bitcoin transaction that completed that proof.
    pub proof_txid: Option<Txid>,
    /// Whether it and all before it equal this node's own derivation.
    pub agrees: bool,
    /// The first segment that differs from this node's own derivation. None when none does, and when what it
    /// continues is wrong already.
    pub wrong_segment: Option<u32>,
    /// Its bond.
    pub bond: OutPoint,
    /// What the bond holds.
    pub bond_sats: u64,
    /// Who has the bond.
    pub bond_stage: BondStage,
    /// The Bitcoin transaction that spent the bond.
    pub bond_txid: Option<Txid>,
    /// The Bitcoin block with that transaction.
    pub bond_spent_in: Option<L1BlockId>,
    /// To whom the bond returns, x-only key.
    pub proposer: B256,
}

/// A fraud proof of several chunks that is not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofProgress {
    /// Who publishes it, x-only key.
    pub challenger: B256,
    /// Its chunks on Bitcoin.
    pub seen: u32,
    /// How many it has.
    pub total: u32,
    /// Height of the Bitcoin block with its first chunk.
    pub opened: u32,
}

/// Who has a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BondStage {
    /// Nobody yet: it is unspent.
    Locked,
    /// Its proposer.
    Returned,
    /// The challenger who proved its assertion wrong.
    Slashed,
    /// Whomever the signers gave it to instead.
    Seized,
}

/// What `kedge_subscribe` can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topic {
    /// Every change of an assertion, as [`AssertionUpdate`].
    Assertions,
    /// Every new block that the sequencer signed, as [`crate::stream::SignedBlock`].
    SignedBlocks,
}

/// What `kedge_subscribe("assertions")` pushes. That a block passed without touching an assertion is no
/// change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssertionUpdate {
    /// The Bitcoin block as of which it is so.
    pub l1_tip: L1BlockId,
    /// What happened.
    pub change: AssertionChange,
    /// The assertion, as it was before when it was removed.
    pub assertion: AssertionStatus,
}

/// What happened to an assertion. When Bitcoin takes blocks back, the same happens backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AssertionChange {
    /// It counts from now on.
    Added,
    /// It, its bond or proofs against it.
    Changed,
    /// Bitcoin took the block back that confirmed it.
    Removed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_genesis::L1Height;

    #[test]
    fn bitcoin_hashes_are_shown_as_bitcoin_shows_them() {
        let mut hash = [0; 32];
        hash[31] = 0xab;
        let at = L1Ref { height: L1Height(7), hash: hash.into() };
        let json = serde_json::to_value(L1BlockId::from(at)).expect("plain data");
        assert_eq!(json["height"], 7);
        assert_eq!(json["hash"], format!("ab{}", "00".repeat(31)));
    }

    #[test]
    fn withdrawal_stages_are_ordered() {
        assert!(WithdrawalStage::Queued < WithdrawalStage::Safe);
        assert!(WithdrawalStage::Safe < WithdrawalStage::Asserted);
        assert!(WithdrawalStage::Asserted < WithdrawalStage::Settled);
        assert!(WithdrawalStage::Settled < WithdrawalStage::Paid);
    }
}
