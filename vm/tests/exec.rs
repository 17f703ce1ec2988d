//! Execution of payloads: what is included, what is skipped and why, what the meter says, what the
//! header says.

mod common;

use alloy_consensus::{Eip658Value, Transaction, TxReceipt, transaction::SignerRecoverable};
use alloy_eips::{Encodable2718, eip7685::EMPTY_REQUESTS_HASH};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use alloy_rlp::Decodable;
use common::*;
use kedge_genesis::{alloc, predeploys};
use kedge_vm::{
    ExecuteError, Header, OpReceiptEnvelope, Payload, PayloadTx, SkipReason, TxDeposit, execute,
    genesis_block, intrinsic_gas, next_base_fee, output_root, trie,
};

fn success(receipt: &OpReceiptEnvelope) -> bool {
    receipt.status_or_post_state() == Eip658Value::Eip658(true)
}

#[test]
fn genesis_has_the_predeploys_and_no_coins() {
    let genesis = genesis_block(params(), &alloc(params(), &[0x51])).unwrap();
    assert_eq!(genesis.header.number, 0);
    assert_eq!(genesis.header.timestamp, u64::from(params().l1_start_time));
    assert_eq!(genesis.header.mix_hash, params().l1_start.hash);
    assert_eq!(genesis.header.base_fee_per_gas, Some(params().fees.initial_base_fee));
    assert_eq!(genesis.hash, genesis.header.hash_slow());
    let supply: U256 =
        genesis.state.accounts.values().flatten().map(|account| account.balance).sum();
    assert_eq!(supply, U256::ZERO);
    let passer = genesis.state.accounts[&predeploys::L2_TO_L1_MESSAGE_PASSER].unwrap();
    assert!(genesis.state.codes.contains_key(&passer.code_hash));
    assert_eq!(
        genesis.output_root,
        output_root(
            genesis.header.state_root,
            genesis.header.withdrawals_root.unwrap(),
            genesis.hash
        )
    );
}

#[test]
fn a_header_states_what_its_block_did() {
    let mut chain = Chain::funded();
    let parent = chain.head.clone();
    let tx = account(0).sign(call(0, TxKind::Call(Address::repeat_byte(9)), 5, Bytes::new()));
    let payload = chain.payload(vec![attributes(2), user(&tx)]);
    let block = chain.execute(payload.transactions.clone());
    let header = &block.header;
    assert_eq!(header.parent_hash, parent.hash_slow());
    assert_eq!(header.number, 2);
    assert_eq!(header.timestamp, payload.timestamp);
    assert_eq!(header.mix_hash, payload.origin.hash);
    assert_eq!(header.beneficiary, predeploys::SEQUENCER_FEE_VAULT);
    assert_eq!(header.gas_limit, params().block_gas_limit);
    assert_eq!(header.extra_data[..], hex!("01 00000032 00000002 00000000000f4240"));
    assert_eq!(header.parent_beacon_block_root, Some(B256::ZERO));
    assert_eq!(header.requests_hash, Some(EMPTY_REQUESTS_HASH));
    assert_eq!(header.blob_gas_used, Some(0));
    assert_eq!(header.excess_blob_gas, Some(0));
    assert_eq!(header.base_fee_per_gas, next_base_fee(&parent));
    assert_eq!(header.gas_used, block.receipts.last().unwrap().cumulative_gas_used());
    assert_eq!(block.hash, header.hash_slow());
    assert_eq!(block.transactions.len(), 2);
    assert_eq!(block.senders[1], account(0).address);
    assert!(block.skipped.is_empty());
    let proof = trie::prove_account(
        header.state_root,
        predeploys::L2_TO_L1_MESSAGE_PASSER,
        &[],
        &mut chain.db,
    )
    .unwrap();
    assert_eq!(header.withdrawals_root, Some(proof.account.storage_root));
}

