//! The publisher: what it put on disk reaches Bitcoin, once and in order, whatever becomes of it on the way.

use crate::{
    Result,
    chain::{Chain, Node, nobody, open_publisher, open_wallet, output, vb},
};
use alloy_primitives::B256;
use bitcoin::{
    Amount, Transaction, TxOut,
    key::{Keypair, Secp256k1},
};
use kedge::{
    l1::{Broadcast, MemoryRecords, RecordTable, Records},
    publisher::{FeePolicy, Part, PublicationStatus, Urgency},
    wallet::{Wallet, WalletKeys},
};
use kedge_bridge::envelope::{Kind, envelopes, sign_batch, split};
use kedge_genesis::{BitcoinNetwork, L1Height, Network, params::dev_secrets};
use std::sync::Arc;

on_all! {
    a_batch_is_published_and_survives_a_reorg
    chunks_arrive_in_order
    a_large_batch_follows_another
    an_assertions_bond_is_at_the_index_of_its_input
    nothing_is_forgotten_when_the_publisher_restarts
    a_commit_whose_coin_was_taken_back_is_made_anew
    a_reveal_that_no_block_takes_is_replaced
    a_proof_is_revealed_when_its_commit_is_confirmed
    a_proof_whose_deadline_is_near_is_revealed_at_once
    a_large_proof_is_complete_by_its_deadline_though_it_waits_for_its_commit
    a_publication_that_is_held_waits
    a_publication_under_one_name_is_made_once
    what_is_given_up_before_its_reveal_comes_back_to_the_wallet
    what_is_given_up_after_its_reveal_is_left_on_its_way
    too_little_money_for_the_rate_goes_as_far_as_it_does
    what_was_published_does_not_stay_in_the_wallet
}

async fn what_was_published_does_not_stay_in_the_wallet(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (records, wallet) = chain.wallet(1).await?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    publisher.publish(Kind::Batch, batch(0, 100_000)?).await?;
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    let kept = || -> Result<usize> {
        let rows = records.load(RecordTable::Wallet, b"")?;
        Ok(rows.iter().map(|(_, row)| row.len()).sum())
    };
    let balance = wallet.balance();
    let before = kept()?;
    assert!(before > 200_000, "hexadecimal digits of the witness");
    for (blocks, is_kept) in [(99, true), (1, false)] {
        chain.mine(blocks, &nobody()).await?;
        wallet.sync(bitcoin).await?;
        // Opening makes one record of many.
        let again = open_wallet(&records)?;
        assert_eq!(again.balance(), balance);
        assert_eq!(kept()? > 200_000, is_kept, "{} bytes", kept()?);
    }
    // The change of a reveal whose witness is gone can be spent.
    let again = open_wallet(&records)?;
    let all = Amount::from_sat(balance.confirmed.to_sat() - 10_000);
    again.send(bitcoin, &[output(all.to_sat())], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    again.sync(bitcoin).await?;
    assert!(again.balance().confirmed < Amount::from_sat(10_000));
    Ok(())
}

/// A signed batch whose body has so many bytes.
fn batch(index: u64, len: usize) -> Result<Vec<Part>> {
    let params = Network::Regtest.params();
    let body: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    let mut parts = split(Kind::Batch, params.chain_id, index, B256::ZERO, &body, params)?;
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER)?;
    sign_batch(&mut parts, &key);
    Ok(parts.into_iter().map(Part::from).collect())
}

fn confirmed(status: Option<PublicationStatus>) -> Option<L1Height> {
    status.and_then(|status| status.confirmed())
}

async fn a_batch_is_published_and_survives_a_reorg(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!(status.problem, None);
    assert!(status.commit.is_some() && status.reveals[0].txid.is_some());
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    let at = confirmed(publisher.status(id).await).expect("in the block");
    assert_eq!(at, wallet.tip());
    assert_eq!(chain.published().await?.len(), 1);

    chain.reorg(1, &nobody()).await?;
    assert_eq!(chain.published().await?.len(), 0);
    publisher.tick().await?;
    assert_eq!(confirmed(publisher.status(id).await), None);
    chain.mine(3, &nobody()).await?;
    publisher.tick().await?;
    assert_eq!(chain.published().await?.len(), 1);
    assert!(publisher.status(id).await.expect("published").is_final);
    assert!(publisher.pending().await.is_empty());
    Ok(())
}

