//! Chains that a sequencer or a user makes hard to judge.

use super::{overturn, propose, provable, settles};
use crate::world::{Account, World, account, creation, params};
use alloy_consensus::{EthereumTxEnvelope, SignableTransaction, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use kedge_bridge::assertion::AssertionBody;
use kedge_fraud_proof::{Claim, FraudKind};
use kedge_genesis::{L2Number, Network, Params, Sats};
use kedge_vm::MemoryDb;

/// A world in which `rich` has coins on L2; two L1 blocks.
fn rich_world(params: Params, rich: &Account) -> World {
    let mut world = World::new(params);
    let deposit = world.deposit(&[(rich.address(), Sats(100_000_000))]);
    world.mine(vec![deposit]);
    let batch = world.batch(vec![vec![]]);
    world.mine(vec![batch]);
    world
}

/// Puts a batch of these blocks on Bitcoin; gives the height of its block.
fn post(world: &mut World, lists: Vec<Vec<Bytes>>) -> u32 {
    let batch = world.batch(lists);
    world.mine(vec![batch]);
    world.state.l1.height.0
}

/// The L2 state after all that is derived.
fn state(world: &World) -> MemoryDb {
    world.pre(&world.last_claim(world.state.l1.height)).1
}

#[test]
fn segment_at_target_exactly() {
    let rich = account(1);
    let to = |n: u8| TxKind::Call(Address::repeat_byte(n));
    let build = |target: u64| {
        let mut world = rich_world(Params { segment_target_gas: target, ..params() }, &rich);
        let lists = (0..4).map(|n| vec![rich.send(n, to(n as u8 + 1), 7, vec![])]).collect();
        let height = post(&mut world, lists);
        (world, height)
    };
    let (world, height) = build(1_000_000);
    let gas: Vec<u64> = world.applied[&height].iter().map(|applied| applied.metered_gas).collect();
    assert_eq!(gas.len(), 4);
    let offsets = |world: &World| -> Vec<u32> {
        world.claims[&height].iter().map(|claim| claim.offset).collect()
    };
    // The segment ends with the block that reaches the target, be it by nothing.
    let target = gas[0] + gas[1];
    let (mut exact, _) = build(target);
    assert_eq!(offsets(&exact), [2, 0]);
    let (above, _) = build(target + 1);
    assert_eq!(offsets(&above), [3, 0]);
    let (below, _) = build(target - 1);
    assert_eq!(offsets(&below), [2, 0]);
    provable(&exact, height);
    // A proposer who counts one gas more, or ends a segment one block early, is wrong at that boundary.
    let before = exact.truth(0, height - 1);
    let early = Claim { offset: 1, ..exact.claims[&height][0] };
    exact.mine(vec![]);
    for claims in [above.claims[&height].clone(), vec![early, exact.claims[&height][1]]] {
        let claims: Vec<_> = before.iter().copied().chain(claims).collect();
        let id = propose(&mut exact, height, &claims);
        let proof = overturn(&mut exact, id);
        assert_eq!(proof.segment as usize, before.len());
    }
    let truth = exact.truth(0, height);
    let right = propose(&mut exact, height, &truth);
    settles(&mut exact, right);
}

#[test]
fn batch_of_invalid_transactions_only() {
    let (rich, poor) = (account(1), account(9));
    let mut world = rich_world(params(), &rich);
    let to = TxKind::Call(Address::repeat_byte(3));
    let nobody = TxLegacy { gas_limit: 21_000, to, ..Default::default() };
    let nobody = nobody.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    let nobody = EthereumTxEnvelope::<TxEip4844>::from(nobody).encoded_2718();
    let invalid = vec![
        rich.send(7, to, 1, vec![]),             // not its next nonce
        poor.send(0, to, 1, vec![]),             // no coins
        rich.send(0, to, u64::MAX, vec![]),      // not so many
        nobody.into(),                           // nobody's signature
        rich.send_gas(0, to, 1, vec![], 20_000), // less gas than it takes
    ];
    let before = state(&world);
    let height = post(&mut world, vec![invalid.clone(), invalid.clone(), invalid]);
    let after = state(&world);
    assert_eq!(after.accounts.get(&rich.address()), before.accounts.get(&rich.address()));
    assert_eq!(after.accounts.get(&Address::repeat_byte(3)), None);
    // They cost the meter what they would have cost at least, so the segments end.
    let least = world.params.block_overhead_gas + 5 * 21_000;
    assert!(world.applied[&height].iter().all(|applied| applied.metered_gas >= least));
    assert!(world.claims[&height].len() > 1);
    provable(&world, height);
}

/// The main network's limits allow 10,000 blocks in a Bitcoin block: 250 segments of 40 empty ones, here one
/// more since the first block begins an epoch. An assertion of one chunk has room for 48 such Bitcoin blocks,
/// so a million blocks are 100 Bitcoin blocks, 25,000 claims, three assertions, each of whose segments is
/// judged as these are.
#[test]
fn million_empty_blocks() {
    let Params { network, chain_id, keys, l1_start, .. } = *Network::Dev.params();
    let params = Params { network, chain_id, keys, l1_start, ..*Network::Mainnet.params() };
    let mut world = rich_world(params, &account(1));
    let most = params.max_batch_blocks;
    let first = world.state.cursor.number.0;
    let height = post(&mut world, vec![vec![]; most as usize]);
    assert_eq!(world.state.cursor.number, L2Number(first + u64::from(most)));
    let claims = world.claims[&height].clone();
    assert_eq!(params.max_segment_blocks(), 40);
    assert_eq!(claims.len(), 251);
    let body = AssertionBody {
        parent: B256::ZERO,
        params_hash: B256::ZERO,
        l1: world.state.l1,
        claims: vec![B256::ZERO; 48 * claims.len()],
    };
    assert!(body.encode().len() < params.max_chunk_bytes as usize);
    world.mine(vec![]);
    for segment in [0, claims.len() / 2, claims.len() - 1] {
        let mut wrong = world.truth(0, height);
        let at = wrong.len() - claims.len() + segment;
        wrong[at].output_root = B256::ZERO;
        let id = propose(&mut world, height, &wrong);
        let proof = overturn(&mut world, id);
        assert_eq!((proof.segment as usize, proof.kind), (at, FraudKind::OutputRoot));
    }
}

#[test]
fn self_destruct_and_recreate() {
    let rich = account(1);
    let mut world = rich_world(params(), &rich);
    // Creates what its call data says with CREATE2, and calls it with as much gas as it is sent wei.
    let factory = [
        0x36, 0x5f, 0x5f, 0x37, 0x5f, 0x36, 0x5f, 0x5f, 0xf5, 0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x85,
        0x34, 0xf1, 0x00,
    ];
    // Stores the block's number in slot 0 and leaves code that destroys itself.
    let child = [0x43, 0x5f, 0x55, 0x61, 0x33, 0xff, 0x5f, 0x52, 0x60, 0x02, 0x60, 0x1e, 0xf3];
    let at = rich.address().create(0);
    let address = at.create2(B256::ZERO, keccak256(child));
    let call = |nonce: u64, wei: u64| rich.send(nonce, TxKind::Call(at), wei, child.to_vec());
    let created = post(&mut world, vec![vec![rich.send(0, TxKind::Create, 0, creation(&factory))]]);
    let exists = |world: &World| {
        let db = state(world);
        (db.accounts.contains_key(&address), db.storage.get(&(address, U256::ZERO)).copied())
    };
    // Created and destroyed by one transaction; then twice in one block, the second time to stay.
    let gone = post(&mut world, vec![vec![call(1, 50_000)]]);
    assert_eq!(exists(&world), (false, None));
    let back = post(&mut world, vec![vec![call(2, 50_000), call(3, 0)], vec![call(4, 50_000)]]);
    let number = world.state.cursor.number.0 - 1;
    assert_eq!(exists(&world), (true, Some(U256::from(number))));
    for height in [created, gone, back] {
        provable(&world, height);
    }
}

#[test]
fn blockhash_of_256_ancestors() {
    let rich = account(1);
    let params = Params { segment_target_gas: 2_000_000, ..params() };
    let mut world = rich_world(params, &rich);
    // The exclusive or of the hashes of the 256 blocks below, stored under the block's number.
    let code = [
        0x5f, 0x61, 0x01, 0x00, 0x5b, 0x80, 0x43, 0x03, 0x40, 0x90, 0x91, 0x18, 0x90, 0x60, 0x01,
        0x90, 0x03, 0x80, 0x60, 0x04, 0x57, 0x50, 0x43, 0x55, 0x00,
    ];
    let at = rich.address().create(0);
    post(&mut world, vec![vec![rich.send(0, TxKind::Create, 0, creation(&code))]]);
    post(&mut world, vec![vec![]; 260]);
    let call = rich.send_gas(1, TxKind::Call(at), 0, vec![], 2_000_000);
    let height = post(&mut world, vec![vec![call]]);
    let number = world.state.cursor.number.0;
    let ancestors = world.hashes.iter().rev().skip(1).take(256);
    let expected = ancestors.fold(B256::ZERO, |sum, hash| sum ^ *hash);
    let slot = state(&world).storage.get(&(at, U256::from(number))).copied();
    assert_eq!(slot, Some(expected.into()));
    provable(&world, height);
}
