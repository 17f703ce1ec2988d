//! Assertions that say what is not so.

use crate::Result;
use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::SolCall;
use anyhow::{Context, bail, ensure};
use bitcoin::OutPoint;
use kedge_bridge::assertion::{AssertionBody, assertion_id};
use kedge_bridge::envelope::Kind;
use kedge_fraud_proof::{
    AssertionEvent, AssertionFault, Claim, FraudKind, first_divergence, genesis_claim,
};
use kedge_genesis::{
    L1Height, L2Number, Sats,
    abi::BitcoinBridge::{creditCall, withdrawCall},
    predeploys,
};
use kedge_tests::adversary::{Arena, End, Ground, Lie, key};
use kedge_vm::{Payload, PayloadTx, TxDeposit};

/// The true claims that an honest assertion would make now.
fn truth(arena: &Arena) -> Result<(AssertionBody, Vec<Claim>)> {
    let body = arena.truth()?;
    let claims = arena.claims(arena.params.l1_start.height, body.l1.height)?;
    ensure!(claims.len() > 8, "{} segments are too few for a scenario", claims.len());
    Ok((body, claims))
}

/// The body with one claim replaced.
fn with(body: &AssertionBody, segment: usize, claim: B256) -> AssertionBody {
    let mut body = body.clone();
    body.claims[segment] = claim;
    body
}

/// A liar's chain parts from the true one in the first segment and never comes back.
pub(crate) async fn wrong_root(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (mut body, claims) = truth(&arena)?;
    body.claims = claims
        .iter()
        .map(|claim| Claim { output_root: keccak256(claim.output_root), ..*claim }.hash())
        .collect();
    arena.overturns(vec![Lie { body, segment: 0, kind: FraudKind::OutputRoot }]).await
}

/// One root is wrong, everything after it is right again.
pub(crate) async fn wrong_root_in_middle_segment(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (body, claims) = truth(&arena)?;
    let segment = claims.len() / 2;
    let claim = Claim { output_root: B256::repeat_byte(0x0d), ..claims[segment] };
    let body = with(&body, segment, claim.hash());
    arena.overturns(vec![Lie { body, segment, kind: FraudKind::OutputRoot }]).await
}

/// Only what withdrawals would be paid by is wrong: the last claim.
pub(crate) async fn right_roots_wrong_final(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (body, claims) = truth(&arena)?;
    let segment = claims.len() - 1;
    let claim = Claim { output_root: B256::ZERO, ..claims[segment] };
    let body = with(&body, segment, claim.hash());
    arena.overturns(vec![Lie { body, segment, kind: FraudKind::OutputRoot }]).await
}

/// The right root at a block that does not have it.
pub(crate) async fn wrong_block_number(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (body, claims) = truth(&arena)?;
    let lies = [(2, 1), (claims.len() - 1, -1)].map(|(segment, by)| {
        let number = L2Number(claims[segment].number.0.wrapping_add_signed(by));
        let claim = Claim { number, ..claims[segment] };
        Lie { body: with(&body, segment, claim.hash()), segment, kind: FraudKind::BlockNumber }
    });
    arena.overturns(lies.into()).await
}

/// What everybody agrees with, put where it does not belong: a root that is true earlier, a claim repeated as
/// if the chain stood still, and a trace that goes on after its end or stops before it.
pub(crate) async fn agreed_root_at_wrong_height(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (body, claims) = truth(&arena)?;
    let end = claims.len();
    let start = genesis_claim(arena.params).context("the network has keys")?;
    let earlier = Claim { output_root: claims[3].output_root, ..claims[4] };
    let still = with(&body, 5, claims[4].hash());
    let first = with(&body, 0, start.hash());
    let mut longer = body.clone();
    longer.claims.push(claims[end - 1].hash());
    let mut shorter = body.clone();
    shorter.claims.pop();
    // A repeated claim differs in its place within the L1 block, or else in the L1 block.
    let kind = |segment: usize, claim: &Claim| {
        if claims[segment].offset == claim.offset {
            FraudKind::L1Block
        } else {
            FraudKind::SegmentBoundary
        }
    };
    let lies = vec![
        Lie { body: with(&body, 4, earlier.hash()), segment: 4, kind: FraudKind::OutputRoot },
        Lie { body: still, segment: 5, kind: kind(5, &claims[4]) },
        Lie { body: first, segment: 0, kind: kind(0, &start) },
        Lie { body: longer, segment: end, kind: FraudKind::ExtraSegments },
        Lie { body: shorter, segment: end - 1, kind: FraudKind::MissingSegments },
    ];
    arena.overturns(lies).await
}

