use crate::{elsewhere, outpoint, params};
use bitcoin::{Amount, FeeRate, ScriptBuf, Sequence, Transaction, TxIn};
use kedge_bridge::{
    op_return::Tagged,
    payout::{
        PayoutFault, PayoutRun, SigningRules, Withdrawal, build_payout, check_payout,
        check_proposal,
    },
    vault::{Vault, VaultHead},
};
use kedge_genesis::Sats;
use proptest::prelude::*;

fn coin(byte: u8, sats: u64) -> VaultHead {
    VaultHead { outpoint: outpoint(byte), value: Sats(sats) }
}

fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_per_vb).unwrap()
}

fn queue(amounts: &[u64]) -> Vec<Withdrawal> {
    amounts
        .iter()
        .zip(7..)
        .map(|(sats, index)| Withdrawal {
            index,
            script: elsewhere(),
            amount: Sats(*sats),
            fee: Sats(200),
        })
        .collect()
}

fn rules<'a>(
    vault: &'a Vault,
    coins: &'a [VaultHead],
    unpaid: &'a [Withdrawal],
) -> SigningRules<'a> {
    SigningRules {
        vault,
        head: coin(1, 100_000),
        coins,
        unpaid,
        least_rate: rate(1),
        most_rate: rate(50),
        surplus: Sats(10_000),
    }
}

#[test]
fn a_built_payout_conserves_value_and_is_accepted() {
    let vault = Vault::of(params()).unwrap();
    let unpaid = queue(&[10_000, 20_000, 30_000]);
    let extra = [coin(2, 40_000)];
    let plan = build_payout(&vault, &coin(1, 100_000), &extra, &unpaid[..2], rate(3)).unwrap();
    let run = PayoutRun { first: 7, count: 2 };
    assert_eq!(plan.run(), run);
    let spent: Amount = plan.tx().output.iter().map(|output| output.value).sum();
    assert_eq!(spent.to_sat() + plan.fee().0, 140_000);
    assert_eq!(plan.fee().0, rate(3).fee_wu(plan.multisig().signed_weight()).unwrap().to_sat());
    assert_eq!(check_payout(plan.tx(), outpoint(1), &unpaid), Ok(run));
    assert_eq!(check_proposal(plan.tx(), &rules(&vault, &extra, &unpaid)), Ok(plan));
}

#[test]
fn a_plan_is_not_built_without_a_run_funds_or_above_dust() {
    let vault = Vault::of(params()).unwrap();
    let build = |run: &[Withdrawal], sats| {
        build_payout(&vault, &coin(1, sats), &[], run, rate(2)).map(|plan| plan.run().count)
    };
    assert_eq!(build(&[], 100_000), Err(PayoutFault::Run));
    let gap: Vec<_> = queue(&[10_000, 10_000, 10_000]).into_iter().step_by(2).collect();
    assert_eq!(build(&gap, 100_000), Err(PayoutFault::Run));
    assert_eq!(build(&queue(&[10_000, 293]), 100_000), Err(PayoutFault::Dust { index: 8 }));
    assert_eq!(build(&queue(&[10_000]), 10_000), Err(PayoutFault::Funds));
    assert_eq!(build(&queue(&[10_000]), 10_700), Err(PayoutFault::Funds));
    assert_eq!(build(&queue(&[u64::MAX, 1_000]), u64::MAX), Err(PayoutFault::Funds));
    assert_eq!(build(&queue(&vec![1_000; 1_000]), 10_000_000), Ok(1_000));
    assert_eq!(build(&queue(&vec![1_000; 1_001]), 10_000_000), Err(PayoutFault::Run));
}

#[test]
fn followers_refuse_every_deviation() {
    let vault = Vault::of(params()).unwrap();
    let unpaid = queue(&[10_000, 20_000, 30_000]);
    let plan = build_payout(&vault, &coin(1, 100_000), &[], &unpaid[..2], rate(3)).unwrap();
    let check = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = plan.tx().clone();
        change(&mut tx);
        check_payout(&tx, outpoint(1), &unpaid)
    };
    let tag = |first, count| Tagged::Payout { first, count }.tx_out();
    type Change<'a> = &'a dyn Fn(&mut Transaction);
    let table: [(Change<'_>, PayoutFault); 9] = [
        (&|tx| tx.input[0].previous_output = outpoint(3), PayoutFault::Head),
        (&|tx| drop(tx.output.remove(1)), PayoutFault::Untagged),
        (&|tx| tx.output[1] = tag(8, 2), PayoutFault::NotNext { expected: Some(7), found: 8 }),
        (&|tx| tx.output[1] = tag(7, 3), PayoutFault::Outputs { expected: 5, found: 4 }),
        (
            &|tx| tx.output.push(tx.output[2].clone()),
            PayoutFault::Outputs { expected: 4, found: 5 },
        ),
        (&|tx| tx.output.swap(1, 2), PayoutFault::TagPlace),
        (&|tx| tx.output.swap(2, 3), PayoutFault::Mismatch { index: 7 }),
        (&|tx| tx.output[3].value -= Amount::ONE_SAT, PayoutFault::Mismatch { index: 8 }),
        (&|tx| tx.output[3].script_pubkey = ScriptBuf::new(), PayoutFault::Mismatch { index: 8 }),
    ];
    for (change, fault) in table {
        assert_eq!(check(change), Err(fault));
    }
    let more = |tx: &mut Transaction| {
        tx.output[1] = tag(7, 4);
        let (third, fourth) = (tx.output[2].clone(), tx.output[2].clone());
        tx.output[2].value = Amount::from_sat(10_000);
        tx.output.extend([third, fourth]);
        tx.output[4].value = Amount::from_sat(30_000);
    };
    assert_eq!(check(&more), Err(PayoutFault::Unknown { index: 10 }));
    assert_eq!(
        check_payout(plan.tx(), outpoint(1), &[]),
        Err(PayoutFault::NotNext { expected: None, found: 7 })
    );
}

