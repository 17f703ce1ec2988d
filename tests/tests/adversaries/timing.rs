//! Windows, reorganisations, and people who are faster.

use crate::Result;
use alloy_primitives::B256;
use anyhow::{Context, bail, ensure};
use bitcoin::Transaction;
use kedge::challenger::ChallengerEvent;
use kedge_bridge::envelope::{Kind, envelopes};
use kedge_fraud_proof::{AssertionEvent, AssertionStatus, FraudKind, ProofIgnored, Rejection};
use kedge_genesis::L1Height;
use kedge_tests::adversary::{Arena, End, Ground, Hand, Lie, key};

/// A wrong and a right assertion in one block, and a proof by hand that is not published yet.
struct Case {
    arena: Arena,
    wrong: B256,
    right: B256,
    /// The reveals of both assertions and what they spend.
    assertions: Vec<Transaction>,
    segment: usize,
    proof: Hand,
    deadline: L1Height,
}

impl Case {
    async fn new(ground: Ground) -> Result<Self> {
        Self::of(Arena::busy(ground).await?).await
    }

    /// With a finality that leaves room for reorganisations.
    async fn reorganised(ground: Ground) -> Result<Self> {
        Self::of(Arena::busy_with(ground, |params| params.finality_depth = 6).await?).await
    }

    async fn of(mut arena: Arena) -> Result<Self> {
        let Lie { body, segment, .. } = arena.lie_about(arena.engine.heads().finalized.number)?;
        let (wrong, one) = arena.assertion(&key("liar"), &body)?;
        let (right, two) = arena.assertion(&key("proposer"), &arena.truth()?)?;
        let assertions = [one.all(), two.all()].concat();
        arena.mine(&assertions).await?;
        let proof = arena.prove(&arena.challenger(), wrong)?;
        let deadline = arena.node(wrong)?.deadline;
        Ok(Self { arena, wrong, right, assertions, segment, proof, deadline })
    }

    fn rejected(&self) -> End {
        End::rejected(self.segment, FraudKind::OutputRoot, &self.arena.challenger())
    }

    /// The proof that the wrong assertion's bond pays for now.
    fn rejection(&self) -> Result<Option<Rejection>> {
        Ok(match self.arena.node(self.wrong)?.status {
            AssertionStatus::Rejected { proof, .. } => proof,
            _ => None,
        })
    }

    async fn ends_rejected(mut self) -> Result {
        self.arena.mine_past_deadlines().await?;
        let ends = [(self.wrong, self.rejected()), (self.right, End::Settled)];
        self.arena.ends(&ends).await?;
        self.arena.bonds_pay(&ends).await
    }
}

/// The proof is in the very block in which the assertion would settle.
pub(crate) async fn proof_in_last_block_of_window(ground: Ground) -> Result {
    let mut case = Case::new(ground).await?;
    case.arena.mine(std::slice::from_ref(&case.proof.commit)).await?;
    case.arena.mine_until(L1Height(case.deadline.0 - 1)).await?;
    ensure!(case.arena.node(case.wrong)?.is_open());
    let events = case.arena.mine(&case.proof.reveals).await?;
    assert_eq!(case.arena.tip(), case.deadline);
    let [
        AssertionEvent::Rejected { id: rejected, proof: Some(_) },
        AssertionEvent::Settled { id: settled, agrees: true },
    ] = events[..]
    else {
        bail!("{events:?}")
    };
    assert_eq!((rejected, settled), (case.wrong, case.right));
    case.ends_rejected().await
}

/// A block later it is too late: the wrong assertion has settled. That is an alarm, and all that it is: the
/// settled head is the honest assertion, and goes on from there.
pub(crate) async fn proof_one_block_after_window(ground: Ground) -> Result {
    let mut case = Case::new(ground).await?;
    case.arena.mine(std::slice::from_ref(&case.proof.commit)).await?;
    let events = case.arena.mine_until(case.deadline).await?;
    let settled = [(case.wrong, false), (case.right, true)]
        .map(|(id, agrees)| AssertionEvent::Settled { id, agrees });
    assert_eq!(events, settled);
    let events = case.arena.mine(&case.proof.reveals).await?;
    let [AssertionEvent::ProofIgnored { reason: ProofIgnored::Closed, .. }] = events[..] else {
        bail!("{events:?}")
    };
    let mut arena = case.arena;
    let next = arena.truth()?;
    assert_eq!(next.parent, case.right);
    let (later, hand) = arena.assertion(&key("proposer"), &next)?;
    arena.mine(&hand.all()).await?;
    arena.mine_past_deadlines().await?;
    let ends = [End::SettledWrongly, End::Settled, End::Settled];
    let ids = [case.wrong, case.right, later];
    arena.ends(&ids.into_iter().zip(ends).collect::<Vec<_>>()).await
}

