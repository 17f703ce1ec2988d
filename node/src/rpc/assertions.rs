//! The tree of assertions, as an answer and as a stream of changes.

use super::{
    chain::Chain,
    error::RpcError,
    signed,
    types::{
        AssertionChange, AssertionStage, AssertionStatus, AssertionUpdate, BondStage, L1BlockId,
        ProofProgress, Topic,
    },
};
use alloy_primitives::B256;
use anyhow::Context as _;
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage,
    core::{SubscriptionResult, async_trait},
    proc_macros::rpc,
};
use kedge_fraud_proof::{AssertionTracker, OwnChain as _, first_divergence};
use kedge_genesis::{L1Height, Params};
use kedge_store::{AssertionRow, BondEnd, BondRows, L1Rows, OwnClaims, Reader, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Latest intervals between Bitcoin blocks that the time to a deadline is estimated from.
const INTERVALS: u32 = 12;
/// With fewer the estimate is what Bitcoin aims at.
const LEAST_INTERVALS: usize = 6;
/// Seconds between blocks that Bitcoin aims at.
const BITCOIN_INTERVAL: u64 = 600;

/// `kedge_subscribe` and `kedge_unsubscribe`.
#[rpc(server, client, namespace = "kedge")]
pub trait KedgeSubscribeApi {
    /// `assertions`: every change of an assertion. `signedBlocks`: every new block that the sequencer signed.
    #[subscription(
        name = "subscribe" => "subscription",
        unsubscribe = "unsubscribe",
        item = AssertionUpdate
    )]
    async fn updates(&self, topic: Topic) -> SubscriptionResult;
}

/// Implements [`KedgeSubscribeApiServer`] on the engine's heads: what changed is found by comparing, so a
/// subscriber that is slow gets the difference between what it knows and what is.
#[derive(Clone, Debug)]
pub(super) struct Updates(pub(super) Arc<Chain>);

#[async_trait]
impl KedgeSubscribeApiServer for Updates {
    async fn updates(&self, pending: PendingSubscriptionSink, topic: Topic) -> SubscriptionResult {
        if topic == Topic::SignedBlocks {
            return signed::stream(self.0.clone(), pending).await;
        }
        let mut heads = self.0.engine.watch_heads();
        let mut seen = heads.borrow_and_update().l1_tip;
        let (_, mut known) = self.list().await?;
        let sink = pending.accept().await?;
        loop {
            tokio::select! {
                () = sink.closed() => return Ok(()),
                changed = heads.changed() => changed?,
            }
            let tip = heads.borrow_and_update().l1_tip;
            if tip == seen {
                continue;
            }
            seen = tip;
            let (l1_tip, now) = self.list().await?;
            for update in updates(l1_tip, &known, &now) {
                let message =
                    SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &update)?;
                if sink.send(message).await.is_err() {
                    return Ok(());
                }
            }
            known = now;
        }
    }
}

