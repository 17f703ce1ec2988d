//! Assertions, forced messages, tags and attributes.

use crate::{elsewhere, outpoint, params, pay, publisher, tx};
use alloy_consensus::{EthereumTxEnvelope, Signed, TxEip1559, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, U256, b256};
use bitcoin::{ScriptBuf, Witness};
use kedge_bridge::{
    assertion::{AssertionBody, assertion_id, bond_of},
    attributes::attributes_tx,
    bond::Bond,
    deposit::deposit_outputs,
    envelope::{Envelope, Kind, split},
    forced::{Forced, ForcedFault, Payer, encode, price_of},
    op_return::{TagFault, Tagged, parse_script, parse_tx},
    vault::{Vault, VaultScripts},
};
use kedge_genesis::{L1Height, L1Ref, Network, Sats, abi::L1Attributes, predeploys};
use proptest::prelude::*;

fn body() -> AssertionBody {
    AssertionBody {
        parent: B256::repeat_byte(1),
        params_hash: B256::repeat_byte(2),
        l1: L1Ref { height: L1Height(0x0304), hash: B256::repeat_byte(5) },
        claims: vec![B256::repeat_byte(6), B256::repeat_byte(7)],
    }
}

#[test]
fn an_assertion_is_these_bytes() {
    let expected = [
        "01".repeat(32),
        "02".repeat(32),
        "00000304".into(),
        "05".repeat(32),
        "06".repeat(32),
        "07".repeat(32),
    ]
    .concat();
    assert_eq!(hex::encode(body().encode()), expected);
    let bytes = body().encode();
    for len in 0..bytes.len() {
        let whole = len >= 132 && (len - 100) % 32 == 0;
        assert_eq!(AssertionBody::decode(&bytes[..len]).is_some(), whole, "{len}");
    }
    assert_eq!(
        assertion_id(&outpoint(3)),
        b256!("e5a84c673bc532466fae45341a4ebfdf13c6b8977c352c16738a79fb108d2a2d")
    );
}

#[test]
fn a_bond_is_the_output_at_the_envelopes_input() {
    let mut parts =
        split(Kind::Assertion, params().chain_id, 0, B256::ZERO, &body().encode(), params())
            .unwrap();
    let (header, body) = parts.remove(0);
    let envelope = Envelope { kind: Kind::Assertion, header, publisher: publisher(), body };
    let bond = Bond::of(params(), publisher()).unwrap();
    let reveal = tx(vec![Witness::new(); 2], vec![pay(elsewhere(), 1), bond.tx_out(Sats(9))]);
    let at = bitcoin::OutPoint::new(reveal.compute_txid(), 1);
    assert_eq!(bond_of(&reveal, 1, &envelope, params()), Some((at, Sats(9))));
    assert_eq!(bond_of(&reveal, 0, &envelope, params()), None);
    assert_eq!(bond_of(&reveal, 2, &envelope, params()), None);
    let other =
        Envelope { publisher: Vault::of(params()).unwrap().signers().keys()[0], ..envelope };
    assert_eq!(bond_of(&reveal, 1, &other, params()), None);
    assert_eq!(bond_of(&reveal, 1, &other, Network::Mainnet.params()), None);
}

fn forced_tx(gas_limit: u64) -> Bytes {
    let tx = TxEip1559 { chain_id: 21_335, gas_limit, ..Default::default() };
    let signature = Signature::new(U256::from(1), U256::from(2), false);
    EthereumTxEnvelope::<TxEip4844>::Eip1559(Signed::new_unhashed(tx, signature))
        .encoded_2718()
        .into()
}

#[test]
fn forced_messages_declare_their_gas_and_refuse_the_rest() {
    let legacy = TxLegacy { gas_limit: 50_000, ..Default::default() };
    let signature = Signature::new(U256::from(1), U256::from(2), true);
    let legacy: Bytes =
        EthereumTxEnvelope::<TxEip4844>::Legacy(Signed::new_unhashed(legacy, signature))
            .encoded_2718()
            .into();
    let raws = vec![forced_tx(21_001), legacy];
    let message = Forced::decode(&encode(&raws), params()).unwrap();
    assert_eq!(message.gas, 71_001);
    assert_eq!(message.price(params()), Sats(711));
    assert_eq!(message.transactions.iter().map(|tx| tx.raw.clone()).collect::<Vec<_>>(), raws);

    let decode = |raws: &[Bytes]| Forced::decode(&encode(raws), params()).map(|forced| forced.gas);
    let most = params().forced_gas_per_epoch;
    assert_eq!(decode(&[]), Err(ForcedFault::Empty));
    assert_eq!(decode(&[forced_tx(most)]), Ok(most));
    assert_eq!(decode(&[forced_tx(most), forced_tx(1)]), Err(ForcedFault::Gas));
    assert_eq!(decode(&[forced_tx(u64::MAX), forced_tx(1)]), Err(ForcedFault::Gas));
    let bad = Err(ForcedFault::Transaction { number: 1 });
    for raw in ["", "7ec0", "03c0", "c0", "00"] {
        let raw = Bytes::from(hex::decode(raw).unwrap());
        assert_eq!(decode(&[forced_tx(1), raw]), bad);
    }
    for body in ["", "80", "c1", "c080", "f800", "c101ff", "ffffffffffffffffff"] {
        let body = hex::decode(body).unwrap();
        assert_eq!(Forced::decode(&body, params()), Err(ForcedFault::Encoding), "{body:?}");
    }
    assert_eq!(price_of(u64::MAX, params()), Sats(u64::MAX.div_ceil(100)));
}