/// A Bitcoin block that is not in the chain, one that nobody can know yet, and a right root said to be that of
/// another block.
pub(crate) async fn wrong_l1_block(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let (body, claims) = truth(&arena)?;
    let liar = key("liar");
    let mut txs = Vec::new();
    let mut orphan = body.clone();
    orphan.l1.hash = B256::repeat_byte(1);
    let mut shifted = body.clone();
    shifted.l1.height = L1Height(body.l1.height.0 - 1);
    let mut unknown = body.clone();
    unknown.l1.height = arena.tip().next();
    for body in [&orphan, &shifted, &unknown] {
        txs.extend(arena.assertion(&liar, body)?.1.all());
    }
    let events = arena.mine(&txs).await?;
    ensure!(
        events.len() == 3
            && events.iter().all(|event| matches!(
                event,
                AssertionEvent::Ignored { fault: AssertionFault::L1, .. }
            )),
        "{events:?}"
    );
    arena.ends(&[]).await?;
    // One Bitcoin block more is final by now.
    let (body, after) = truth(&arena)?;
    assert_eq!(after[..claims.len()], claims);
    let segment = after.len() - 1;
    let lies = [true, false].map(|later| {
        let true_height = after[segment].l1_height;
        let l1_height = if later { true_height.next() } else { L1Height(true_height.0 - 1) };
        let claim = Claim { l1_height, ..after[segment] };
        Lie { body: with(&body, segment, claim.hash()), segment, kind: FraudKind::L1Block }
    });
    arena.overturns(lies.into()).await
}

/// Asserts the chain that follows if the payload of block `number` were another: really executed.
async fn altered(arena: Arena, number: L2Number, alter: impl Fn(&mut Payload)) -> Result {
    let (mut body, claims) = truth(&arena)?;
    let from = arena.params.l1_start.height;
    let lies = arena.claims_if(from, body.l1.height, |payload| {
        if payload.number == number {
            alter(payload);
        }
    })?;
    body.claims = lies.iter().map(Claim::hash).collect();
    let own: Vec<B256> = claims.iter().map(Claim::hash).collect();
    let segment = claims.iter().position(|claim| claim.number >= number).context("no segment")?;
    // What follows from the altered block is another chain up to the end.
    assert_eq!(first_divergence(&own, &body.claims), u32::try_from(segment).ok());
    let roots: Vec<B256> = claims.iter().map(|claim| claim.output_root).collect();
    assert!(lies.iter().skip(segment).all(|lie| !roots.contains(&lie.output_root)));
    arena.overturns(vec![Lie { body, segment, kind: FraudKind::OutputRoot }]).await
}

/// The L2 block with the first deposit after those that funded the users.
fn deposit_block(arena: &Arena) -> Result<L2Number> {
    let mut number = L2Number(2);
    while !arena.payload(number)?.transactions.iter().any(is_credit) {
        number = number.next();
    }
    Ok(number)
}

fn is_credit(tx: &PayloadTx) -> bool {
    matches!(tx, PayloadTx::System(tx) if tx.from == predeploys::BRIDGE_DEPOSITOR)
}

/// A deposit that nobody gets.
pub(crate) async fn skipped_deposit(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let number = deposit_block(&arena)?;
    altered(arena, number, |payload| payload.transactions.retain(|tx| !is_credit(tx))).await
}

