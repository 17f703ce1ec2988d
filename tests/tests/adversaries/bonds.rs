//! Assertions that put nothing at stake, and bonds that somebody wants back too early.

use crate::Result;
use alloy_primitives::B256;
use anyhow::{Context, ensure};
use bitcoin::{
    Amount, FeeRate, OutPoint, Transaction, TxOut,
    key::{Keypair, Secp256k1},
};
use kedge::l1::Broadcast;
use kedge_bridge::{assertion::assertion_id, bond::Bond, envelope::Kind};
use kedge_fraud_proof::{AssertionEvent, AssertionFault, FraudKind};
use kedge_genesis::{L1Height, L2Number, Sats, params::dev_secrets};
use kedge_tests::adversary::{Arena, End, Ground, key};

const RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);

/// No bond, one that is a satoshi short, one that returns to somebody else, and one that is no bond.
pub(crate) async fn assertion_without_bond(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let (liar, other, proposer) = (key("liar"), key("other"), key("proposer"));
    let body = arena.truth()?;
    let whole = arena.params.proposer_bond;
    let short = Sats(whole.0 - 1);
    let coin = TxOut { value: Amount::from_sat(whole.0), script_pubkey: arena.purse.script() };
    let bonds =
        [None, Some(arena.bond(&liar, short)?), Some(arena.bond(&other, whole)?), Some(coin)];
    let mut txs = Vec::new();
    for bond in bonds {
        txs.extend(arena.assertion_with(&liar, &body, bond)?.1.all());
    }
    let (right, hand) = arena.assertion(&proposer, &body)?;
    txs.extend(hand.all());
    let events = arena.mine(&txs).await?;
    let (proposed, ignored) = events.split_last().context("something happened")?;
    assert_eq!(*proposed, AssertionEvent::Proposed { id: right, agrees: true });
    let is_bond = |event: &AssertionEvent| {
        matches!(event, AssertionEvent::Ignored { fault: AssertionFault::Bond, .. })
    };
    ensure!(ignored.len() == 4 && ignored.iter().all(is_bond), "{ignored:?}");
    arena.mine_past_deadlines().await?;
    arena.ends(&[(right, End::Settled)]).await
}

/// One bond for two assertions in one reveal: it serves the one at whose index it is, and never the other.
pub(crate) async fn bond_reused(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let liar = key("liar");
    let body = arena.truth()?;
    let wrong = arena.lie_about(L2Number(2))?;
    let bond = arena.bond(&liar, arena.params.proposer_bond)?;
    let parts =
        [arena.assertion_part(&wrong.body, Some(bond))?, arena.assertion_part(&body, None)?];
    let hand = arena.grouped(&liar, Kind::Assertion, &[&parts])?;
    let id = assertion_id(&OutPoint::new(hand.reveals[0].compute_txid(), 0));
    let events = arena.mine(&hand.all()).await?;
    let [
        AssertionEvent::Proposed { id: found, agrees: false },
        AssertionEvent::Ignored { input: 1, fault: AssertionFault::Bond, .. },
    ] = events[..]
    else {
        anyhow::bail!("{events:?}")
    };
    assert_eq!(found, id);
    arena.challenge().await?;
    arena.mine_past_deadlines().await?;
    let challenger = arena.challenger();
    let rejected = End::rejected(wrong.segment, FraudKind::OutputRoot, &challenger);
    arena.ends(&[(id, rejected)]).await
}

/// Neither the liar nor an honest proposer gets a bond back before its time, by the mempool or by a miner; and
/// what the signers do to a bond, though they can, changes nothing about what its assertion comes to.
pub(crate) async fn bond_spent_early(ground: Ground) -> Result {
    let mut arena = Arena::busy(ground).await?;
    let (liar, proposer) = (key("liar"), key("proposer"));
    let lie = arena.lie_about(L2Number(2))?;
    let (wrong, one) = arena.assertion(&liar, &lie.body)?;
    let (right, two) = arena.assertion(&proposer, &arena.truth()?)?;
    let (other, three) = arena.assertion(&liar, &lie.body)?;
    arena.mine(&[one.all(), two.all(), three.all()].concat()).await?;
    let confirmed = arena.tip();

    let delay = arena.params.challenge_window + u32::from(arena.params.bond_margin);
    let returns = [returned(&arena, wrong, &liar)?, returned(&arena, right, &proposer)?];
    for early in [confirmed, L1Height(confirmed.0 + delay - 2)] {
        arena.mine_until(early).await?;
        for tx in &returns {
            ensure!(
                arena.mine(std::slice::from_ref(tx)).await.is_err(),
                "a miner got it at {early}"
            );
            let told = arena.client().broadcast(tx).await?;
            let Broadcast::Rejected { reason, .. } = told else {
                anyhow::bail!("the mempool took it at {early}")
            };
            ensure!(reason.contains("non-BIP68-final"), "{reason}");
        }
        if early == confirmed {
            // Two signers spend another bond of the liar at once, and not to a challenger.
            let stolen = slashed(&arena, other)?;
            arena.mine(&[stolen]).await?;
            arena.challenge().await?;
        }
    }
    arena.mine(&[]).await?;
    arena.mine(&returns[1..]).await?;
    assert_eq!(arena.tip(), L1Height(confirmed.0 + delay));
    let bond = arena.node(right)?.bond;
    ensure!(arena.client().tx_out(&bond, true).await?.is_none(), "it did not return");
    let challenger = arena.challenger();
    let rejected = End::rejected(lie.segment, FraudKind::OutputRoot, &challenger);
    arena.ends(&[(wrong, rejected), (right, End::Settled), (other, rejected)]).await
}

/// The proposer's spend of an assertion's bond.
fn returned(arena: &Arena, id: B256, of: &Keypair) -> Result<Transaction> {
    let node = arena.node(id)?;
    let bond = Bond::of(arena.params, of.x_only_public_key().0).context("signers")?;
    bond.return_spend(node.bond, node.bond_value, arena.purse.script(), RATE, of)
        .context("it pays for itself")
}

/// Two signers' spend of a liar's bond to himself.
fn slashed(arena: &Arena, id: B256) -> Result<Transaction> {
    let node = arena.node(id)?;
    let proposer = bitcoin::XOnlyPublicKey::from_slice(&node.proposer)?;
    let bond = Bond::of(arena.params, proposer).context("signers")?;
    let plan = bond
        .slash_spend(node.bond, node.bond_value, &proposer, RATE)
        .context("it pays for itself")?;
    let secp = Secp256k1::new();
    let shares = dev_secrets::SIGNERS[..2]
        .iter()
        .map(|secret| Ok(plan.sign(&Keypair::from_seckey_slice(&secp, secret)?)?))
        .collect::<Result<Vec<_>>>()?;
    Ok(plan.assemble(&shares)?)
}