#[test]
fn a_forced_message_is_paid_by_the_output_at_its_input_and_by_nothing_that_counts_twice() {
    let vault = Vault::of(params()).unwrap();
    let scripts = VaultScripts::new(vault.script());
    let message = Forced::decode(&encode(&[forced_tx(1_000_000)]), params()).unwrap();
    let check = |tx: &bitcoin::Transaction, input| {
        message.check_price(&Payer::new(tx), input, &scripts, L1Height(5), params())
    };
    let short = |paid| Err(ForcedFault::Price { paid: Sats(paid), price: Sats(10_000) });
    let enough = || pay(vault.script(), 10_000);
    let good = tx(vec![Witness::new(); 2], vec![pay(elsewhere(), 1), enough()]);
    assert_eq!(check(&good, 1), Ok(()));
    assert_eq!(check(&good, 0), short(0));
    assert_eq!(check(&good, 2), short(0));
    assert_eq!(check(&tx(vec![Witness::new()], vec![pay(vault.script(), 9_999)]), 0), short(9_999));
    // Credited as a deposit already.
    let deposit = deposit_outputs(&vault.script(), &[(Address::ZERO, Sats(10_000))]);
    assert_eq!(check(&tx(vec![Witness::new()], deposit), 0), short(0));
    // The vault's own money.
    let (leaf, control) = vault.spend_leaf();
    let spend = Witness::from_slice(&[leaf.to_bytes(), control]);
    assert_eq!(
        Payer::new(&tx(vec![spend], vec![enough()])).paid(0, &scripts, L1Height(5)),
        Sats(0)
    );
}

#[test]
fn tags_are_these_scripts() {
    let vault = ScriptBuf::from_hex(&format!("5120{}", "11".repeat(32))).unwrap();
    let table = [
        (
            Tagged::Deposit(vec![Address::repeat_byte(0xab)]),
            format!("6a186b646764{}", "ab".repeat(20)),
        ),
        (Tagged::Payout { first: 0x0102, count: 3 }, "6a106b646777000000000000010200000003".into()),
        (Tagged::Rotation(vault), format!("6a266b6467765120{}", "11".repeat(32))),
    ];
    for (tagged, script) in table {
        assert_eq!(hex::encode(tagged.script().as_bytes()), script);
        assert_eq!(parse_script(&tagged.script()), Some(Ok(tagged)));
    }
    for bad in [
        "6a0f6b64677700000000000001020000ff".to_owned(), // a payout cut short
        "6a106b646777000000000000010200000000".to_owned(), // of none
        format!("6a266b6467760020{}", "11".repeat(32)),  // a rotation to P2WSH
        format!("6a4c186b646764{}", "ab".repeat(20)),    // a push that is not minimal
    ] {
        let script = ScriptBuf::from_hex(&bad).unwrap();
        assert_eq!(parse_script(&script), Some(Err(TagFault::Malformed)), "{bad}");
        assert_eq!(parse_tx(&tx(vec![], vec![pay(script, 0)])), Err(TagFault::Malformed));
    }
}

#[test]
fn attributes_come_from_the_depositor_with_the_op_stacks_source_hash() {
    let at = L1Attributes {
        number: 1,
        hash: B256::repeat_byte(0x11),
        merkle_root: B256::repeat_byte(0x22),
        median_time: 3,
        fee_rate: 1_000,
        sequence_number: 0,
    };
    let tx = attributes_tx(params(), &at);
    assert_eq!((tx.from, tx.to.to().copied()), (predeploys::DEPOSITOR, Some(predeploys::L1_BLOCK)));
    assert_eq!((tx.mint, tx.value, tx.gas_limit), (0, U256::ZERO, params().attributes_gas));
    assert_eq!(
        tx.source_hash,
        b256!("9c53a2c26ce018b188ff047117ee61b8d0763372b32fc0586e3b59fa819fe7bc")
    );
}

proptest! {
    #[test]
    fn tags_round_trip(recipients in prop::collection::vec(any::<[u8; 20]>().prop_map(Address::from), 1..30), first in any::<u64>(), count in 1u32..) {
        for tagged in [Tagged::Deposit(recipients), Tagged::Payout { first, count }] {
            let found = tx(vec![], vec![pay(elsewhere(), 1), tagged.tx_out()]);
            prop_assert_eq!(parse_tx(&found), Ok(Some(tagged)));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut script = vec![0x6a];
        script.extend(&noise);
        let _ = parse_script(&ScriptBuf::from_bytes(script));
        let _ = Forced::decode(&noise, params());
        if let Some(body) = AssertionBody::decode(&noise) {
            prop_assert_eq!(body.encode(), noise);
        }
    }

    #[test]
    fn assertions_round_trip(parent in any::<[u8; 32]>(), height in any::<u32>(), claims in prop::collection::vec(any::<[u8; 32]>().prop_map(B256::from), 1..40)) {
        let body = AssertionBody {
            parent: parent.into(),
            l1: L1Ref { height: L1Height(height), hash: B256::ZERO },
            claims,
            ..body()
        };
        prop_assert_eq!(AssertionBody::decode(&body.encode()), Some(body));
    }
}