/// A deposit that nobody made.
pub(crate) async fn invented_deposit(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let (to, gas_limit) = (arena.bob.address(), arena.params.deposit_gas);
    let wei = Sats(100_000_000).to_wei();
    altered(arena, L2Number(3), |payload| {
        let deposit = TxDeposit {
            source_hash: keccak256("invented"),
            from: predeploys::BRIDGE_DEPOSITOR,
            to: predeploys::BITCOIN_BRIDGE.into(),
            mint: wei.to(),
            value: wei,
            gas_limit,
            input: creditCall { recipient: to }.abi_encode().into(),
            ..TxDeposit::default()
        };
        payload.transactions.insert(0, PayloadTx::System(deposit));
    })
    .await
}

/// A withdrawal that nobody paid for.
pub(crate) async fn invented_withdrawal(ground: Ground) -> Result {
    let arena = Arena::busy(ground).await?;
    let from = arena.bob.address();
    let wei: U256 = Sats(50_000_000).to_wei();
    let script = arena.purse.script().to_bytes();
    altered(arena, L2Number(4), |payload| {
        payload.transactions.push(PayloadTx::System(TxDeposit {
            source_hash: keccak256("invented"),
            from,
            to: predeploys::BITCOIN_BRIDGE.into(),
            mint: wei.to(),
            value: wei,
            gas_limit: 1_000_000,
            input: withdrawCall { scriptPubKey: script.clone().into() }.abi_encode().into(),
            ..TxDeposit::default()
        }));
    })
    .await
}

/// Parents that cannot be continued any more, and one that can but is not the last: an unknown one, a rejected
/// one, one that is forgotten, and the start of the chain when more is settled.
pub(crate) async fn stale_parent(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let (liar, proposer, challenger) = (key("liar"), key("proposer"), arena.challenger());
    let (body, claims) = truth(&arena)?;
    let wrong = with(&body, 1, B256::repeat_byte(1));
    let (rejected, one) = arena.assertion(&liar, &wrong)?;
    let (first, two) = arena.assertion(&proposer, &body)?;
    let unknown = AssertionBody { parent: B256::repeat_byte(7), ..body.clone() };
    let (_, three) = arena.assertion(&liar, &unknown)?;
    let events = arena.mine(&[one.all(), two.all(), three.all()].concat()).await?;
    let [_, _, AssertionEvent::Ignored { fault: AssertionFault::Parent, .. }] = events[..] else {
        bail!("{events:?}")
    };
    arena.challenge().await?;

    let next = arena.truth()?;
    assert_eq!(next.parent, first);
    let (_, one) = arena.assertion(&liar, &AssertionBody { parent: rejected, ..next.clone() })?;
    let events = arena.mine(&one.all()).await?;
    let [AssertionEvent::Ignored { fault: AssertionFault::Rejected, .. }] = events[..] else {
        bail!("{events:?}")
    };
    arena.mine_past_deadlines().await?;
    let rejection = End::rejected(1, FraudKind::OutputRoot, &challenger);
    arena.ends(&[(rejected, rejection), (first, End::Settled)]).await?;

    // Once more from the start, which is settled long ago: a lie is proven wrong there as anywhere.
    let (right, one) = arena.assertion(&proposer, &arena.truth()?)?;
    let again = with(&body, 2, Claim { output_root: B256::ZERO, ..claims[2] }.hash());
    let (wrong, two) = arena.assertion(&liar, &again)?;
    arena.mine(&[one.all(), two.all()].concat()).await?;
    arena.challenge().await?;
    arena.mine_past_deadlines().await?;
    arena
        .ends(&[
            (rejected, rejection),
            (first, End::Settled),
            (right, End::Settled),
            (wrong, End::rejected(2, FraudKind::OutputRoot, &challenger)),
        ])
        .await?;

    // Four windows after its deadline the first one is forgotten, since a settled one continues it.
    let window = arena.params.challenge_window;
    arena.mine_until(arena.node(right)?.deadline.plus(4 * window)).await?;
    let (_, one) = arena.assertion(&liar, &AssertionBody { parent: first, ..next })?;
    let events = arena.mine(&one.all()).await?;
    let [AssertionEvent::Ignored { fault: AssertionFault::Parent, .. }] = events[..] else {
        bail!("{events:?}")
    };
    arena.ends(&[(right, End::Settled)]).await
}