#[test]
fn transfers_of_every_type_pay_the_recipient_and_the_vaults() {
    let mut chain = Chain::funded();
    let to = Address::repeat_byte(9);
    let base = call(0, TxKind::Call(to), 7, Bytes::new());
    let authority = account(7);
    let txs = [
        account(0).sign(legacy(&base)),
        account(1).sign(eip2930(&base)),
        account(2).sign(base.clone()),
        account(3).sign(eip7702(&base, to, vec![authority.authorize(0, to)])),
    ];
    let supply =
        |chain: &Chain| -> U256 { chain.db.accounts.values().map(|account| account.balance).sum() };
    let before = supply(&chain);
    let mut listed = vec![attributes(2)];
    listed.extend(txs.iter().map(user));
    let block = chain.execute(listed);
    assert_eq!(block.skipped, []);
    assert!(block.receipts.iter().all(success));
    assert_eq!(chain.balance(to), U256::from(4 * 7));
    assert_eq!(supply(&chain), before, "fees move, coins neither appear nor vanish");
    for vault in
        [predeploys::SEQUENCER_FEE_VAULT, predeploys::BASE_FEE_VAULT, predeploys::L1_FEE_VAULT]
    {
        assert!(!chain.balance(vault).is_zero(), "{vault} got nothing");
    }
    let delegated = chain.db.accounts[&authority.address];
    assert_eq!(chain.db.codes[&delegated.code_hash][..3], hex!("ef0100"));
}

#[test]
fn the_l1_fee_is_what_the_helper_says() {
    let mut chain = Chain::funded();
    let tx = account(0).sign(call(0, TxKind::Call(Address::repeat_byte(9)), 0, vec![7; 300]));
    chain.execute(vec![attributes(2), user(&tx)]);
    let info = chain.config.l1_block_info(2, &mut chain.db).unwrap();
    let fee = chain.config.l1_fee(&info, &tx.encoded_2718());
    assert_eq!(chain.balance(predeploys::L1_FEE_VAULT), fee);
    assert!(fee > U256::ZERO);
}

#[test]
fn contracts_are_deployed_and_keep_state_across_blocks() {
    let mut chain = Chain::funded();
    // SSTORE(0, SLOAD(0) + 1); RETURN BLOCKHASH(NUMBER - 1) into slot 1
    let runtime = hex!("6001 5f54 01 5f55 6001 43 03 40 6001 55");
    let runtime: Vec<u8> = runtime.to_vec();
    let deploy = account(0).sign(call(0, TxKind::Create, 0, deployer(&runtime)));
    let block = chain.execute(vec![attributes(2), user(&deploy)]);
    assert!(success(&block.receipts[1]));
    let contract = account(0).address.create(0);
    assert_eq!(block.state.codes[&keccak256(&runtime)], runtime);
    for round in 1..4u64 {
        let parent = chain.head.hash_slow();
        let tx = account(0).sign(call(round, TxKind::Call(contract), 0, Bytes::new()));
        chain.execute(vec![attributes(2 + round), user(&tx)]);
        assert_eq!(chain.db.storage[&(contract, U256::ZERO)], U256::from(round));
        assert_eq!(B256::from(chain.db.storage[&(contract, U256::ONE)]), parent);
    }
}

#[test]
fn deposits_mint_even_when_they_fail() {
    let mut chain = Chain::funded();
    // A contract that reverts, and one that runs out of gas.
    let revert = account(0).sign(call(0, TxKind::Create, 0, deployer(&hex!("5f5ffd"))));
    let burn = account(0).sign(call(1, TxKind::Create, 0, deployer(&hex!("5b5f56"))));
    chain.execute(vec![attributes(2), user(&revert), user(&burn)]);
    for (index, nonce) in [(0, 0u64), (1, 1)] {
        let target = account(0).address.create(nonce);
        let from = Address::repeat_byte(0xa0 + index);
        let deposit = TxDeposit {
            source_hash: B256::repeat_byte(index),
            from,
            to: TxKind::Call(target),
            mint: 55,
            value: U256::from(55),
            gas_limit: 60_000,
            ..Default::default()
        };
        let block = chain.execute(vec![attributes(3), PayloadTx::System(deposit)]);
        assert_eq!(block.skipped, []);
        assert!(!success(&block.receipts[1]));
        assert_eq!(chain.balance(from), U256::from(55));
        assert_eq!(chain.balance(target), U256::ZERO);
        let OpReceiptEnvelope::Deposit(receipt) = &block.receipts[1] else { panic!("a deposit") };
        assert_eq!(receipt.receipt.deposit_nonce, Some(0));
        assert_eq!(receipt.receipt.deposit_receipt_version, Some(1));
        assert_eq!(chain.nonce(from), 1);
    }
    assert_eq!(chain.balance(account(1).address), U256::from(COIN));
}

