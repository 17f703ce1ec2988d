//! Laws that hold whatever happens.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Add { sender: u8, nonce: u64, fee: u128 },
    Include { sender: u8, count: usize },
    Rewind { sender: u8 },
    Balance { sender: u8, transfers: u128 },
    Discard { sender: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3_u8, 0..6_u64, 10..20_u128).prop_map(|(sender, nonce, fee)| Op::Add { sender, nonce, fee }),
        2 => (0..3_u8, 0..3_usize).prop_map(|(sender, count)| Op::Include { sender, count }),
        1 => (0..3_u8).prop_map(|sender| Op::Rewind { sender }),
        1 => (0..3_u8, 0..6_u128).prop_map(|(sender, transfers)| Op::Balance { sender, transfers }),
        1 => (0..3_u8).prop_map(|sender| Op::Discard { sender }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens, a block gets each sender's transactions without gaps from the account's
    /// nonce, only what is affordable, and a nonce changes hands only for ten percent more.
    #[test]
    fn blocks_get_gapless_affordable_runs(ops in prop::collection::vec(op(), 1..40)) {
        let small = PoolLimits {
            max_transactions: 8,
            max_per_sender: 4,
            max_queued: 5,
            max_queued_per_sender: 3,
            ..Default::default()
        };
        let (mempool, state, journal) = pool_with(limited(small), RICH);
        for op in ops {
            match op {
                Op::Add { sender, nonce, fee } => {
                    let before = {
                        let pool = mempool.pool.lock();
                        pool.find(&signer(sender).address(), nonce)
                    };
                    let added = mempool.add(sign(sender, transfer(nonce, fee * GWEI)));
                    if let (Ok(hash), Some(old)) = (added, before) {
                        prop_assert_ne!(hash, old.hash);
                        prop_assert!(fee * GWEI * 100 >= old.tx.max_fee_per_gas() * 110);
                    }
                }
                Op::Include { sender, count } => {
                    let address = signer(sender).address();
                    let included = nonces(&mempool, sender).len().min(count) as u64;
                    let mut account = state.account(address).expect("fake");
                    account.nonce += included;
                    state.accounts.lock().insert(address, account);
                    mempool.on_block([address]);
                }
                Op::Rewind { sender } => {
                    let address = signer(sender).address();
                    let mut account = state.account(address).expect("fake");
                    account.nonce = account.nonce.saturating_sub(1);
                    state.accounts.lock().insert(address, account);
                    mempool.on_reorg([]);
                }
                Op::Balance { sender, transfers } => {
                    let address = signer(sender).address();
                    let mut account = state.account(address).expect("fake");
                    account.balance = U256::from(transfers * 20 * GWEI * 21_001);
                    state.accounts.lock().insert(address, account);
                    mempool.on_block([address]);
                }
                Op::Discard { sender } => {
                    if let Some(tx) = mempool.best(0).find(|tx| tx.sender == signer(sender).address()) {
                        mempool.discard(&tx.hash);
                    }
                }
            }
            mempool.pool.lock().check_invariants();
            let mut seen: BTreeMap<Address, (u64, U256)> = BTreeMap::new();
            for tx in mempool.best(1_000_000) {
                let account = state.account(tx.sender).expect("fake");
                let (next, spent) = seen.entry(tx.sender).or_insert((account.nonce, U256::ZERO));
                prop_assert_eq!(tx.nonce(), *next);
                *next += 1;
                *spent += tx.cost();
                prop_assert!(*spent <= account.balance);
            }
            let status = mempool.status(1_000_000);
            prop_assert_eq!(status.pending, mempool.best(1_000_000).count());
            prop_assert_eq!(
                status.pending + status.base_fee + status.queued,
                journal.0.lock().len()
            );
        }
    }
}