/// The proof's reveal, then its commit too, then both for so long that the wrong assertion settles, are in
/// blocks that Bitcoin takes back. What counts is the chain that remains, each time.
pub(crate) async fn proof_reorged_out(ground: Ground) -> Result {
    let mut case = Case::reorganised(ground).await?;
    let asserted = case.arena.tip();
    case.arena.mine(std::slice::from_ref(&case.proof.commit)).await?;
    case.arena.mine(&case.proof.reveals).await?;
    let at = |case: &Case| -> Result<_> {
        Ok(case
            .rejection()?
            .map(|proof| (proof.committed.since(asserted), proof.reveal.height.since(asserted))))
    };
    assert_eq!(at(&case)?, Some((1, 2)));

    case.arena.take_back(1).await?;
    ensure!(case.arena.node(case.wrong)?.is_open(), "nothing proves it wrong any more");
    case.arena.mine(&[]).await?;
    case.arena.mine_waiting().await?;
    assert_eq!(at(&case)?, Some((1, 3)));

    case.arena.take_back(3).await?;
    ensure!(case.arena.node(case.wrong)?.is_open(), "nothing proves it wrong any more");
    case.arena.mine(&[]).await?;
    case.arena.mine_waiting().await?;
    assert_eq!(at(&case)?, Some((2, 2)));
    case.arena.fresh_node_agrees().await?;

    case.arena.take_back(1).await?;
    case.arena.mine_until(case.deadline).await?;
    ensure!(matches!(case.arena.node(case.wrong)?.status, AssertionStatus::Settled { .. }));
    case.arena.fresh_node_agrees().await?;
    case.arena.take_back(2).await?;
    ensure!(case.arena.node(case.wrong)?.is_open(), "its deadline has not come");
    case.arena.mine_waiting().await?;
    assert_eq!(at(&case)?, Some((5, 5)));
    case.ends_rejected().await
}

/// The assertions' block is taken back while a proof is under way: first they come back a block later and the
/// proof holds, then the proof comes before them and does nothing, and another has to be made.
pub(crate) async fn assertion_reorged_out(ground: Ground) -> Result {
    let mut case = Case::reorganised(ground).await?;
    let asserted = case.arena.tip();
    case.arena.mine(std::slice::from_ref(&case.proof.commit)).await?;
    case.arena.take_back(2).await?;
    case.arena.ends(&[]).await?;
    case.arena.mine(&[]).await?;
    case.arena.mine_waiting().await?;
    let node = case.arena.node(case.wrong)?;
    assert_eq!((node.confirmed_at, node.deadline), (asserted.next(), case.deadline.next()));
    case.arena.mine(&case.proof.reveals).await?;
    assert_eq!(case.rejection()?.map(|proof| proof.committed), Some(asserted.next()));

    case.arena.take_back(3).await?;
    case.arena.ends(&[]).await?;
    let events = case.arena.mine(&case.proof.all()).await?;
    let [AssertionEvent::ProofIgnored { reason: ProofIgnored::Unknown, .. }] = events[..] else {
        bail!("{events:?}")
    };
    case.arena.mine(&case.assertions).await?;
    ensure!(case.arena.node(case.wrong)?.is_open(), "a proof before the assertion counts");
    case.arena.challenge().await?;
    case.ends_rejected().await
}

/// The honest challenger's reveal waits in the mempool; somebody copies the proof and bribes a miner to have
/// his first. The challenger goes on all the same: the bond pays whoever committed first.
pub(crate) async fn proof_copied_by_front_runner(ground: Ground) -> Result {
    let mut case = Case::new(ground).await?;
    let (challenger, _) = case.arena.open_challenger()?;
    challenger.step().await?;
    case.arena.mine_waiting().await?;
    let committed = case.arena.tip();
    let events = challenger.step().await?;
    let revealed = events.iter().find_map(|event| match event {
        ChallengerEvent::Revealed { txids, .. } => Some(txids.clone()),
        _ => None,
    });
    let revealed = revealed.context("the proof is not revealed after its commit")?;
    for txid in &revealed {
        ensure!(case.arena.client().in_mempool(txid).await?, "it does not wait");
    }
    let copier = key("copier");
    let proof = case.arena.proof_of(case.wrong)?;
    let copy = case.arena.proof(&copier, &proof)?;
    case.arena.mine(&copy.all()).await?;
    let copied = case.arena.tip();
    let first = case.rejection()?.map(|proof| (proof.challenger, proof.committed));
    assert_eq!(first, Some((copier.x_only_public_key().0.serialize(), copied)));

    challenger.step().await?;
    case.arena.mine_waiting().await?;
    assert_eq!(case.rejection()?.map(|proof| proof.committed), Some(committed));
    // It was the very same proof.
    let mut bodies = Vec::new();
    for height in [copied, copied.next()] {
        let block = case.arena.block(height).await?;
        let found = block.txdata.iter().flat_map(envelopes);
        let proofs = found.filter(|(_, envelope)| envelope.kind == Kind::Proof);
        bodies.push(proofs.map(|(_, envelope)| envelope.body).collect::<Vec<_>>());
    }
    assert_eq!(bodies[0], bodies[1]);
    drop(challenger);
    case.ends_rejected().await
}