async fn chunks_arrive_in_order(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let parts = batch(0, 3 * 390_000 - 1_000)?;
    assert_eq!(parts.len(), 3);
    let id = publisher.publish(Kind::Batch, parts).await?;
    // Three reveals of almost 100 kvB wait for their commit.
    assert_eq!(publisher.status(id).await.expect("published").reveals[0].txid, None);
    for _ in 0..3 {
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
    }
    let found: Vec<u16> = chain.published().await?.iter().map(|header| header.chunk).collect();
    assert_eq!(found, [0, 1, 2]);
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

async fn a_large_batch_follows_another(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let first = publisher.publish(Kind::Batch, batch(0, 380_000)?).await?;
    let second = publisher.publish(Kind::Batch, batch(1, 380_000)?).await?;
    for _ in 0..4 {
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
    }
    let (first, second) = (publisher.status(first).await, publisher.status(second).await);
    assert!(confirmed(first).is_some() && confirmed(second).is_some());
    let found: Vec<u64> = chain.published().await?.iter().map(|header| header.index).collect();
    assert_eq!(found, [0, 1]);
    Ok(())
}

async fn an_assertions_bond_is_at_the_index_of_its_input(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let params = Network::Regtest.params();
    let mut parts = split(Kind::Assertion, params.chain_id, 0, B256::ZERO, b"claims", params)?;
    let (header, body) = parts.remove(0);
    let bond = output(params.proposer_bond.0);
    let part = Part { header, body, output: Some(bond.clone()) };
    publisher.publish(Kind::Assertion, vec![part]).await?;
    chain.mine(1, &nobody()).await?;
    let tip = chain.bitcoin.chain_info().await?.best;
    let block = chain.bitcoin.block(&tip).await?;
    let reveal: &Transaction =
        block.txdata.iter().find(|tx| !envelopes(tx).is_empty()).expect("the reveal is in it");
    assert_eq!(envelopes(reveal)[0].0, 0);
    assert_eq!(reveal.output[0], bond);
    Ok(())
}

async fn nothing_is_forgotten_when_the_publisher_restarts(chain: Chain) -> Result {
    let (records, wallet) = chain.wallet(1).await?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let id = publisher.publish(Kind::Batch, batch(0, 500)?).await?;
    let before = publisher.status(id).await;
    drop((publisher, wallet));
    let wallet = open_wallet(&records)?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    assert_eq!(publisher.status(id).await, before);
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    assert_eq!(publisher.publish(Kind::Batch, batch(1, 500)?).await?.0, id.0 + 1);
    Ok(())
}

async fn a_commit_whose_coin_was_taken_back_is_made_anew(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (_, payer) = chain.wallet(1).await?;
    let records = Arc::new(MemoryRecords::default());
    let keys = WalletKeys::from_seed(BitcoinNetwork::Regtest, &[8; 32]);
    let network = BitcoinNetwork::Regtest;
    let wallet = Arc::new(Wallet::open(records.clone(), "w", &keys, network, L1Height(0))?);
    let coin = |value| -> Result<TxOut> {
        let script_pubkey = wallet.address()?.script_pubkey();
        Ok(TxOut { value: Amount::from_sat(value), script_pubkey })
    };
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let first = payer.send(bitcoin, &[coin(1_000_000)?], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    wallet.sync(bitcoin).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 1_000)?).await?;
    let old = publisher.status(id).await.and_then(|status| status.commit).expect("paid");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());

    // The payment, the commit and the reveal are orphaned, and the payer pays another way instead.
    chain.reorg(2, &nobody()).await?;
    payer.sync(bitcoin).await?;
    let instead = payer.bump(first.compute_txid(), vb(50))?;
    let mut other = instead.clone();
    other.output.retain(|output| output.value != Amount::from_sat(1_000_000));
    let prevouts: Vec<TxOut> = vec![TxOut {
        value: Amount::from_btc(50.0)?,
        script_pubkey: payer.address_at(0).script_pubkey(),
    }];
    payer.forget(instead.compute_txid())?;
    payer.forget(first.compute_txid())?;
    payer.sign_inputs(&mut other, &prevouts)?;
    assert_eq!(bitcoin.broadcast(&other).await?, Broadcast::Accepted);
    payer.insert(other, Vec::new())?;
    chain.mine(1, &nobody()).await?;
    payer.sync(bitcoin).await?;
    payer.send(bitcoin, &[coin(2_000_000)?], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    for _ in 0..2 {
        publisher.tick().await?;
        chain.mine(1, &nobody()).await?;
    }
    publisher.tick().await?;
    let status = publisher.status(id).await.expect("published");
    assert!(status.confirmed().is_some(), "{status:?}");
    assert_ne!(status.commit, Some(old));
    assert_eq!(chain.published().await?.len(), 1);
    Ok(())
}

