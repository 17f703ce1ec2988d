//! `kedge_*`: heads, bridge, withdrawals, assertions.

use super::{
    assertions,
    chain::{Chain, View},
    error::RpcError,
    types::{
        AssertionStatus, BatchStatus, BridgeStatus, DepositStage, DepositStatus, HeadStatus, Roles,
        SyncStatus, WithdrawalFilter, WithdrawalStage, WithdrawalStatus,
    },
};
use crate::{engine::EngineError, stream::Follower};
use alloy_primitives::{B256, Bytes};
use anyhow::Context as _;
use bitcoin::{Address, OutPoint};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
};
use kedge_genesis::{BitcoinNetwork, L2Number};
use kedge_store::{AssertionRow, BatchRow, DepositRow, L1Rows, L2Rows, QueuedWithdrawal};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most withdrawals of one answer.
const MAX_WITHDRAWALS: usize = 1_000;
/// Bitcoin blocks that a healthy node may be behind.
const BEHIND: u32 = 6;
/// Deposits and withdrawals that `kedge_bridgeStatus` lists.
const NEWEST: usize = 20;

/// `kedge_*`.
#[rpc(server, client, namespace = "kedge")]
pub trait KedgeApi {
    /// Heads, L1 tip and sync state.
    #[method(name = "syncStatus", blocking)]
    fn sync_status(&self) -> RpcResult<SyncStatus>;

    /// The vault, what it owes, the newest deposits and withdrawals.
    #[method(name = "bridgeStatus", blocking)]
    fn bridge_status(&self) -> RpcResult<BridgeStatus>;

    /// Withdrawals in the order of the queue.
    #[method(name = "withdrawals", blocking)]
    fn withdrawals(&self, filter: Option<WithdrawalFilter>) -> RpcResult<Vec<WithdrawalStatus>>;

    /// Assertions that count, in the order of their confirmation.
    #[method(name = "assertions", blocking)]
    fn assertions(&self) -> RpcResult<Vec<AssertionStatus>>;

    /// The bytes of the proof that an assertion is wrong, or with `segment` about that segment, checked by
    /// nobody yet: verify it before relying on it. Refused with the reason when there is none.
    #[method(name = "buildProof")]
    async fn build_proof(&self, assertion: B256, segment: Option<u32>) -> RpcResult<Bytes>;

    /// True when the node answers from its store, and is no more than six blocks behind Bitcoin.
    #[method(name = "health")]
    fn health(&self) -> RpcResult<bool>;
}

/// Implements [`KedgeApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Kedge {
    pub(super) chain: Arc<Chain>,
    roles: Roles,
    follower: Option<Arc<Follower>>,
    /// Building a proof executes a segment: one at a time, the others wait.
    proving: Arc<Semaphore>,
}

impl Kedge {
    pub(super) fn new(chain: Arc<Chain>, roles: Roles, follower: Option<Arc<Follower>>) -> Self {
        Self { chain, roles, follower, proving: Arc::new(Semaphore::new(1)) }
    }
}

#[async_trait]
impl KedgeApiServer for Kedge {
    fn sync_status(&self) -> RpcResult<SyncStatus> {
        let view = self.chain.view();
        let heads = self.chain.engine.heads();
        let params = self.chain.params;
        let last_batch = view.reader.latest_batches(1).map_err(RpcError::from)?.pop();
        Ok(SyncStatus {
            network: params.network.name().to_owned(),
            chain_id: params.chain_id,
            params_hash: params.hash(),
            roles: self.roles,
            latest: view.head(heads.latest.number)?,
            safe: view.head(heads.safe.number)?,
            finalized: view.head(heads.finalized.number)?,
            settled: view.head(heads.settled.number)?,
            l1_tip: heads.l1_tip.into(),
            l1_best: heads.l1_best.into(),
            synced: heads.l1_tip.height >= heads.l1_best.height,
            batches: last_batch.as_ref().map_or(0, |batch| batch.index.saturating_add(1)),
            last_batch: last_batch.map(batch_status),
            sources: self.follower.as_ref().map(|it| it.status()).unwrap_or_default(),
        })
    }

