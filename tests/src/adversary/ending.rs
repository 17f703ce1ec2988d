//! What has to hold in the end.

use super::Arena;
use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::key::Keypair;
use kedge_fraud_proof::{AssertionNode, AssertionStatus, AssertionTracker, FraudKind, SettledHead};
use kedge_genesis::{L1Height, L1Ref};
use kedge_store::{Domain, Table};

/// What became of an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It can still be proven wrong.
    Open,
    /// It settled in the block of its deadline, and equals the honest node's derivation.
    Settled,
    /// It settled in the block of its deadline though it does not.
    SettledWrongly,
    /// It was proven wrong.
    Rejected {
        /// The segment.
        segment: u32,
        /// What is wrong in it.
        kind: FraudKind,
        /// The publisher of the proof, x-only key.
        by: [u8; 32],
    },
    /// It fell with what it continues.
    Fell,
}

impl End {
    /// Proven wrong by somebody.
    pub fn rejected(segment: usize, kind: FraudKind, by: &Keypair) -> Self {
        let segment = u32::try_from(segment).unwrap_or(u32::MAX);
        Self::Rejected { segment, kind, by: by.x_only_public_key().0.serialize() }
    }

    fn of(node: &AssertionNode) -> Self {
        match node.status {
            AssertionStatus::Proposed | AssertionStatus::Challenged => Self::Open,
            AssertionStatus::Settled { .. } if node.agrees => Self::Settled,
            AssertionStatus::Settled { .. } => Self::SettledWrongly,
            AssertionStatus::Rejected { proof: None, .. } => Self::Fell,
            AssertionStatus::Rejected { proof: Some(proof), .. } => {
                Self::Rejected { segment: proof.segment, kind: proof.kind, by: proof.challenger }
            }
        }
    }
}

impl Arena {
    /// What an assertion has come to.
    ///
    /// # Errors
    /// When the node does not count it.
    pub fn end_of(&self, id: B256) -> Result<End> {
        Ok(End::of(&self.node(id)?))
    }

    /// Checks that the node counts these assertions and no others, that each has come to this, that nothing
    /// is under way, that the settled head is the last of those that settled rightly, and that a node which
    /// reads all of it from Bitcoin at once comes to the same.
    ///
    /// # Errors
    /// When it is not so.
    pub async fn ends(&self, expected: &[(B256, End)]) -> Result<()> {
        let tracker = self.tracker()?;
        let found: Vec<_> = tracker.nodes().iter().map(|node| (node.id, End::of(node))).collect();
        ensure!(found == expected, "the assertions came to {found:#?}, not to {expected:#?}");
        ensure!(tracker.channels().is_empty(), "proofs are under way: {:?}", tracker.channels());
        let settled = self.expected_head(&tracker, expected)?;
        ensure!(
            tracker.settled() == settled,
            "{:?} is settled, not {settled:?}",
            tracker.settled()
        );
        let late = tracker.nodes().iter().find(
            |node| matches!(node.status, AssertionStatus::Settled { at } if at != node.deadline),
        );
        ensure!(late.is_none(), "it settled in another block than that of its deadline: {late:?}");
        self.fresh_node_agrees().await
    }

    fn expected_head(
        &self,
        tracker: &AssertionTracker,
        expected: &[(B256, End)],
    ) -> Result<SettledHead> {
        let start = SettledHead { id: B256::ZERO, l1: self.params.l1_start };
        let mut head = start;
        for (id, _) in expected.iter().filter(|(_, end)| *end == End::Settled) {
            let node = tracker.get(id).context("it counts")?;
            if node.l1.height > head.l1.height {
                head = SettledHead { id: *id, l1: node.l1 };
            }
        }
        Ok(head)
    }

    /// Checks that a node which reads all of Bitcoin at once has the same assertions, heads, and everything else that
    /// follows from Bitcoin blocks.
    ///
    /// # Errors
    /// When it has not.
    pub async fn fresh_node_agrees(&self) -> Result<()> {
        let (fresh, _dir) = self.fresh_node().await?;
        let (ours, theirs) = (self.tracker()?, fresh.tracker()?);
        ensure!(
            ours == theirs,
            "a fresh node sees other assertions: {theirs:#?} instead of {ours:#?}"
        );
        let (mut ours, theirs) = (self.engine.heads(), fresh.heads());
        // Only the sequencer's own node has what Bitcoin does not have yet.
        ours.latest = ours.safe;
        ensure!(ours == theirs, "a fresh node has other heads: {theirs:?} instead of {ours:?}");
        let (ours, theirs) = (self.engine.store().reader(), fresh.store().reader());
        for table in Table::ALL.iter().filter(|table| table.domain() == Domain::L1) {
            let ours = ours.all(*table).collect::<Result<Vec<_>, _>>()?;
            let theirs = theirs.all(*table).collect::<Result<Vec<_>, _>>()?;
            ensure!(ours == theirs, "a fresh node has another table {}", table.name());
        }
        Ok(())
    }

    /// The Bitcoin block at a height, as assertions name it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn l1(&self, height: L1Height) -> Result<L1Ref> {
        let hash = self.client().block_hash(height).await?.context("no such block")?;
        Ok(L1Ref { height, hash: bitcoin::hashes::Hash::to_byte_array(hash).into() })
    }
}