async fn a_reveal_that_no_block_takes_is_replaced(chain: Chain) -> Result {
    let fees = FeePolicy { bump_after: 1, ..FeePolicy::default() };
    let (_, publisher) = chain.publisher(2, fees).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let mut seen = Vec::new();
    for round in 1..=4 {
        let status = publisher.status(id).await.expect("published");
        assert_eq!((status.problem, status.reveals[0].versions), (None, round));
        let reveal = status.reveals[0].txid.expect("signed");
        assert!(chain.bitcoin.in_mempool(&reveal).await?);
        seen.push(reveal);
        chain.reorg(0, &nobody()).await?;
        publisher.tick().await?;
    }
    for old in seen {
        assert!(!chain.bitcoin.in_mempool(&old).await?);
    }
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

/// The envelopes of a proof whose body has so many bytes.
fn proof(len: usize) -> Result<Vec<Part>> {
    let params = Network::Regtest.params();
    let body: Vec<u8> = (0..len).map(|at| u8::try_from(at % 253).unwrap_or_default()).collect();
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, &body, params)?;
    Ok(parts.into_iter().map(Part::from).collect())
}

async fn a_proof_is_revealed_when_its_commit_is_confirmed(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let by = Urgency::By(wallet.tip().plus(50));
    for urgency in [Urgency::Usual, by] {
        let name = format!("{urgency:?}");
        let id = publisher.publish_once(&name, Kind::Proof, proof(3_000)?, urgency).await?;
        publisher.tick().await?;
        let status = publisher.status(id).await.expect("published");
        assert_eq!((status.committed, status.reveals[0].txid), (None, None), "{urgency:?}");
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
        let status = publisher.status(id).await.expect("published");
        assert_eq!(status.committed, Some(wallet.tip()));
        assert!(status.reveals[0].txid.is_some());
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
        assert_eq!(confirmed(publisher.status(id).await), Some(wallet.tip()));
    }
    Ok(())
}

async fn a_proof_whose_deadline_is_near_is_revealed_at_once(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let by = Urgency::By(wallet.tip().plus(2));
    let id = publisher.publish_once("near", Kind::Proof, proof(3_000)?, by).await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!(status.problem, None);
    let (commit, reveal) = (status.commit.expect("paid"), status.reveals[0].txid.expect("signed"));
    assert!(chain.bitcoin.in_mempool(&commit).await? && chain.bitcoin.in_mempool(&reveal).await?);
    // Two blocks left: a quarter of the ceiling at least.
    let fee = status.reveals[0].fee.expect("signed");
    assert!(fee > Amount::from_sat(125 * 750), "{fee}");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert_eq!(confirmed(publisher.status(id).await), Some(wallet.tip()));
    Ok(())
}

async fn a_large_proof_is_complete_by_its_deadline_though_it_waits_for_its_commit(
    chain: Chain,
) -> Result {
    let (wallet, publisher) = chain.publisher(3, FeePolicy::default()).await?;
    let deadline = wallet.tip().plus(4);
    let parts = proof(3 * 390_000 - 1_000)?;
    let by = Urgency::By(deadline);
    let id = publisher.publish_once("large", Kind::Proof, parts, by).await?;
    // A block that takes nothing: three are left, and the commit pays more.
    let before = publisher.status(id).await.and_then(|status| status.commit).expect("paid");
    chain.reorg(0, &nobody()).await?;
    publisher.tick().await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!((status.problem, status.reveals[0].txid), (None, None));
    assert_ne!(status.commit, Some(before));
    assert!(!chain.bitcoin.in_mempool(&before).await?);
    for _ in 0..2 {
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
    }
    let at = confirmed(publisher.status(id).await).expect("in the chain");
    assert!(at < deadline, "{at}");
    let found: Vec<u16> = chain.published().await?.iter().map(|header| header.chunk).collect();
    assert_eq!(found, [0, 1, 2]);
    Ok(())
}