#[test]
fn what_cannot_be_executed_is_skipped_with_its_reason_and_leaves_no_trace() {
    let mut chain = Chain::funded();
    deploy_reader(&mut chain);
    let to = TxKind::Call(Address::repeat_byte(9));
    let good = account(1).sign(call(0, to, 1, Bytes::new()));
    let (poor, rich) = (account(99), account(0));

    let mut trailing = good.encoded_2718();
    trailing.push(0);
    let mut blob = good.encoded_2718();
    blob[0] = 3;
    let PayloadTx::System(deposit) = mint(Address::repeat_byte(1), COIN) else { unreachable!() };
    let mut unsigned = legacy(&call(0, to, 1, Bytes::new()));
    unsigned.chain_id = None;
    let unsigned =
        kedge_vm::OpTxEnvelope::Legacy(alloy_consensus::SignableTransaction::into_signed(
            unsigned,
            alloy_primitives::Signature::new(U256::MAX, U256::ONE, false),
        ));
    assert!(unsigned.recover_signer().is_err());
    let mut huge = call(0, to, 1, Bytes::new());
    huge.gas_limit = params().block_gas_limit;
    let mut cheap = call(0, to, 1, Bytes::new());
    cheap.max_fee_per_gas = 1;
    cheap.max_priority_fee_per_gas = 0;
    let mut other_chain = call(0, to, 1, Bytes::new());
    other_chain.chain_id = 1;
    let mut starved = call(0, to, 1, Bytes::new());
    starved.gas_limit = 20_000;
    type Expected = fn(&SkipReason) -> bool;
    let cases: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("garbage", vec![1, 2, 3], |r| *r == SkipReason::Undecodable),
        ("nothing", vec![], |r| *r == SkipReason::Undecodable),
        ("trailing byte", trailing, |r| *r == SkipReason::Undecodable),
        ("blob transaction", blob, |r| *r == SkipReason::Undecodable),
        ("deposit as user", deposit.encoded_2718(), |r| *r == SkipReason::Undecodable),
        ("no sender", unsigned.encoded_2718(), |r| *r == SkipReason::Signature),
        ("more gas than a block", rich.sign(huge).encoded_2718(), |r| {
            matches!(r, SkipReason::GasLimit { .. })
        }),
        (
            "nonce gap",
            rich.sign(call(1, to, 1, Bytes::new())).encoded_2718(),
            |r| matches!(r, SkipReason::Invalid(text) if text.contains("nonce")),
        ),
        (
            "no funds",
            poor.sign(call(0, to, 1, Bytes::new())).encoded_2718(),
            |r| matches!(r, SkipReason::Invalid(text) if text.contains("fund")),
        ),
        (
            "below the base fee",
            rich.sign(cheap).encoded_2718(),
            |r| matches!(r, SkipReason::Invalid(text) if text.contains("basefee")),
        ),
        (
            "other chain",
            rich.sign(other_chain).encoded_2718(),
            |r| matches!(r, SkipReason::Invalid(text) if text.contains("chain")),
        ),
        (
            "below intrinsic gas",
            rich.sign(starved).encoded_2718(),
            |r| matches!(r, SkipReason::Invalid(text) if text.contains("gas")),
        ),
        ("replay", good.encoded_2718(), |r| matches!(r, SkipReason::Invalid(_))),
        ("too much state", rich.sign(reading(3_000)).encoded_2718(), |r| {
            *r == SkipReason::WitnessLimit
        }),
    ];

    let without = chain.try_execute(vec![attributes(2), user(&good)]);
    for (name, bytes, expected) in &cases {
        let listed = vec![attributes(2), user(&good), PayloadTx::User(bytes.clone().into())];
        let block = chain.try_execute(listed);
        assert_eq!(block.skipped.len(), 1, "{name}");
        let (index, reason) = &block.skipped[0];
        assert_eq!(*index, 2, "{name}");
        assert!(expected(reason), "{name}: {reason:?}");
        assert_eq!(block.header, without.header, "{name} left a trace");
        assert!(block.metered_gas >= without.metered_gas + intrinsic_gas(bytes), "{name}");
    }

    // All of them at once, before the good one: still no trace, not even a warm account.
    let mut listed = vec![attributes(2)];
    let reads_first_sender = account(2).sign(call(0, TxKind::Call(rich.address), 0, Bytes::new()));
    let without = chain.try_execute(vec![attributes(2), user(&reads_first_sender)]);
    listed.extend(
        cases
            .iter()
            .filter(|(name, ..)| !["replay", "too much state"].contains(name))
            .map(|(_, bytes, _)| PayloadTx::User(bytes.clone().into())),
    );
    listed.push(user(&reads_first_sender));
    let block = chain.try_execute(listed);
    assert_eq!(block.skipped.len(), cases.len() - 2);
    assert_eq!(block.header, without.header);
}