#[test]
fn signers_refuse_what_their_node_does_not_back() {
    let vault = Vault::of(params()).unwrap();
    let unpaid = queue(&[10_000, 20_000]);
    let coins = [coin(2, 40_000)];
    let plan = build_payout(&vault, &coin(1, 100_000), &coins, &unpaid, rate(3)).unwrap();
    let check = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = plan.tx().clone();
        change(&mut tx);
        check_proposal(&tx, &rules(&vault, &coins, &unpaid)).map(|plan| plan.fee())
    };
    type Change<'a> = &'a dyn Fn(&mut Transaction);
    let table: [(Change<'_>, PayoutFault); 9] = [
        (&|tx| tx.input.swap(0, 1), PayoutFault::Head),
        (&|tx| tx.input[1].previous_output = outpoint(3), PayoutFault::Input { input: 1 }),
        (&|tx| tx.input[1] = tx.input[0].clone(), PayoutFault::Input { input: 1 }),
        (&|tx| tx.input[0].sequence = Sequence::MAX, PayoutFault::Form),
        (&|tx| tx.lock_time = bitcoin::absolute::LockTime::from_consensus(9), PayoutFault::Form),
        (&|tx| tx.version = bitcoin::transaction::Version::ONE, PayoutFault::Form),
        (&|tx| tx.output[0].script_pubkey = elsewhere(), PayoutFault::Change),
        (&|tx| tx.output[0].value = Amount::from_sat(100), PayoutFault::Change),
        (&|tx| tx.output[0].value = Amount::from_sat(200_000), PayoutFault::Funds),
    ];
    for (change, fault) in table {
        assert_eq!(check(change), Err(fault));
    }
    let fee = |sats: u64| {
        check(&|tx: &mut Transaction| {
            tx.output[0].value = Amount::from_sat(110_000 - sats);
        })
    };
    let weight = plan.multisig().signed_weight();
    let least = rate(1).fee_wu(weight).unwrap().to_sat();
    assert_eq!(fee(least), Ok(Sats(least)));
    assert!(matches!(fee(least - 1), Err(PayoutFault::FeeRate { .. })));
    // Two withdrawals paid 200 each, the surplus is 10,000.
    assert_eq!(fee(10_400), Ok(Sats(10_400)));
    assert!(matches!(fee(10_401), Err(PayoutFault::FeeUncovered { .. })));
    assert!(matches!(fee(60_000), Err(PayoutFault::FeeRate { .. })));
}

proptest! {
    #[test]
    fn every_built_payout_passes_both_checks(
        amounts in prop::collection::vec(330u64..1_000_000, 1..20),
        extras in prop::collection::vec(1_000u64..1_000_000, 0..5),
        sat_per_vb in 1u64..40,
    ) {
        let vault = Vault::of(params()).unwrap();
        let unpaid = queue(&amounts);
        let coins: Vec<_> = extras.iter().zip(2..).map(|(sats, byte)| coin(byte, *sats)).collect();
        let head = coin(1, 30_000_000);
        let plan = build_payout(&vault, &head, &coins, &unpaid, rate(sat_per_vb)).unwrap();
        let mut rules = rules(&vault, &coins, &unpaid);
        rules.head = head;
        rules.surplus = Sats(1_000_000);
        prop_assert_eq!(check_proposal(plan.tx(), &rules), Ok(plan));
    }

    #[test]
    fn foreign_inputs_never_pass(extra in 0usize..3, place in 0u8..3) {
        let vault = Vault::of(params()).unwrap();
        let unpaid = queue(&[10_000]);
        let coins: Vec<_> = (0..extra as u8).map(|byte| coin(10 + byte, 5_000)).collect();
        let plan = build_payout(&vault, &coin(1, 100_000), &coins, &unpaid, rate(2)).unwrap();
        let mut tx = plan.tx().clone();
        let foreign = TxIn { previous_output: outpoint(200), ..tx.input[0].clone() };
        tx.input.insert(usize::from(place).min(tx.input.len()), foreign);
        prop_assert!(check_proposal(&tx, &rules(&vault, &coins, &unpaid)).is_err());
    }
}