/// Both branches go on from one true assertion; the false one falls as a whole and the true one stays.
pub(crate) async fn fork_of_assertions(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let (liar, proposer, challenger) = (key("liar"), key("proposer"), arena.challenger());
    let (trunk, hand) = arena.assertion(&proposer, &arena.truth()?)?;
    arena.mine(&hand.all()).await?;
    arena.busy_blocks(1).await?;
    let body = arena.truth()?;
    assert_eq!(body.parent, trunk);
    let (right, one) = arena.assertion(&proposer, &body)?;
    let (wrong, two) = arena.assertion(&liar, &with(&body, 1, B256::repeat_byte(2)))?;
    arena.mine(&[two.all(), one.all()].concat()).await?;
    arena.mine(&[]).await?;

    // The liar goes on with claims that are true in themselves, twice; the honest go on as well.
    let next = arena.truth()?;
    assert_eq!(next.parent, right);
    let (child, one) = arena.assertion(&liar, &AssertionBody { parent: wrong, ..next.clone() })?;
    let (goes_on, two) = arena.assertion(&proposer, &next)?;
    arena.mine(&[one.all(), two.all()].concat()).await?;
    let after = arena.truth()?;
    let (grandchild, one) = arena.assertion(&liar, &AssertionBody { parent: child, ..after })?;
    arena.mine(&one.all()).await?;
    for id in [wrong, child, grandchild] {
        assert!(!arena.node(id)?.agrees);
    }
    arena.challenge().await?;
    arena.mine_past_deadlines().await?;
    arena
        .ends(&[
            (trunk, End::Settled),
            (wrong, End::rejected(1, FraudKind::OutputRoot, &challenger)),
            (right, End::Settled),
            (child, End::Fell),
            (goes_on, End::Settled),
            (grandchild, End::Fell),
        ])
        .await
}

/// A hundred wrong assertions in one block, in a single reveal, each with its bond and wrong in its own way.
/// Every one is proven wrong in time.
pub(crate) async fn assertion_flood(ground: Ground) -> Result {
    let mut arena = Arena::busy_with(ground, |params| params.challenge_window = 20).await?;
    let (liar, challenger) = (key("liar"), arena.challenger());
    let (body, claims) = truth(&arena)?;
    let bond = arena.bond(&liar, arena.params.proposer_bond)?;
    let mut parts = Vec::new();
    let mut segments = Vec::new();
    for number in 0..100_u8 {
        let segment = usize::from(number) % claims.len();
        let claim = Claim { output_root: keccak256([number]), ..claims[segment] };
        let lie = with(&body, segment, claim.hash());
        parts.push(arena.assertion_part(&lie, Some(bond.clone()))?);
        segments.push(segment);
    }
    let flood = arena.grouped(&liar, Kind::Assertion, &[&parts])?;
    let (right, hand) = arena.assertion(&key("proposer"), &body)?;
    let events = arena.mine(&[flood.all(), hand.all()].concat()).await?;
    assert_eq!(events.len(), 101);
    let txid = flood.reveals[0].compute_txid();
    let ids = (0..100).map(|vout| assertion_id(&OutPoint { txid, vout }));
    let rejected = segments.iter().map(|at| End::rejected(*at, FraudKind::OutputRoot, &challenger));
    let mut ends: Vec<_> = ids.zip(rejected).collect();
    ends.push((right, End::Settled));
    arena.challenge().await?;
    arena.mine_past_deadlines().await?;
    arena.ends(&ends).await?;
    arena.bonds_pay(&ends).await
}