/// Reads as many slots of its own as its call data says: n times `SLOAD(n)`, counting down.
const READER: &[u8] = &hex!("5f35 5b 60019003 805450 80600257");

/// A transaction that reads `count` slots of account 6's first contract, a [`READER`].
fn reading(count: u64) -> alloy_consensus::TxEip1559 {
    let to = TxKind::Call(account(6).address.create(0));
    let mut tx = call(0, to, 0, B256::from(U256::from(count)).to_vec());
    tx.gas_limit = 100_000 + 3_000 * count;
    tx
}

fn deploy_reader(chain: &mut Chain) {
    let deploy = account(6).sign(call(0, TxKind::Create, 0, deployer(READER)));
    let block = chain.execute(vec![attributes(2), user(&deploy)]);
    assert!(success(&block.receipts[1]));
}

#[test]
fn a_skipped_transaction_does_not_warm_what_it_touched() {
    let mut chain = Chain::funded();
    // BALANCE of the sender whose transaction was skipped, stored gas cost aside.
    let victim = account(3).address;
    let mut runtime = vec![0x73];
    runtime.extend_from_slice(victim.as_slice());
    runtime.extend_from_slice(&[0x31, 0x50]);
    let deploy = account(0).sign(call(0, TxKind::Create, 0, deployer(&runtime)));
    chain.execute(vec![attributes(2), user(&deploy)]);
    let contract = account(0).address.create(0);
    let probe = user(&account(0).sign(call(1, TxKind::Call(contract), 0, Bytes::new())));
    let skipped = user(&account(3).sign(call(77, TxKind::Call(contract), 0, Bytes::new())));
    let with = chain.try_execute(vec![skipped, probe.clone()]);
    let without = chain.try_execute(vec![probe]);
    assert_eq!(with.skipped.len(), 1);
    assert_eq!(with.header.gas_used, without.header.gas_used);
}

#[test]
fn the_meter_counts_the_overhead_and_at_least_intrinsic_gas() {
    let mut chain = Chain::funded();
    let empty = chain.try_execute(vec![]);
    assert_eq!(empty.metered_gas, params().block_overhead_gas);
    assert_eq!(empty.header.gas_used, 0);

    let to = TxKind::Call(Address::repeat_byte(9));
    let good = account(1).sign(call(0, to, 1, Bytes::new()));
    let bad = account(1).sign(call(5, to, 1, vec![1; 100]));
    let block = chain.try_execute(vec![user(&good), user(&bad)]);
    let floor = 21_000 + 100 * 40;
    assert_eq!(intrinsic_gas(&bad.encoded_2718()), floor);
    assert_eq!(block.metered_gas, params().block_overhead_gas + 21_000 + floor);
    assert_eq!(intrinsic_gas(&[0; 10]), 21_000 + 160);

    let deposit = chain.try_execute(vec![attributes(2)]);
    assert_eq!(deposit.metered_gas, params().block_overhead_gas + deposit.header.gas_used);
}

#[test]
fn what_is_listed_never_takes_the_meter_past_the_block_limit() {
    let mut chain = Chain::funded();
    let burn = account(0).sign(call(0, TxKind::Create, 0, deployer(&hex!("5b5f56"))));
    chain.execute(vec![attributes(2), user(&burn)]);
    let contract = account(0).address.create(0);
    let limit = params().block_gas_limit;

    // Alone, a transaction may declare everything but the block's overhead, and burn it.
    let mut all = call(0, TxKind::Call(contract), 0, Bytes::new());
    all.gas_limit = chain.config.max_transaction_gas();
    let block = chain.try_execute(vec![user(&account(1).sign(all.clone()))]);
    assert_eq!(block.skipped, []);
    assert_eq!(block.metered_gas, limit);
    all.gas_limit += 1;
    let block = chain.try_execute(vec![user(&account(1).sign(all.clone()))]);
    assert!(matches!(block.skipped[0].1, SkipReason::GasLimit { .. }));

    // Room is kept for the intrinsic gas of everything else that is listed.
    all.gas_limit -= 1;
    let small = user(&account(2).sign(call(0, TxKind::Call(Address::ZERO), 0, Bytes::new())));
    let block = chain.try_execute(vec![user(&account(1).sign(all)), small]);
    assert_eq!(block.skipped.len(), 1);
    assert_eq!(block.skipped[0].0, 0);

    let listed: Vec<_> = (0..8)
        .map(|number| {
            let nonce = u64::from(number == 0);
            let mut tx = call(nonce, TxKind::Call(contract), 0, Bytes::new());
            tx.gas_limit = 5_000_000;
            user(&account(number).sign(tx))
        })
        .collect();
    let block = chain.try_execute(listed);
    assert_eq!(block.transactions.len(), 3);
    assert_eq!(block.skipped.len(), 5);
    assert!(block.metered_gas <= limit);
}

