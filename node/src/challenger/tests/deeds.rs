//! What a challenger does, on an embedded Bitcoin.

use super::hook::Hook;
use super::town::{FINALITY, Fate, How, Party, Town, WINDOW, wrong};
use crate::{
    challenger::{Abandonment, Alert, ChallengerEvent, ChallengerOptions, Reporter, Webhook},
    l1::{Bitcoin as _, Broadcast},
};
use bitcoin::{Amount, FeeRate, TxOut};
use kedge_bridge::bond::Bond;
use kedge_fraud_proof::{AssertionStatus, FraudKind};
use kedge_genesis::params::dev_secrets;
use prometheus::Registry;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

fn alerts(events: &[ChallengerEvent]) -> Vec<&Alert> {
    let alerts = events.iter().filter_map(|event| match event {
        ChallengerEvent::Alert { alert, .. } => Some(alert),
        _ => None,
    });
    alerts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_assertion_is_rejected_and_its_bond_taken() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    assert!(one.names(&town).await.is_empty());
    let before = one.wallet.balance().confirmed;

    let id = town.lie(wrong(4)).await;
    let events = one.step(&town).await.unwrap();
    let names: Vec<_> = events.iter().map(ChallengerEvent::label).collect();
    assert_eq!(names, ["assertion_wrong", "proof_built", "published"], "{events:?}");
    assert!(matches!(events[0], ChallengerEvent::AssertionWrong { segment: Some(4), .. }));
    town.mine(1);
    assert_eq!(one.names(&town).await, ["commit_confirmed", "revealed"]);
    town.mine(1);
    let events = one.step(&town).await.unwrap();
    let names: Vec<_> = events.iter().map(ChallengerEvent::label).collect();
    assert_eq!(names, ["confirmed", "rejected", "reward_expected"], "{events:?}");
    let node = one.assertion(id);
    let AssertionStatus::Rejected { proof: Some(proof), .. } = node.status else {
        panic!("{:?}", node.status)
    };
    assert_eq!((proof.segment, proof.kind), (4, FraudKind::OutputRoot));
    assert_eq!(proof.challenger, party.key().x_only_public_key().0.serialize());
    assert_eq!(proof.committed, node.confirmed_at.next());

    // The signers pay the bond out when nothing can change the verdict any more.
    while town.chain.tip().0 < node.deadline.plus(FINALITY) {
        town.mine(1);
        assert!(one.names(&town).await.is_empty());
    }
    let bond = Bond::of(town.params, bitcoin::XOnlyPublicKey::from_slice(&node.proposer).unwrap());
    let key = party.key().x_only_public_key().0;
    let rate = FeeRate::from_sat_per_vb_u32(2);
    let plan = bond.unwrap().slash_spend(node.bond, node.bond_value, &key, rate).unwrap();
    let shares: Vec<_> = dev_secrets::SIGNERS[..2]
        .iter()
        .map(|secret| {
            let secp = bitcoin::key::Secp256k1::new();
            let key = bitcoin::key::Keypair::from_seckey_slice(&secp, secret).unwrap();
            plan.sign(&key).unwrap()
        })
        .collect();
    let slash = plan.assemble(&shares).unwrap();
    assert_eq!(town.chain.broadcast(&slash).await.unwrap(), Broadcast::Accepted);
    town.mine(1);
    // It is taken at once; that shows in the block after.
    assert!(one.names(&town).await.is_empty());
    town.mine(1);
    let events = one.step(&town).await.unwrap();
    let [ChallengerEvent::RewardTaken { assertion, amount, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((assertion, amount), (id, slash.output[0].value.to_sat()));
    let after = one.wallet.balance().confirmed;
    let spent = before + Amount::from_sat(amount) - after;
    assert!(after > before && spent < Amount::from_sat(5_000), "{before} {after}");

    // A reorganisation takes the taking back, and it is taken again.
    town.reorg(1);
    assert!(one.names(&town).await.is_empty());
    assert!(one.wallet.balance().confirmed < after);
    town.mine(1);
    assert_eq!(one.names(&town).await, ["reward_taken"]);
    assert_eq!(one.wallet.balance().confirmed, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_assertion_is_left_alone() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    let id = town.lie(|_| {}).await;
    assert_eq!(one.names(&town).await, ["assertion_right"]);
    for _ in 0..=WINDOW {
        town.mine(1);
        assert!(one.names(&town).await.is_empty());
    }
    assert!(matches!(one.assertion(id).status, AssertionStatus::Settled { .. }));
    assert_eq!(town.proofs(id), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_too_few_and_too_many_are_proven_as_well() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    for (spoil, expected) in [
        (
            Box::new(|claims: &mut Vec<_>| claims.truncate(claims.len() - 1))
                as Box<dyn FnOnce(&mut Vec<_>)>,
            FraudKind::MissingSegments,
        ),
        (Box::new(|claims: &mut Vec<_>| claims.push(claims[0])), FraudKind::ExtraSegments),
    ] {
        let id = town.lie(spoil).await;
        for _ in 0..2 {
            one.step(&town).await.unwrap();
            town.mine(1);
        }
        one.step(&town).await.unwrap();
        let status = one.assertion(id).status;
        let AssertionStatus::Rejected { proof: Some(proof), .. } = status else {
            panic!("{expected:?}: {status:?}")
        };
        assert_eq!(proof.kind, expected);
    }
}

/// A process that dies at any point of its work and is started again does the work once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_point_is_harmless() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 4)]).await;
    for point in 0.. {
        let fate = Fate::dies_after(point);
        let id = town.lie(wrong(point as usize % 8)).await;
        let mut running =
            Some(party.run(&town, How { fate: fate.clone(), ..How::default() }).await);
        let mut died = false;
        for round in 0..4 {
            if round > 0 {
                town.mine(1);
            }
            if let Some(Ok(alive)) = &running {
                let outcome = alive.step(&town).await;
                assert!(outcome.is_ok() || fate.is_dead(), "point {point}: {outcome:?}");
            }
            if fate.is_dead() && !died {
                died = true;
                drop(running.take());
                let alive = party.run(&town, How::default()).await.unwrap();
                alive.step(&town).await.unwrap();
                running = Some(Ok(alive));
            }
        }
        let alive = running.unwrap().unwrap();
        let node = alive.assertion(id);
        assert!(node.is_rejected(), "point {point}: {:?}", node.status);
        assert_eq!(town.proofs(id), 1, "point {point}");
        let pending = alive.publisher.pending().await;
        assert!(pending.iter().all(|of| of.confirmed().is_some()), "{point}: {pending:?}");
        if !died {
            assert!(point > 30, "only {point} points");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_challengers_at_once_do_not_hurt_each_other() {
    let (first, second) = (Party::new(1), Party::new(2));
    let town = Town::new(&[(&first, 1), (&second, 1)]).await;
    let one = first.run(&town, How::default()).await.unwrap();
    let two = second.run(&town, How::default()).await.unwrap();
    let id = town.lie(wrong(2)).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        for running in [&one, &two] {
            told.extend(running.step(&town).await.unwrap());
        }
        town.mine(1);
    }
    let rejected: Vec<bool> = told
        .iter()
        .filter_map(|event| match event {
            ChallengerEvent::Rejected { ours, .. } => Some(*ours),
            _ => None,
        })
        .collect();
    assert!(rejected == [true, false] || rejected == [false, true], "{rejected:?}");
    assert!(alerts(&told).is_empty(), "{told:?}");
    assert_eq!(town.proofs(id), 2);
    assert_eq!(town.chain.pool_size().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_stops_when_the_first_was_first_and_has_its_money_back() {
    let (first, second) = (Party::new(1), Party::new(2));
    let town = Town::new(&[(&first, 1), (&second, 1)]).await;
    let one = first.run(&town, How::default()).await.unwrap();
    let two = second.run(&town, How::default()).await.unwrap();
    two.step(&town).await.unwrap();
    let before = two.wallet.balance().confirmed;
    let id = town.lie(wrong(2)).await;
    one.step(&town).await.unwrap();
    town.mine(1);
    one.step(&town).await.unwrap();
    // The first has revealed, the second commits in the block that takes it.
    assert!(two.names(&town).await.contains(&"published"));
    town.mine(1);
    let events = two.step(&town).await.unwrap();
    let reason = Abandonment::ProvenByOthers;
    assert!(events.contains(&ChallengerEvent::Abandoned { assertion: id, reason }), "{events:?}");
    assert_eq!(town.proofs(id), 1);
    for _ in 0..FINALITY {
        town.mine(1);
        two.step(&town).await.unwrap();
    }
    assert_eq!(town.proofs(id), 1);
    let lost = before - two.wallet.balance().confirmed;
    assert!(lost < Amount::from_sat(1_000), "{lost}");
    assert!(two.publisher.pending().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_committed_first_has_the_bond_though_another_revealed_first() {
    let (first, second) = (Party::new(1), Party::new(2));
    let town = Town::new(&[(&first, 1), (&second, 1)]).await;
    let one = first.run(&town, How::default()).await.unwrap();
    let two = second.run(&town, How::default()).await.unwrap();
    let id = town.lie(wrong(2)).await;
    one.step(&town).await.unwrap();
    town.mine(1);
    // The first committed and is cut off; the second commits and reveals.
    for _ in 0..2 {
        two.step(&town).await.unwrap();
        town.mine(1);
    }
    two.step(&town).await.unwrap();
    let key = |party: &Party| party.key().x_only_public_key().0.serialize();
    let winner = |node: kedge_fraud_proof::AssertionNode| match node.status {
        AssertionStatus::Rejected { proof: Some(proof), .. } => proof.challenger,
        other => panic!("{other:?}"),
    };
    assert_eq!(winner(two.assertion(id)), key(&second));
    let told = one.names(&town).await;
    assert!(told.contains(&"revealed") && !told.contains(&"abandoned"), "{told:?}");
    town.mine(1);
    let told = one.names(&town).await;
    assert!(told.contains(&"reward_expected"), "{told:?}");
    assert_eq!(winner(one.assertion(id)), key(&first));
    assert_eq!(two.names(&town).await, ["rejected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_publishes_nothing() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let options = ChallengerOptions { dry_run: true, ..ChallengerOptions::default() };
    let one = party.run(&town, How { options, ..How::default() }).await.unwrap();
    let id = town.lie(wrong(0)).await;
    assert_eq!(one.names(&town).await, ["assertion_wrong", "proof_built", "would_publish"]);
    while town.chain.tip().0 < one.assertion(id).deadline {
        assert_eq!(town.chain.pool_size().0, 0);
        town.mine(1);
        let events = one.step(&town).await.unwrap();
        let alerts = alerts(&events);
        assert!(events.len() == alerts.len(), "{events:?}");
    }
    assert!(matches!(one.assertion(id).status, AssertionStatus::Settled { .. }));
    assert_eq!((town.proofs(id), one.publisher.pending().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wallet_is_an_alert_until_somebody_pays() {
    let (party, payer) = (Party::new(1), Party::new(3));
    let town = Town::new(&[(&payer, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    let events = one.step(&town).await.unwrap();
    assert!(matches!(alerts(&events)[..], [Alert::NoFunds { available: 0, .. }]), "{events:?}");
    let id = town.lie(wrong(3)).await;
    let events = one.step(&town).await.unwrap();
    assert!(events.iter().any(|event| event.label() == "published"), "{events:?}");
    assert!(alerts(&events).is_empty(), "an alert is told once");
    town.mine(1);
    assert!(one.names(&town).await.is_empty());

    let script_pubkey = one.challenger.address().unwrap().script_pubkey();
    let coin = TxOut { value: Amount::from_sat(1_000_000), script_pubkey };
    town.pay(&payer, &[coin], FeeRate::from_sat_per_vb_u32(2)).await;
    for expected in [&[][..], &["alert_over"], &["commit_confirmed", "revealed"], &["confirmed"]] {
        let told = one.names(&town).await;
        assert!(expected.iter().all(|name| told.contains(name)), "{expected:?} {told:?}");
        town.mine(1);
    }
    assert!(one.assertion(id).is_rejected());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_bitcoin_is_an_alert_on_the_webhook_and_in_the_metrics() {
    let Hook { webhook, mut received, .. } = Hook::new().await;
    let registry = Registry::new();
    let report = Reporter::default().with_webhook(webhook).with_metrics(&registry).unwrap();
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How { report, ..How::default() }).await.unwrap();
    let gauge = |name: &str| {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).map(ToOwned::to_owned);
        line.and_then(|line| line.rsplit(' ').next().map(ToOwned::to_owned)).unwrap()
    };
    assert!(one.names(&town).await.is_empty());
    let unreachable = "kedge_challenger_alerts{alert=\"bitcoin_unreachable\"}";
    assert_eq!(gauge(unreachable), "0");
    assert_eq!(gauge("kedge_challenger_wallet_sats"), "5000000000");

    one.line.cut.store(true, Ordering::SeqCst);
    for expected in [&["alert"][..], &[]] {
        assert_eq!(one.names(&town).await, expected);
        assert_eq!(gauge(unreachable), "1");
    }
    let body = received.recv().await.unwrap();
    assert_eq!((&body["event"], &body["alert"]), (&"alert".into(), &"bitcoin_unreachable".into()));
    assert!(body["message"].as_str().unwrap().contains("connection refused"), "{body}");

    one.line.cut.store(false, Ordering::SeqCst);
    town.lie(wrong(1)).await;
    let told = one.names(&town).await;
    assert!(told.contains(&"alert_over") && told.contains(&"published"), "{told:?}");
    assert_eq!(gauge(unreachable), "0");
    assert_eq!(gauge("kedge_challenger_open_wrong_assertions"), "1");
    assert_eq!(gauge("kedge_challenger_blocks_to_deadline"), WINDOW.to_string());
    assert_eq!(gauge("kedge_challenger_events_total{event=\"alert\"}"), "1");
    assert!(received.try_recv().is_err(), "one alert, one post");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_does_not_answer_stops_nothing() {
    // It accepts connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Webhook::new(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let report = Reporter::default().with_webhook(webhook);
    let party = Party::new(1);
    let town = Town::new(&[]).await;
    let one = party.run(&town, How { report, ..How::default() }).await.unwrap();
    assert_eq!(one.names(&town).await, ["alert"]);
    assert!(one.names(&town).await.is_empty());
    for (url, expected) in [
        ("https://example.org/x", "http:// only"),
        ("ftp://example.org", "not ftp://"),
        ("nonsense", "not a URL"),
    ] {
        let error = Webhook::new(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reorganisations_of_reveal_commit_and_assertion_are_harmless() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let one = party.run(&town, How::default()).await.unwrap();
    // Of the commit alone.
    let id = town.lie(wrong(5)).await;
    one.step(&town).await.unwrap();
    town.mine(1);
    assert_eq!(one.names(&town).await, ["commit_confirmed", "revealed"]);
    town.reorg(1);
    one.step(&town).await.unwrap();
    for _ in 0..2 {
        town.mine(1);
        one.step(&town).await.unwrap();
    }
    assert!(one.assertion(id).is_rejected());
    assert_eq!(town.proofs(id), 1);
    // Of the reveal; of the commit and the reveal.
    for depth in [1, 2] {
        let id = town.lie(wrong(5)).await;
        for _ in 0..2 {
            one.step(&town).await.unwrap();
            town.mine(1);
        }
        assert!(one.names(&town).await.contains(&"rejected"));
        town.reorg(depth);
        one.step(&town).await.unwrap();
        assert!(one.assertion(id).is_open());
        for _ in 0..2 {
            town.mine(1);
            one.step(&town).await.unwrap();
        }
        assert!(one.assertion(id).is_rejected(), "{depth}");
        assert_eq!(town.proofs(id), 1);
    }
    // All of it, the assertion included.
    let id = town.lie(wrong(6)).await;
    for _ in 0..2 {
        one.step(&town).await.unwrap();
        town.mine(1);
    }
    one.step(&town).await.unwrap();
    assert!(one.assertion(id).is_rejected());
    town.reorg(3);
    one.step(&town).await.unwrap();
    assert!(one.engine.tracker().unwrap().get(&id).is_none());
    for _ in 0..4 {
        town.mine(1);
        one.step(&town).await.unwrap();
    }
    assert!(one.assertion(id).is_rejected(), "{:?}", one.assertion(id).status);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_last_two_blocks_a_proof_does_not_wait_for_its_commit() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let id = town.lie(wrong(1)).await;
    town.mine(WINDOW - 2);
    let one = party.run(&town, How::default()).await.unwrap();
    let events = one.step(&town).await.unwrap();
    assert!(matches!(alerts(&events)[..], [Alert::DeadlineNear { blocks_left: 2, .. }]));
    let told: Vec<_> = events.iter().map(ChallengerEvent::label).collect();
    assert!(told.contains(&"revealed"), "{told:?}");
    town.mine(1);
    let told = one.names(&town).await;
    assert!(told.contains(&"rejected") && told.contains(&"alert_over"), "{told:?}");
    assert!(one.assertion(id).is_rejected());
}

#[tokio::test(flavor = "multi_thread")]
async fn fees_rise_to_the_ceiling_while_no_block_takes_the_proof() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let mut options = ChallengerOptions::default();
    options.fees.ceiling = FeeRate::from_sat_per_vb_u32(120);
    let one = party.run(&town, How { options, ..How::default() }).await.unwrap();
    let id = town.lie(wrong(1)).await;
    one.step(&town).await.unwrap();
    let mut raised = 0;
    // A miner who leaves proofs out, until the last block.
    for _ in 1..WINDOW {
        town.mine_empty();
        let told = one.names(&town).await;
        raised += told.iter().filter(|name| **name == "raised").count();
    }
    assert!(raised >= 4, "{raised}");
    let entries: Vec<_> = town
        .chain
        .pool_txids()
        .iter()
        .filter_map(|txid| town.chain.pool_entry(txid))
        .map(|entry| (entry.fee.to_sat(), entry.vsize))
        .collect();
    assert_eq!(entries.len(), 2, "commit and reveal: {entries:?}");
    // Together they pay the ceiling.
    let (fee, vsize) = entries.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert!((119 * vsize..=121 * vsize).contains(&fee), "{entries:?}");
    town.mine(1);
    let events = one.step(&town).await.unwrap();
    assert!(one.assertion(id).is_rejected(), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_assertion_that_settled_is_an_alert() {
    let party = Party::new(1);
    let town = Town::new(&[(&party, 1)]).await;
    let id = town.lie(wrong(1)).await;
    town.mine(WINDOW);
    let one = party.run(&town, How::default()).await.unwrap();
    let events = one.step(&town).await.unwrap();
    assert_eq!(alerts(&events), [&Alert::SettledWrong { assertion: id }]);
    assert!(one.publisher.pending().await.is_empty());
}