async fn a_publication_that_is_held_waits(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let held = Urgency::Held;
    let id = publisher.publish_once("held", Kind::Proof, proof(3_000)?, held).await?;
    let status = publisher.tick().await?.remove(0);
    assert_eq!((status.commit, status.problem), (None, None));
    let by = Urgency::By(wallet.tip().plus(20));
    publisher.urge(id, by).await?;
    publisher.tick().await?;
    chain.mine(1, &nobody()).await?;
    // Confirmed, but not to be revealed.
    publisher.urge(id, Urgency::Held).await?;
    let status = publisher.tick().await?.remove(0);
    assert_eq!((status.committed, status.reveals[0].txid), (Some(wallet.tip()), None));
    publisher.urge(id, by).await?;
    publisher.tick().await?;
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

async fn a_publication_under_one_name_is_made_once(chain: Chain) -> Result {
    let (records, wallet) = chain.wallet(2).await?;
    let mut publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let usual = Urgency::Usual;
    let id = publisher.publish_once("a", Kind::Proof, proof(500)?, usual).await?;
    for _ in 0..2 {
        assert_eq!(publisher.publish_once("a", Kind::Proof, proof(500)?, usual).await?, id);
        drop(publisher);
        publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    }
    assert_ne!(publisher.publish_once("b", Kind::Proof, proof(500)?, usual).await?, id);
    assert_eq!(publisher.pending().await.len(), 2);
    Ok(())
}

async fn what_is_given_up_before_its_reveal_comes_back_to_the_wallet(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let before = wallet.balance().confirmed;
    // One whose commit is in the mempool, one whose commit is confirmed, one of three commit outputs.
    for (confirmed_first, size) in [(false, 80_000), (true, 80_000), (true, 3 * 390_000 - 1_000)] {
        let balance = wallet.balance().confirmed;
        let id = publisher.publish(Kind::Proof, proof(size)?).await?;
        if confirmed_first {
            chain.mine(1, &nobody()).await?;
            // As the process would stop at: nothing is revealed yet.
            publisher.look().await?;
        }
        publisher.abandon(id).await?;
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
        for _ in 0..4 {
            chain.mine(1, &nobody()).await?;
            publisher.tick().await?;
        }
        let status = publisher.status(id).await.expect("remembered");
        assert_eq!((status.is_final, status.problem, status.reveals[0].txid), (true, None, None));
        let lost = balance - wallet.balance().confirmed;
        assert!(lost > Amount::ZERO && lost < Amount::from_sat(3_000), "{lost}");
    }
    assert!(chain.published().await?.is_empty());
    assert!(before - wallet.balance().confirmed < Amount::from_sat(9_000));
    Ok(())
}

async fn what_is_given_up_after_its_reveal_is_left_on_its_way(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let id = publisher.publish(Kind::Proof, proof(3_000)?).await?;
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    let reveal = publisher.status(id).await.and_then(|status| status.reveals[0].txid);
    for _ in 0..2 {
        publisher.abandon(id).await?;
        // It waits for long, and is not raised.
        for _ in 0..4 {
            chain.reorg(0, &nobody()).await?;
            publisher.tick().await?;
        }
        let status = publisher.status(id).await.expect("published");
        assert_eq!((status.reveals[0].txid, status.reveals[0].versions), (reveal, 1));
        assert!(chain.bitcoin.in_mempool(&reveal.expect("signed")).await?);
    }
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert_eq!(confirmed(publisher.status(id).await), Some(wallet.tip()));
    Ok(())
}

async fn too_little_money_for_the_rate_goes_as_far_as_it_does(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (_, payer) = chain.wallet(1).await?;
    let records = Arc::new(MemoryRecords::default());
    let network = BitcoinNetwork::Regtest;
    let keys = WalletKeys::from_seed(network, &[8; 32]);
    let wallet = Arc::new(Wallet::open(records.clone(), "w", &keys, network, L1Height(0))?);
    let script_pubkey = wallet.address()?.script_pubkey();
    payer.send(bitcoin, &[TxOut { value: Amount::from_sat(60_000), script_pubkey }], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    wallet.sync(bitcoin).await?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    // The ceiling of 500 sat/vB would cost half a million.
    let by = Urgency::By(wallet.tip().plus(1));
    let id = publisher.publish_once("poor", Kind::Proof, proof(3_000)?, by).await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!((status.problem, status.is_short), (None, true));
    let fees = status.reveals[0].fee.expect("signed") + status.commit_fee.expect("paid");
    assert!(fees > Amount::from_sat(30_000) && fees < Amount::from_sat(60_000), "{fees}");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

#[tokio::test]
async fn a_reveal_that_waits_is_replaced_by_one_that_pays_more_up_to_the_ceiling() -> Result {
    let chain = Chain::embedded()?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    let fees = FeePolicy { ceiling: vb(50), bump_after: 1, ..FeePolicy::default() };
    let (_, publisher) = chain.publisher(3, fees).await?;
    embedded.set_fee_rate(None);
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let mut paid = Vec::new();
    for round in 0..6_u32 {
        let status = publisher.status(id).await.expect("published");
        assert_eq!(status.problem, None);
        paid.push(status.reveals[0].fee.expect("signed"));
        embedded.set_fee_rate(Some(vb(20 * (round + 1))));
        // A block that took nothing from the mempool.
        let tip = embedded.tip().1;
        embedded.mine_on(tip, 1, &nobody().script_pubkey())?;
        publisher.tick().await?;
    }
    assert!(paid.windows(2).all(|pair| pair[0] <= pair[1]) && paid[0] < paid[2], "{paid:?}");
    let vsize = 3_000 / 4 + 400;
    assert!(paid.last().expect("some").to_sat() < 50 * 2 * vsize, "{paid:?}");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

#[tokio::test]
async fn what_the_mempool_lost_is_broadcast_again() -> Result {
    let chain = Chain::embedded()?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let commit = publisher.status(id).await.and_then(|status| status.commit).expect("paid");
    embedded.evict(&commit);
    assert!(embedded.pool_txids().is_empty());
    publisher.tick().await?;
    assert_eq!(embedded.pool_txids().len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_a_reorg_orphaned_comes_back_in_order() -> Result {
    let chain = Chain::embedded()?;
    let (wallet, publisher) = chain.publisher(3, FeePolicy::default()).await?;
    let address = wallet.address()?;
    let all = wallet.balance().confirmed - Amount::from_sat(10_000);
    let one = TxOut { value: all, script_pubkey: address.script_pubkey() };
    wallet.send(&*chain.bitcoin, &[one], vb(1)).await?;
    chain.mine(1, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 1_000)?).await?;
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    // The payment that made the only coin, the commit and the reveal are orphaned and lost.
    chain.reorg(2, &nobody()).await?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    for txid in embedded.pool_txids() {
        embedded.evict(&txid);
    }
    publisher.tick().await?;
    assert_eq!(embedded.pool_txids().len(), 3);
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

#[tokio::test]
async fn a_reveal_of_an_earlier_commit_counts_when_a_reorg_brings_it_back() -> Result {
    let chain = Chain::simulated()?;
    let Node::Sim(sim) = &chain.node else { unreachable!() };
    let bitcoin = &*chain.bitcoin;
    let (_, payer) = chain.wallet(1).await?;
    let (records, network) = (Arc::new(MemoryRecords::default()), BitcoinNetwork::Regtest);
    let keys = WalletKeys::from_seed(network, &[8; 32]);
    let wallet = Arc::new(Wallet::open(records.clone(), "w", &keys, network, L1Height(0))?);
    let pays = |value| -> Result<TxOut> {
        let script_pubkey = wallet.address()?.script_pubkey();
        Ok(TxOut { value: Amount::from_sat(value), script_pubkey })
    };
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let nobody = nobody().script_pubkey();
    let first = payer.send(bitcoin, &[pays(1_000_000)?], vb(2)).await?;
    sim.mine_now(&nobody)?;
    wallet.sync(bitcoin).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 1_000)?).await?;
    let published = sim.mine_now(&nobody)?.txdata[1..].to_vec();
    assert_eq!(published.len(), 2, "a commit and a reveal");

    // In another chain the payer pays another way, so that there has to be another commit.
    let forget = || sim.waiting().iter().for_each(|tx| sim.evict(&tx.compute_txid()));
    sim.take_back_now(2)?;
    forget();
    payer.sync(bitcoin).await?;
    payer.forget(first.compute_txid())?;
    let other = payer.pay(&[pays(2_000_000)?], vb(2))?;
    sim.mine_exactly_now(&nobody, &[other])?;
    publisher.tick().await?;
    let again = publisher.status(id).await.expect("published").commit.expect("paid");
    assert_ne!(again, published[0].compute_txid());

    // And back.
    sim.take_back_now(1)?;
    forget();
    sim.mine_exactly_now(&nobody, &[first])?;
    sim.mine_exactly_now(&nobody, &published)?;
    publisher.tick().await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!((status.problem.clone(), status.confirmed()), (None, Some(sim.tip().height)));
    Ok(())
}