#[test]
fn the_witness_meter_stops_a_transaction_that_reads_too_much() {
    let mut chain = Chain::funded();
    deploy_reader(&mut chain);
    let small = chain.try_execute(vec![attributes(2)]);
    let fits = user(&account(0).sign(reading(1_000)));
    let block = chain.try_execute(vec![attributes(2), fits]);
    assert_eq!(block.skipped, []);
    assert!(block.witness_bytes >= small.witness_bytes + 1_000 * 1_500);

    let block = chain.try_execute(vec![
        attributes(2),
        user(&account(0).sign(reading(3_000))),
        user(&account(1).sign(reading(100))),
    ]);
    // What it loaded until it was stopped stays part of the witness, and here fills it.
    assert_eq!(block.skipped, [(1, SkipReason::WitnessLimit), (2, SkipReason::WitnessLimit)]);
    assert!(block.witness_bytes <= params().block_witness_limit);
    // It may have used all that it declared before it was stopped, so it pays for that.
    assert!(block.metered_gas >= 9_100_000);
    assert!(block.header.gas_used < 1_500_000);
}

#[test]
fn base_fees_follow_the_parent() {
    let fees = params().fees;
    let limit = params().block_gas_limit;
    let extra_data = config().extra_data();
    let header = |gas_used, base_fee| Header {
        gas_limit: limit,
        gas_used,
        base_fee_per_gas: Some(base_fee),
        extra_data: extra_data.clone(),
        blob_gas_used: Some(0),
        ..Default::default()
    };
    let high = 1_000_000_000;
    for (gas_used, base_fee, expected) in [
        (limit / 2, high, high),
        (limit, high, high + high / u64::from(fees.denominator)),
        (0, high, high - high / u64::from(fees.denominator)),
        (0, fees.min_base_fee, fees.min_base_fee),
        (limit / 2 + 1, 10_000_000, 10_000_001),
    ] {
        assert_eq!(next_base_fee(&header(gas_used, base_fee)), Some(expected));
    }
    // The data footprint counts when it is larger than the gas used.
    let mut heavy = header(0, high);
    heavy.blob_gas_used = Some(limit);
    assert_eq!(next_base_fee(&heavy), Some(high + high / u64::from(fees.denominator)));
    for extra_data in [Bytes::new(), Bytes::from_static(&[2; 17]), Bytes::from_static(&[1; 9])] {
        assert_eq!(next_base_fee(&Header { extra_data, ..header(0, high) }), None);
    }
}

#[test]
fn a_payload_must_follow_its_parent() {
    let mut chain = Chain::funded();
    let mut payload = chain.payload(vec![]);
    payload.number.0 += 1;
    let parent = chain.head.clone();
    let result = execute(&chain.config, &parent, parent.hash_slow(), &payload, &mut chain.db);
    assert!(matches!(result, Err(ExecuteError::WrongParent { .. })));
}

#[test]
fn payload_ids_are_of_their_canonical_encoding() {
    let chain = Chain::new();
    let payload = chain.payload(vec![
        attributes(1),
        mint(Address::repeat_byte(1), 5),
        PayloadTx::User(Bytes::from_static(b"\x7e anything")),
        PayloadTx::User(Bytes::new()),
    ]);
    let encoded = alloy_rlp::encode(&payload);
    assert_eq!(Payload::decode(&mut &encoded[..]), Ok(payload.clone()));
    assert_eq!(payload.id(), keccak256(&encoded));
    let mut other = payload.clone();
    other.timestamp += 1;
    assert_ne!(other.id(), payload.id());
    let PayloadTx::System(deposit) = &payload.transactions[0] else { unreachable!() };
    let mut disguised = payload.clone();
    disguised.transactions[0] = PayloadTx::User(deposit.encoded_2718().into());
    assert_ne!(disguised.id(), payload.id());
    for end in 0..encoded.len() {
        assert!(Payload::decode(&mut &encoded[..end]).is_err());
    }
}

