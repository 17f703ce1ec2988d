use crate::{elsewhere, outpoint, params, publisher};
use bitcoin::{
    Amount, FeeRate, OutPoint, Sequence, Transaction, Witness, XOnlyPublicKey,
    absolute::LockTime,
    key::{Keypair, Secp256k1},
    transaction::Version,
};
use kedge_bridge::bond::{Bond, SlashFault, SlashRules, reward_script, reward_spend};
use kedge_genesis::Sats;
use proptest::prelude::*;

const VALUE: Sats = Sats(100_000_000);

fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_per_vb).unwrap()
}

fn key(byte: u8) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &[byte; 32]).unwrap()
}

fn challenger() -> XOnlyPublicKey {
    key(5).x_only_public_key().0
}

fn bond() -> Bond {
    Bond::of(params(), publisher()).unwrap()
}

fn rules() -> SlashRules {
    SlashRules { challenger: challenger(), least_rate: rate(1), most_rate: rate(50) }
}

/// What a signer answers to a slash of [`VALUE`] at 3 sat/vB that was changed.
fn check(change: &dyn Fn(&mut Transaction)) -> Result<(), SlashFault> {
    let plan = bond().slash_spend(outpoint(1), VALUE, &challenger(), rate(3)).unwrap();
    let mut tx = plan.tx().clone();
    change(&mut tx);
    bond().check_slash(&tx, outpoint(1), VALUE, &rules()).map(|found| assert_eq!(found, plan))
}

#[test]
fn signers_refuse_whatever_is_not_the_slash_of_the_bond_to_its_challenger() {
    type Change<'a> = &'a dyn Fn(&mut Transaction);
    let table: [(Change<'_>, Result<(), SlashFault>); 14] = [
        (&|_| {}, Ok(())),
        // Whoever asks cannot know the signatures.
        (&|tx| tx.input[0].witness = Witness::from_slice(&[[1; 64]]), Ok(())),
        (&|tx| tx.input[0].previous_output = outpoint(2), Err(SlashFault::Bond)),
        (&|tx| tx.input.clear(), Err(SlashFault::Bond)),
        (&|tx| tx.output[0].script_pubkey = elsewhere(), Err(SlashFault::Reward)),
        (
            &|tx| {
                tx.output[0].script_pubkey = reward_script(&publisher());
            },
            Err(SlashFault::Reward),
        ),
        (&|tx| tx.output.push(tx.output[0].clone()), Err(SlashFault::Reward)),
        (&|tx| tx.output.clear(), Err(SlashFault::Reward)),
        (&|tx| tx.output[0].value = Amount::from_sat(329), Err(SlashFault::Reward)),
        (&|tx| tx.input.push(tx.input[0].clone()), Err(SlashFault::Form)),
        (&|tx| tx.input[0].sequence = Sequence::MAX, Err(SlashFault::Form)),
        (&|tx| tx.lock_time = LockTime::from_consensus(9), Err(SlashFault::Form)),
        (&|tx| tx.version = Version::ONE, Err(SlashFault::Form)),
        (&|tx| tx.output[0].value = Amount::from_sat(VALUE.0 + 1), Err(SlashFault::Funds)),
    ];
    for (number, (change, expected)) in table.into_iter().enumerate() {
        assert_eq!(check(change), expected, "case {number}");
    }
}

#[test]
fn signers_sign_slashes_within_their_fee_rates_to_the_satoshi() {
    let weight =
        bond().slash_spend(outpoint(1), VALUE, &challenger(), rate(3)).unwrap().signed_weight();
    let at = |rate: FeeRate| rate.fee_wu(weight).unwrap().to_sat();
    let (least, most) = (at(rate(1)), at(rate(50)));
    for (fee, signed) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
        let tx = bond().slash_spend(outpoint(1), VALUE, &challenger(), rate(3)).unwrap();
        let mut tx = tx.tx().clone();
        tx.output[0].value = Amount::from_sat(VALUE.0 - fee);
        let found = bond().check_slash(&tx, outpoint(1), VALUE, &rules());
        let expected = SlashFault::FeeRate { fee: Sats(fee), least: Sats(least), most: Sats(most) };
        match found {
            Ok(plan) => assert!(signed && plan.tx() == &tx, "{fee}"),
            Err(fault) => assert!(!signed && fault == expected, "{fee}: {fault}"),
        }
    }
}

#[test]
fn a_bond_that_does_not_pay_for_its_slash_is_not_slashed() {
    assert!(bond().slash_spend(outpoint(1), Sats(400), &challenger(), rate(1)).is_none());
    assert!(bond().slash_spend(outpoint(1), VALUE, &challenger(), FeeRate::MAX).is_none());
}

#[test]
fn rewards_are_not_taken_when_there_are_none_or_they_do_not_pay_for_it() {
    let spend = |rewards: &[(OutPoint, Sats)]| reward_spend(rewards, elsewhere(), rate(1), &key(5));
    assert!(spend(&[]).is_none());
    assert!(spend(&[(outpoint(1), Sats(390))]).is_none());
    assert!(spend(&[(outpoint(1), Sats(u64::MAX)), (outpoint(2), Sats(1))]).is_none());
    assert!(spend(&[(outpoint(1), Sats(390)), (outpoint(2), Sats(390))]).is_some());
}

proptest! {
    #[test]
    fn what_is_built_is_signed_conserves_value_and_pays_the_rate(
        value in 10_000u64..21_000_000 * 100_000_000,
        sat_per_kwu in 250u64..2_000,
        secret in 1u8..255,
    ) {
        let (value, rate) = (Sats(value), FeeRate::from_sat_per_kwu(sat_per_kwu));
        let challenger = key(secret);
        let rewarded = challenger.x_only_public_key().0;
        let plan = bond().slash_spend(outpoint(1), value, &rewarded, rate).unwrap();
        let rules = SlashRules { challenger: rewarded, least_rate: rate, most_rate: rate };
        prop_assert_eq!(bond().check_slash(plan.tx(), outpoint(1), value, &rules), Ok(plan.clone()));
        let reward = plan.tx().output[0].value.to_sat();
        prop_assert_eq!(value.0 - reward, rate.fee_wu(plan.signed_weight()).unwrap().to_sat());

        let rewards = [(OutPoint::new(plan.tx().compute_txid(), 0), Sats(reward))];
        let tx = reward_spend(&rewards, elsewhere(), rate, &challenger).unwrap();
        let fee = reward - tx.output[0].value.to_sat();
        prop_assert_eq!(fee, rate.fee_wu(tx.weight()).unwrap().to_sat());
    }
}