    fn bridge_status(&self) -> RpcResult<BridgeStatus> {
        Ok(self.bridge()?)
    }

    fn withdrawals(&self, filter: Option<WithdrawalFilter>) -> RpcResult<Vec<WithdrawalStatus>> {
        let filter = filter.unwrap_or_default();
        let count = filter.count.map_or(100, |count| count.min(MAX_WITHDRAWALS as u64)) as usize;
        let mut rows = self
            .chain
            .view()
            .reader
            .withdrawals_from(filter.from.unwrap_or_default(), MAX_WITHDRAWALS)
            .map_err(RpcError::from)?;
        if let Some(sender) = filter.sender {
            rows.retain(|row| row.sender == sender);
        }
        rows.truncate(count);
        Ok(self.withdrawal_statuses(rows)?)
    }

    fn assertions(&self) -> RpcResult<Vec<AssertionStatus>> {
        Ok(assertions::list(&self.chain)?.1)
    }

    async fn build_proof(&self, assertion: B256, segment: Option<u32>) -> RpcResult<Bytes> {
        let closed = |error: tokio::sync::AcquireError| RpcError::Internal(error.into());
        let permit = self.proving.clone().acquire_owned().await.map_err(closed)?;
        let engine = self.chain.engine.clone();
        let built = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let proof = engine.prove(assertion, segment)?;
            Ok::<_, EngineError>(proof.map(|proof| Bytes::from(proof.encode())))
        });
        let built = built.await.map_err(|error| RpcError::Internal(error.into()))?;
        Ok(built.map_err(RpcError::from)?.map_err(RpcError::from)?)
    }

    fn health(&self) -> RpcResult<bool> {
        self.chain.view().latest()?;
        let heads = self.chain.engine.heads();
        let (at, best) = (heads.l1_tip.height, heads.l1_best.height);
        if best.since(at) > BEHIND {
            let text = format!("catching up with Bitcoin: at block {at} of {best}");
            return Err(RpcError::Unavailable(text).into());
        }
        Ok(true)
    }
}

impl View<'_> {
    fn head(&self, number: L2Number) -> Result<HeadStatus, RpcError> {
        // A reorg between the two reads may have shortened the chain.
        let number = number.min(self.latest()?);
        let header = self.header(number)?;
        let info = self.reader.block_info(number)?.context("block without info")?;
        Ok(HeadStatus {
            number: number.0,
            hash: self.hash(number)?,
            state_root: header.state_root,
            output_root: info.output_root,
            timestamp: header.timestamp,
            l1_origin: info.cursor.origin.into(),
        })
    }
}

impl Kedge {
    fn bridge(&self) -> Result<BridgeStatus, RpcError> {
        let view = self.chain.view();
        let reader = &view.reader;
        let params = self.chain.params;
        let tip = reader.l1_tip()?.context("no L1 block is processed")?;
        let state = reader.derive_state(tip.height)?.context("the L1 tip has no derive state")?;
        let script = state.vault.current.clone();
        let solvency = reader.solvency()?;
        let (l1, l2) = (reader.l1_sums()?, reader.l2_sums()?);
        let newest = l2.withdrawals.saturating_sub(NEWEST as u64);
        let mut withdrawals = self.withdrawal_statuses(reader.withdrawals_from(newest, NEWEST)?)?;
        withdrawals.reverse();
        Ok(BridgeStatus {
            vault: address(&script, params.bitcoin).unwrap_or_default(),
            vault_script: script,
            head: state.vault_head,
            vault_sats: solvency.vault.0,
            vault_outputs: reader.vault_utxos()?.len() as u64,
            supply_sats: solvency.supply.0,
            queued_sats: solvency.queued.0,
            surplus_sats: solvency.surplus().0,
            solvent: solvency.holds(),
            min_deposit_sats: params.min_deposit.0,
            min_withdrawal_sats: params.min_withdrawal.0,
            deposit_count: l1.deposits,
            unattributed_count: l1.unattributed,
            withdrawal_count: l2.withdrawals,
            next_payout: l1.next_payout,
            deposits: reader
                .latest_deposits(NEWEST)?
                .into_iter()
                .map(|row| deposit_status(&view, row))
                .collect::<Result<_, _>>()?,
            withdrawals,
        })
    }

