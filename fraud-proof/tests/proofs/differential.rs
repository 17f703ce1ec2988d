//! Random payloads and a random mutation of one claim: native verification, the program and the step itself
//! agree, always.

use crate::program::judge_both;
use crate::world::{Account, World, account, hashes, params};
use alloy_primitives::{Address, B256, Bytes, TxKind, keccak256};
use kedge_fraud_proof::{
    AssertionView, Claim, FraudKind, Verdict, first_divergence, genesis_claim,
};
use kedge_genesis::{L1Height, L2Number, Sats};
use proptest::prelude::*;
use proptest::sample::Index;

/// Opcodes that do something, more often than random bytes would.
const OPCODES: &[u8] = &[
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x12, 0x15, 0x16, 0x19,
    0x1a, 0x1b, 0x1d, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x39, 0x3a, 0x3b, 0x3c,
    0x3d, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x50, 0x51, 0x52, 0x53, 0x54,
    0x55, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x63, 0x80, 0x81, 0x82, 0x90,
    0x91, 0xa0, 0xa1, 0xf0, 0xf1, 0xf3, 0xf5, 0xfa, 0xfd, 0xff,
];

/// One transaction of a payload.
#[derive(Clone, Debug)]
enum Act {
    /// To one of a few accounts, some of them precompiles.
    Transfer { to: u16, value: u64, data: Vec<u8> },
    /// Creation with this code running at once, on a stack of a few words.
    Run(Vec<u8>),
    /// A nonce from the future: skipped.
    Gap,
    /// More than the sender has: skipped.
    TooMuch,
    /// Less gas than its data costs: skipped.
    NoGas,
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop::collection::vec(
        prop_oneof![4 => prop::sample::select(OPCODES), 1 => any::<u8>()],
        0..120,
    );
    prop_oneof![
        4 => (0u16..0x120, any::<u32>(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(to, value, data)| Act::Transfer { to, value: value.into(), data }),
        6 => code.prop_map(Act::Run),
        1 => Just(Act::Gap),
        1 => Just(Act::TooMuch),
        1 => Just(Act::NoGas),
    ]
}

/// L1 blocks, each with a batch of L2 blocks and perhaps a deposit.
type Plan = Vec<(Vec<Vec<(u8, Act)>>, Option<(u8, u32)>)>;

fn plan() -> impl Strategy<Value = Plan> {
    let block = prop::collection::vec((0u8..2, act()), 0..4);
    let batch = prop::collection::vec(block, 0..3);
    let deposit = prop::option::weighted(0.3, (any::<u8>(), 9_000u32..200_000));
    prop::collection::vec((batch, deposit), 1..3)
}

struct Sender {
    account: Account,
    nonce: u64,
}

impl Sender {
    fn sign(&mut self, act: &Act) -> Bytes {
        let nonce = self.nonce;
        self.nonce += 1;
        let to = TxKind::Call(Address::ZERO);
        match act {
            Act::Transfer { to, value, data } => {
                let to = Address::left_padding_from(&to.to_be_bytes());
                self.account.send(nonce, TxKind::Call(to), *value, data.clone())
            }
            Act::Run(code) => {
                // Words to work on: small numbers and the hash of the code.
                let mut init = vec![0x60, 0x20, 0x60, 0x01, 0x60, 0xff, 0x5f];
                init.push(0x7f);
                init.extend(keccak256(code));
                init.extend([0x60, 0x07, 0x60, 0x40]);
                init.extend(code);
                self.account.send(nonce, TxKind::Create, 0, init)
            }
            Act::Gap => {
                self.nonce = nonce;
                self.account.send(nonce + 9, to, 1, vec![])
            }
            Act::TooMuch => {
                self.nonce = nonce;
                self.account.send(nonce, to, u64::MAX, vec![])
            }
            Act::NoGas => {
                self.nonce = nonce;
                self.account.send_gas(nonce, to, 1, vec![1; 40], 21_000)
            }
        }
    }
}

fn world(plan: &Plan) -> World {
    let mut world = World::new(params());
    let mut senders = [1, 2].map(|number| Sender { account: account(number), nonce: 0 });
    let funds = senders.each_ref().map(|sender| (sender.account.address(), Sats(100_000_000)));
    let deposit = world.deposit(&funds);
    world.mine(vec![deposit]);
    for (batch, deposit) in plan {
        let mut txs = Vec::new();
        if !batch.is_empty() {
            let mut sign = |(who, act): &(u8, Act)| senders[usize::from(*who)].sign(act);
            let lists = batch.iter().map(|block| block.iter().map(&mut sign).collect()).collect();
            txs.push(world.batch(lists));
        }
        if let Some((to, sats)) = deposit {
            txs.push(world.deposit(&[(Address::repeat_byte(*to), Sats(u64::from(*sats)))]));
        }
        world.mine(txs);
    }
    // The last origin's blocks.
    let rest = world.batch(vec![vec![]]);
    world.mine(vec![rest]);
    world
}

/// A wrong claim in place of a right one, and what is wrong in it.
fn mutate(right: Claim, how: u8, hash: B256) -> (Claim, Option<FraudKind>) {
    match how {
        0 => (Claim { output_root: hash, ..right }, Some(FraudKind::OutputRoot)),
        1 => {
            (Claim { number: L2Number(right.number.0 + 1), ..right }, Some(FraudKind::BlockNumber))
        }
        2 => (Claim { derive_state: B256::ZERO, ..right }, Some(FraudKind::DeriveState)),
        3 => (
            Claim { l1_height: L1Height(right.l1_height.0 + 1), ..right },
            Some(FraudKind::L1Block),
        ),
        4 => (Claim { offset: right.offset + 1, ..right }, Some(FraudKind::SegmentBoundary)),
        _ => (right, None),
    }
}

/// As many cases as `PROPTEST_CASES` says, few without it.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 16 };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn native_code_the_program_and_full_execution_agree(
        plan in plan(),
        at in any::<Index>(),
        how in 0u8..6,
        hash in any::<[u8; 32]>(),
        before in any::<Index>(),
    ) {
        let world = world(&plan);
        let end = world.state.l1.height.0;
        let truth = world.truth(0, end);
        let at = at.index(truth.len());
        let mut claims = truth.clone();
        let (claim, kind) = mutate(truth[at], how, hash.into());
        claims[at] = claim;
        let (own, asserted) = (hashes(&truth), hashes(&claims));
        let base = genesis_claim(&world.params).unwrap().hash();
        let id = B256::repeat_byte(3);
        let view = AssertionView { id, base, l1: world.at(end), claims: &asserted };

        let first = first_divergence(&own, &asserted);
        prop_assert_eq!(first, kind.map(|_| at as u32));
        let expected = match (kind, first) {
            (Some(kind), Some(segment)) => Verdict::Fraud { segment, kind },
            _ => Verdict::NoFraud,
        };
        // A truth that is made to look wrong, so that it is executed as well.
        let mut proof = world.prove(&view, at);
        if let (None, Some(run)) = (kind, proof.run.as_mut()) {
            run.post.output_root = B256::ZERO;
        }
        prop_assert_eq!(judge_both(&world.params, &world.chain, &view, &proof.encode()), expected);

        // What comes before the wrong claim is right.
        let before = before.index(at + 1);
        if before < at {
            let proof = world.prove(&view, before);
            prop_assert_eq!(judge_both(&world.params, &world.chain, &view, &proof.encode()), Verdict::NoFraud);
        }
    }
}