impl Updates {
    async fn list(&self) -> anyhow::Result<(L1BlockId, Vec<AssertionStatus>)> {
        let chain = self.0.clone();
        let listed = tokio::task::spawn_blocking(move || list(&chain)).await?;
        listed.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// What it takes to come from `before` to `now`.
fn updates(
    l1_tip: L1BlockId,
    before: &[AssertionStatus],
    now: &[AssertionStatus],
) -> Vec<AssertionUpdate> {
    let by_id = |all: &[AssertionStatus]| -> BTreeMap<B256, AssertionStatus> {
        all.iter().map(|one| (one.id, one.clone())).collect()
    };
    let (known, present) = (by_id(before), by_id(now));
    let update = |change, assertion: &AssertionStatus| AssertionUpdate {
        l1_tip,
        change,
        assertion: assertion.clone(),
    };
    // Children before parents, as Bitcoin takes blocks back.
    let removed = before
        .iter()
        .rev()
        .filter(|one| !present.contains_key(&one.id))
        .map(|one| update(AssertionChange::Removed, one));
    let others = now.iter().filter_map(|one| match known.get(&one.id) {
        None => Some(update(AssertionChange::Added, one)),
        Some(other) if !same(other, one) => Some(update(AssertionChange::Changed, one)),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

/// Whether nothing happened to an assertion: time passes, and what others say is told of them.
fn same(one: &AssertionStatus, other: &AssertionStatus) -> bool {
    let own = |status: &AssertionStatus| AssertionStatus {
        blocks_left: None,
        seconds_left: None,
        children: Vec::new(),
        competing: Vec::new(),
        ..status.clone()
    };
    own(one) == own(other)
}

/// All assertions that ever counted, in the order of their confirmation, and the Bitcoin block as of which.
pub(super) fn list(chain: &Chain) -> Result<(L1BlockId, Vec<AssertionStatus>), RpcError> {
    let view = chain.view();
    let reader = &view.reader;
    let tip = reader.l1_tip()?.context("no L1 block is processed")?;
    let tree = Tree::read(reader, chain.params, tip.height)?;
    let listed = tree.rows.iter().map(|row| tree.status(reader, row)).collect::<Result<_, _>>()?;
    Ok((tip.into(), listed))
}

struct Tree<'p> {
    params: &'p Params,
    tip: L1Height,
    /// Seconds between Bitcoin blocks.
    interval: u64,
    tracker: AssertionTracker,
    rows: Vec<AssertionRow>,
    /// L1 height of each assertion.
    heights: BTreeMap<B256, L1Height>,
    /// Whether each assertion agrees.
    agreeing: BTreeSet<B256>,
    children: BTreeMap<B256, Vec<B256>>,
    best: BTreeSet<B256>,
}

impl<'p> Tree<'p> {
    fn read(reader: &Reader<'_>, params: &'p Params, tip: L1Height) -> Result<Self, StoreError> {
        let (tracker, rows) = (reader.tracker()?, reader.assertions()?);
        let heights = rows.iter().map(|row| (row.id, row.l1.height)).collect();
        let agreeing = rows.iter().filter(|row| row.agrees).map(|row| row.id).collect();
        let mut children: BTreeMap<B256, Vec<B256>> = BTreeMap::new();
        let mut parents: BTreeMap<B256, B256> = BTreeMap::new();
        for row in &rows {
            children.entry(row.parent).or_default().push(row.id);
            parents.insert(row.id, row.parent);
        }
        let mut best = BTreeSet::new();
        let mut at = tracker.best().0;
        while let Some(parent) = parents.get(&at) {
            best.insert(at);
            at = *parent;
        }
        let interval = interval(reader, tip)?;
        Ok(Self { params, tip, interval, tracker, rows, heights, agreeing, children, best })
    }

    fn status(
        &self,
        reader: &Reader<'_>,
        row: &AssertionRow,
    ) -> Result<AssertionStatus, StoreError> {
        let stage = match (row.settled_at, row.rejected_at) {
            (Some(_), _) => AssertionStage::Settled,
            (None, Some(_)) => AssertionStage::Rejected,
            (None, None) if row.challenged => AssertionStage::Challenged,
            (None, None) => AssertionStage::Proposed,
        };
        let is_open = matches!(stage, AssertionStage::Proposed | AssertionStage::Challenged);
        let blocks_left = is_open.then(|| row.deadline.since(self.tip));
        let of = |id: &B256| self.children.get(id).cloned().unwrap_or_default();
        let mut competing = of(&row.parent);
        competing.retain(|id| *id != row.id);
        let proofs = self.tracker.channels().iter().filter(|channel| channel.assertion == row.id);
        let spend = reader.bond_spend(&row.bond)?;
        let rejection = row.rejection.as_ref();
        Ok(AssertionStatus {
            id: row.id,
            parent: row.parent,
            children: of(&row.id),
            competing,
            best: self.best.contains(&row.id),
            l1: row.l1.into(),
            claims: row.claims.clone(),
            confirmed_at: row.confirmed_at.0,
            deadline: row.deadline.0,
            blocks_left,
            seconds_left: blocks_left.map(|left| u64::from(left).saturating_mul(self.interval)),
            stage,
            settled_at: row.settled_at.map(|at| at.0),
            proofs: proofs
                .map(|channel| ProofProgress {
                    challenger: B256::new(channel.publisher),
                    seen: u32::try_from(channel.chunks.len()).unwrap_or(u32::MAX),
                    total: u32::from(channel.total),
                    opened: channel.opened.0,
                })
                .collect(),
            rejected_at: row.rejected_at.map(|at| at.0),
            rejected_segment: rejection.map(|proof| proof.segment),
            rejected_for: rejection.map(|proof| proof.kind.label().to_owned()),
            challenger: rejection.map(|proof| proof.challenger),
            committed_at: rejection.map(|proof| proof.committed.0),
            proof_txid: rejection.map(|proof| proof.txid),
            agrees: row.agrees,
            wrong_segment: self.wrong_segment(reader, row)?,
            bond: row.bond,
            bond_sats: row.bond_value.0,
            bond_stage: match spend.as_ref().map(|spend| spend.end) {
                None => BondStage::Locked,
                Some(BondEnd::Returned) => BondStage::Returned,
                Some(BondEnd::Slashed) => BondStage::Slashed,
                Some(BondEnd::Seized) => BondStage::Seized,
            },
            bond_txid: spend.as_ref().map(|spend| spend.txid),
            bond_spent_in: spend.map(|spend| spend.l1.into()),
            proposer: row.proposer,
        })
    }

    fn wrong_segment(
        &self,
        reader: &Reader<'_>,
        row: &AssertionRow,
    ) -> Result<Option<u32>, StoreError> {
        let parent_is_right = row.parent.is_zero() || self.agreeing.contains(&row.parent);
        if row.agrees || !parent_is_right {
            return Ok(None);
        }
        let start = self.params.l1_start.height;
        let mut height = self.heights.get(&row.parent).copied().unwrap_or(start).next();
        let mut own = Vec::new();
        while height <= row.l1.height {
            let Some(block) = OwnClaims(reader).own_block(height)? else { return Ok(None) };
            own.extend(block.claims);
            height = height.next();
        }
        Ok(first_divergence(&own, &row.claims))
    }
}

/// Seconds between Bitcoin blocks: the median of the latest intervals. Header times may go backwards.
fn interval(reader: &Reader<'_>, tip: L1Height) -> Result<u64, StoreError> {
    let mut times = Vec::new();
    for height in tip.0.saturating_sub(INTERVALS)..=tip.0 {
        times.extend(reader.l1_row(L1Height(height))?.map(|row| row.time));
    }
    Ok(median_interval(&times))
}

fn median_interval(times: &[u32]) -> u64 {
    let mut intervals: Vec<u64> = times
        .windows(2)
        .map(|pair| match pair {
            [one, next] => u64::from(next.saturating_sub(*one)),
            _ => 0,
        })
        .collect();
    if intervals.len() < LEAST_INTERVALS {
        return BITCOIN_INTERVAL;
    }
    intervals.sort_unstable();
    intervals.get(intervals.len() / 2).copied().unwrap_or(BITCOIN_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_a_deadline_is_estimated_from_the_median_of_the_latest_intervals() {
        assert_eq!(median_interval(&[]), 600);
        assert_eq!(median_interval(&[0, 1, 2, 3, 4, 5]), 600, "too few");
        // One block took an hour, and one has an earlier time than the block before it.
        assert_eq!(median_interval(&[0, 5, 3_605, 3_600, 3_605, 3_610, 3_616, 3_621]), 5);
    }
}