    pub(super) fn withdrawal_statuses(
        &self,
        rows: Vec<QueuedWithdrawal>,
    ) -> Result<Vec<WithdrawalStatus>, RpcError> {
        let view = self.chain.view();
        let heads = self.chain.engine.heads();
        let asserted = covered_blocks(&view, &view.reader.assertions()?)?;
        rows.into_iter()
            .map(|row| {
                let payout = view.reader.payout(row.index)?;
                let covering = asserted.iter().find(|(last, _)| row.block <= *last);
                let stage = if payout.is_some() {
                    WithdrawalStage::Paid
                } else if row.block <= heads.settled.number {
                    WithdrawalStage::Settled
                } else if covering.is_some() {
                    WithdrawalStage::Asserted
                } else if row.block <= heads.safe.number {
                    WithdrawalStage::Safe
                } else {
                    WithdrawalStage::Queued
                };
                Ok(WithdrawalStatus {
                    index: row.index,
                    sender: row.sender,
                    address: address(&row.script, self.chain.params.bitcoin),
                    script: row.script,
                    amount_sats: row.amount.0,
                    fee_sats: row.fee.0,
                    block: row.block.0,
                    transaction: row.transaction,
                    stage,
                    settles_at: covering.map(|(_, deadline)| *deadline),
                    payout: payout
                        .as_ref()
                        .map(|paid| OutPoint { txid: paid.txid, vout: paid.vout }),
                    paid_in: payout.map(|paid| paid.l1.into()),
                })
            })
            .collect()
    }
}

/// Per assertion that this node agrees with: the last L2 block that it covers and the L1 height that
/// settles it, in ascending order.
fn covered_blocks(
    view: &View<'_>,
    assertions: &[AssertionRow],
) -> Result<Vec<(L2Number, u32)>, RpcError> {
    let mut covered = Vec::new();
    for row in assertions.iter().filter(|row| row.agrees) {
        covered.push((view.reader.safe_at(row.l1.height)?, row.deadline.0));
    }
    covered.sort_unstable();
    Ok(covered)
}

pub(super) fn deposit_status(view: &View<'_>, row: DepositRow) -> Result<DepositStatus, RpcError> {
    let block = view.reader.transaction_place(row.transaction)?.map(|(number, _)| number.0);
    Ok(DepositStatus {
        outpoint: row.outpoint,
        recipient: row.recipient,
        amount_sats: row.amount.0,
        l1: row.l1.into(),
        transaction: row.transaction,
        block,
        stage: if block.is_some() { DepositStage::Credited } else { DepositStage::Confirmed },
    })
}

pub(super) fn batch_status(row: BatchRow) -> BatchStatus {
    BatchStatus {
        index: row.index,
        txids: row.txids,
        l1: row.l1.into(),
        first: row.blocks.map(|(first, _)| first.0),
        last: row.blocks.map(|(_, last)| last.0),
        dropped: row.dropped,
    }
}

/// The address of a script, when it has one.
fn address(script: &bitcoin::Script, network: BitcoinNetwork) -> Option<String> {
    let network = match network {
        BitcoinNetwork::Regtest => bitcoin::Network::Regtest,
        BitcoinNetwork::Signet => bitcoin::Network::Signet,
        BitcoinNetwork::Main => bitcoin::Network::Bitcoin,
    };
    Address::from_script(script, network).ok().map(|address| address.to_string())
}