/// A contract that returns what a precompile answers to its own call data, and the gas that took.
fn call_precompile(chain: &mut Chain, precompile: Address, input: &[u8]) -> (Vec<u8>, u64) {
    use alloy_evm::Evm as _;
    use alloy_op_evm::OpTx;
    let env = chain.config.call_env(&chain.head);
    let mut evm = chain.config.evm(env, &mut chain.db);
    let mut tx = OpTx::default();
    tx.0.base.caller = account(0).address;
    tx.0.base.kind = TxKind::Call(precompile);
    tx.0.base.data = input.to_vec().into();
    tx.0.base.gas_limit = 1_000_000;
    tx.0.base.chain_id = Some(params().chain_id);
    tx.0.enveloped_tx = Some(Bytes::new());
    let result = evm.transact_raw(tx).unwrap().result;
    assert!(result.is_success(), "{result:?}");
    let gas = result.tx_gas_used();
    (result.into_output().unwrap().to_vec(), gas)
}

#[test]
fn the_schnorr_precompile_verifies_bip340() {
    let mut chain = Chain::funded();
    // Test vectors 0 and 1 of BIP-340.
    let vectors = [
        (
            hex!("0000000000000000000000000000000000000000000000000000000000000000"),
            hex!("F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9"),
            hex!(
                "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA821525F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0"
            ),
        ),
        (
            hex!("243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89"),
            hex!("DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659"),
            hex!(
                "6896BD60EEAE296DB48A229FF71DFE071BDE413E6D43F917DC8DCF8C78DE33418906D11AC976ABCCB20B091292BFF4EA897EFCB639EA871CFA95F6DE339E4B0A"
            ),
        ),
    ];
    for (message, key, signature) in vectors {
        let input = [&message[..], &key, &signature].concat();
        let (output, _) = call_precompile(&mut chain, predeploys::SCHNORR, &input);
        assert_eq!(output, B256::with_last_byte(1).to_vec());
        for position in [0, 40, 70, 127] {
            let mut wrong = input.clone();
            wrong[position] ^= 1;
            assert!(call_precompile(&mut chain, predeploys::SCHNORR, &wrong).0.is_empty());
        }
        for length in [0, 127] {
            assert!(
                call_precompile(&mut chain, predeploys::SCHNORR, &input[..length]).0.is_empty()
            );
        }
    }
    let (_, with) = call_precompile(&mut chain, predeploys::SCHNORR, &[]);
    let (_, without) = call_precompile(&mut chain, Address::repeat_byte(0x77), &[]);
    assert_eq!(with - without, 4_000);
}

#[test]
fn osaka_rules_are_active() {
    let mut chain = Chain::funded();
    // CLZ (EIP-7939): CLZ(1) = 255, stored.
    let deploy = account(0).sign(call(0, TxKind::Create, 0, deployer(&hex!("6001 1e 5f55"))));
    chain.execute(vec![attributes(2), user(&deploy)]);
    let contract = account(0).address.create(0);
    let tx = account(0).sign(call(1, TxKind::Call(contract), 0, Bytes::new()));
    let block = chain.execute(vec![user(&tx)]);
    assert!(success(&block.receipts[0]));
    assert_eq!(chain.db.storage[&(contract, U256::ZERO)], U256::from(255));
    // P256VERIFY costs 6,900 (EIP-7951).
    let p256 = Address::with_last_byte(0);
    let p256 =
        Address::from_word(B256::from(U256::from(0x100) | U256::from_be_slice(p256.as_slice())));
    let (_, with) = call_precompile(&mut chain, p256, &[]);
    let (_, without) = call_precompile(&mut chain, Address::repeat_byte(0x77), &[]);
    assert_eq!(with - without, 6_900);
}

#[test]
fn types_of_included_transactions_are_kept() {
    let mut chain = Chain::funded();
    let tx = account(0).sign(legacy(&call(0, TxKind::Call(Address::ZERO), 0, Bytes::new())));
    let block = chain.try_execute(vec![user(&tx)]);
    assert_eq!(block.transactions[0].encoded_2718(), tx.encoded_2718());
    assert_eq!(block.transactions[0].gas_limit(), 1_000_000);
    assert!(matches!(block.receipts[0], OpReceiptEnvelope::Legacy(_)));
}
