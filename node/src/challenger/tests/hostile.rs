//! What others do to keep a challenger from its work.

use super::hook::Hook;
use super::town::{How, Party, Town, wrong};
use crate::challenger::{ChallengerEvent, Reporter};
use bitcoin::{Amount, FeeRate, TxOut};
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn dust_that_somebody_pays_to_the_wallet_is_in_no_commit() {
    let (party, payer) = (Party::new(1), Party::new(3));
    let town = Town::new(&[(&party, 1), (&payer, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    assert!(one.names(&town).await.is_empty());

    // Together more than a commit holds, in more outputs than a transaction that is relayed can spend.
    let script_pubkey = one.challenger.address().unwrap().script_pubkey();
    let dust = vec![TxOut { value: Amount::from_sat(500), script_pubkey }; 2_000];
    town.pay(&payer, &dust, FeeRate::from_sat_per_vb_u32(1)).await;
    town.mine(1);

    let id = town.lie(wrong(3)).await;
    let events = one.step(&town).await.unwrap();
    let commit = events.iter().find_map(|event| match event {
        ChallengerEvent::Published { commit, .. } => *commit,
        _ => None,
    });
    town.mine(1);
    let block = town.chain.block_now(&town.chain.tip().1).unwrap();
    let commit = block.txdata.iter().find(|tx| Some(tx.compute_txid()) == commit).expect("mined");
    assert_eq!(commit.input.len(), 1, "a single coin pays for it");
    for _ in 0..2 {
        one.step(&town).await.unwrap();
        town.mine(1);
    }
    one.step(&town).await.unwrap();
    assert!(one.assertion(id).is_rejected());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_a_webhook_did_not_take_is_posted_again_while_it_stands() {
    let Hook { webhook, mut received, broken } = Hook::new().await;
    broken.store(true, Ordering::SeqCst);
    let report = Reporter::default().with_webhook(webhook);
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How { report, ..How::default() }).await.unwrap();

    one.line.cut.store(true, Ordering::SeqCst);
    assert_eq!(one.names(&town).await, ["alert"]);
    assert!(received.try_recv().is_err());
    broken.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(one.names(&town).await.is_empty(), "it is told once");
    }
    assert_eq!(received.try_recv().unwrap()["alert"], "bitcoin_unreachable");
    assert!(received.try_recv().is_err(), "one post is enough");

    // What is over meanwhile is not news any more.
    broken.store(true, Ordering::SeqCst);
    one.line.cut.store(false, Ordering::SeqCst);
    assert_eq!(one.names(&town).await, ["alert_over"]);
    one.line.cut.store(true, Ordering::SeqCst);
    assert_eq!(one.names(&town).await, ["alert"]);
    one.line.cut.store(false, Ordering::SeqCst);
    assert_eq!(one.names(&town).await, ["alert_over"]);
    broken.store(false, Ordering::SeqCst);
    assert!(one.names(&town).await.is_empty());
    assert!(received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_the_node_ends_is_told_to_the_webhook() {
    let Hook { webhook, mut received, .. } = Hook::new().await;
    let report = Reporter::default().with_webhook(webhook);
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How { report, ..How::default() }).await.unwrap();
    one.challenger.report_end(&anyhow::anyhow!("the disk is full")).await;
    let body = received.try_recv().unwrap();
    assert_eq!(body["alert"], "failed");
    assert!(body["message"].as_str().unwrap().contains("the disk is full"), "{body}");
}
