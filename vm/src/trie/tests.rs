use super::*;
use crate::{AccountInfo, StateDiff, TrieDiff, TrieNodes};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use core::convert::Infallible;
use proptest::prelude::*;

extern crate std;

/// Nodes by path, as a store keeps them.
#[derive(Default)]
struct Stored(BTreeMap<Nibbles, Bytes>);

impl Stored {
    fn load(&self) -> impl FnMut(&Nibbles, B256) -> Result<Bytes, String> {
        |path, hash| {
            let node = self.0.get(path).ok_or_else(|| std::format!("no node at {path:?}"))?;
            if keccak256(node) == hash { Ok(node.clone()) } else { Err("stale".into()) }
        }
    }

    fn apply(&mut self, changes: BTreeMap<Nibbles, Option<Bytes>>) {
        for (path, node) in changes {
            match node {
                Some(node) => drop(self.0.insert(path, node)),
                None => drop(self.0.remove(&path)),
            }
        }
    }
}

fn nothing(_: &Nibbles, _: B256) -> Result<Bytes, Infallible> {
    unreachable!("a trie built from nothing loads nothing")
}

fn model_root(model: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = alloy_trie::HashBuilder::default();
    for (key, value) in model {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

/// Keys from few nibbles, so that they share long prefixes.
fn key() -> impl Strategy<Value = B256> {
    (prop::collection::vec(0u8..3, 0..4), 0u8..4, 0u8..3).prop_map(|(head, middle, tail)| {
        let mut key = B256::ZERO;
        for (slot, nibble) in key.0.iter_mut().zip(head) {
            *slot = nibble * 0x11;
        }
        key.0[15] = middle;
        key.0[31] = tail;
        key
    })
}

/// Short values make embedded nodes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(1u8..255, 1..3),
        2 => prop::collection::vec(1u8..255, 30..40),
        2 => Just(Vec::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rounds of changes, each on a trie that is loaded afresh from what earlier rounds stored: the
    /// root equals that of the reference implementation, and what is stored equals what a trie built
    /// from nothing stores: no node is left behind, none is missing.
    #[test]
    fn incremental_changes_equal_a_rebuild(
        rounds in prop::collection::vec(prop::collection::vec((key(), value()), 1..12), 1..8),
    ) {
        let mut stored = Stored::default();
        let mut model: BTreeMap<B256, Vec<u8>> = BTreeMap::new();
        let mut root = EMPTY_ROOT_HASH;
        for round in rounds {
            let mut trie = Trie::new(root);
            for (key, value) in round {
                if value.is_empty() { model.remove(&key); } else { model.insert(key, value.clone()); }
                trie.set(&Nibbles::unpack(key), value, stored.load()).unwrap();
            }
            let (new_root, changes) = trie.commit();
            root = new_root;
            stored.apply(changes);
            prop_assert_eq!(root, model_root(&model));

            let mut rebuilt = Trie::default();
            for (key, value) in &model {
                rebuilt.set(&Nibbles::unpack(key), value.clone(), nothing).unwrap();
            }
            let (same_root, nodes) = rebuilt.commit();
            prop_assert_eq!(root, same_root);
            let nodes: BTreeMap<_, _> =
                nodes.into_iter().filter_map(|(path, node)| Some((path, node?))).collect();
            prop_assert_eq!(&stored.0, &nodes);

            let mut again = Trie::new(root);
            for (key, value) in &model {
                let found = again.get(&Nibbles::unpack(key), stored.load()).unwrap();
                prop_assert_eq!(found, Some(value.as_slice()));
            }
        }
    }

    /// Proofs of presence and absence convince the reference verifier.
    #[test]
    fn proofs_verify(
        entries in prop::collection::btree_map(key(), prop::collection::vec(1u8..255, 1..40), 1..20),
        absent in key(),
    ) {
        let mut trie = Trie::default();
        for (key, value) in &entries {
            trie.set(&Nibbles::unpack(key), value.clone(), nothing).unwrap();
        }
        let (root, _) = trie.commit();
        for key in entries.keys().chain([&absent]) {
            let path = Nibbles::unpack(key);
            let proof = trie.prove(&path, nothing).unwrap();
            let value = entries.get(key).cloned();
            prop_assert!(alloy_trie::proof::verify_proof(root, path, value, &proof).is_ok());
        }
    }

    /// Whatever bytes pretend to be a node, reading and changing fails or works, but never panics.
    #[test]
    fn hostile_nodes_do_not_panic(
        mut node in prop::collection::vec(any::<u8>(), 0..80),
        list in any::<bool>(),
        key in key(),
    ) {
        if list {
            let mut rlp = Vec::new();
            alloy_rlp::Header { list: true, payload_length: node.len() }.encode(&mut rlp);
            rlp.append(&mut node);
            node = rlp;
        }
        let root = keccak256(&node);
        let load = |_: &Nibbles, hash: B256| {
            if hash == root { Ok(Bytes::from(node.clone())) } else { Err("missing") }
        };
        let path = Nibbles::unpack(key);
        let _ = Trie::new(root).get(&path, load).map(|value| value.map(<[u8]>::len));
        let _ = Trie::new(root).prove(&path, load);
        for value in [Vec::new(), alloc::vec![1]] {
            let mut trie = Trie::new(root);
            if trie.set(&path, value, load).is_ok() {
                trie.commit();
            }
        }
    }
}

#[test]
fn a_node_that_does_not_hash_to_its_reference_is_corrupt() {
    let mut trie = Trie::new(B256::repeat_byte(1));
    let result = trie.get(&Nibbles::unpack(B256::ZERO), |_, _| Ok::<_, Infallible>(Bytes::new()));
    assert_eq!(result, Err(TrieError::Corrupt(Nibbles::new())));
}

/// Nodes of a state's tries, which counts how many it gave.
#[derive(Clone, Default)]
struct Nodes {
    nodes: BTreeMap<(Option<B256>, Nibbles), Bytes>,
    given: usize,
}

impl Nodes {
    fn put(&mut self, diff: TrieDiff) {
        for (path, node) in diff.nodes {
            match node {
                Some(node) => drop(self.nodes.insert(path, node)),
                None => drop(self.nodes.remove(&path)),
            }
        }
    }
}

impl TrieNodes for Nodes {
    type Error = String;
    const SLOW: bool = true;

    fn trie_node(&mut self, owner: Option<B256>, path: &Nibbles, _: B256) -> Result<Bytes, String> {
        self.given += 1;
        let node = self.nodes.get(&(owner, *path)).cloned();
        node.ok_or_else(|| std::format!("no node at {path:?} of {owner:?}"))
    }
}

/// A thread for every second thing.
struct TwoThreads;

impl Threads for TwoThreads {
    fn join<A: Send, B: Send>(
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        std::thread::scope(|scope| {
            let b = scope.spawn(b);
            (a(), b.join().unwrap())
        })
    }
}

/// What a block does to an account, or to a slot of it.
type Deed = (u64, u64, Option<u64>);

fn deed() -> impl Strategy<Value = Deed> {
    (0..40u64, 0..5u64, prop::option::weighted(0.8, 0..30u64))
}

/// A state, and how it differs after some deeds. What was there before stands beside it.
fn differ(state: &mut StateDiff, deeds: Vec<Deed>) -> (StateDiff, StateDiff) {
    let before = state.clone();
    for (who, what, slot) in deeds {
        let address = Address::from_word(keccak256(who.to_be_bytes()));
        // One that had storage before the block is not gone after it (EIP-6780, EIP-161).
        let has_storage = [&before, &*state].iter().any(|state| {
            state.storage.range((address, U256::ZERO)..=(address, U256::MAX)).next().is_some()
        });
        let account = state.accounts.entry(address).or_insert(None);
        match slot {
            None if what == 0 => *account = if has_storage { *account } else { None },
            None => {
                let code_hash = if who % 3 == 0 { keccak256([1]) } else { Default::default() };
                let balance = U256::from(what);
                *account = Some(AccountInfo { nonce: what, balance, code_hash });
            }
            Some(slot) => {
                account.get_or_insert_default();
                let key = (address, U256::from(slot));
                match what {
                    0 => drop(state.storage.remove(&key)),
                    _ => drop(state.storage.insert(key, U256::from(what) << (60 * what))),
                }
            }
        }
    }
    let (mut diff, mut old) = (StateDiff::default(), StateDiff::default());
    for (address, account) in &state.accounts {
        let was = before.accounts.get(address).copied().flatten();
        if was != *account {
            diff.accounts.insert(*address, *account);
            old.accounts.insert(*address, was);
        }
    }
    for key in before.storage.keys().chain(state.storage.keys()) {
        let of = |state: &StateDiff| state.storage.get(key).copied().unwrap_or_default();
        if of(&before) != of(state) {
            diff.storage.insert(*key, of(state));
            old.storage.insert(*key, of(&before));
        }
    }
    (diff, old)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Blocks on tries that stay in memory, in whole or in part, come to the same as blocks that read
    /// everything, and both to what the whole state comes to; so do blocks that are given up.
    #[test]
    fn tries_that_stay_come_to_the_same(
        rounds in prop::collection::vec(
            (prop::collection::vec(deed(), 1..200), any::<bool>(), 0..300usize), 1..8,
        ),
    ) {
        let (mut nodes, mut state) = (Nodes::default(), StateDiff::default());
        let mut tries = StateTries::<TwoThreads>::default();
        let mut root = EMPTY_ROOT_HASH;
        for (deeds, is_given_up, most) in rounds {
            let last = state.clone();
            let (diff, before) = differ(&mut state, deeds);
            let report: Vec<_> = last.accounts.keys().step_by(7).copied().collect();
            let fresh = apply(root, &diff, &report, &mut nodes).unwrap();
            let kept = tries.apply(root, &diff, &before, &report, &mut nodes).unwrap();
            prop_assert_eq!(&kept, &fresh);
            let whole = apply(EMPTY_ROOT_HASH, &state, &[], &mut Nodes::default()).unwrap();
            prop_assert_eq!(whole.0, fresh.0);
            tries.shed(most);
            if is_given_up {
                state = last;
                continue;
            }
            root = fresh.0;
            nodes.put(fresh.1);
            let stored = whole.1.nodes.into_iter().filter_map(|(path, node)| Some((path, node?)));
            prop_assert_eq!(&nodes.nodes, &stored.collect::<BTreeMap<_, _>>());
        }
    }
}

#[test]
fn what_the_block_before_changed_is_not_read_again() {
    let mut nodes = Nodes::default();
    let mut state = StateDiff::default();
    let mut tries = StateTries::<OneThread>::default();
    let block = |what: u64| {
        let accounts = (0..40).map(|who| (who, what, None));
        let slots = (0..30).map(|slot| (3, what, Some(slot)));
        accounts.chain(slots).collect::<Vec<_>>()
    };
    let mut root = EMPTY_ROOT_HASH;
    for what in 1..5 {
        let (diff, before) = differ(&mut state, block(what));
        let (after, changed, _) = tries.apply(root, &diff, &before, &[], &mut nodes).unwrap();
        root = after;
        nodes.put(changed);
        assert_eq!(nodes.given, 0, "in block {what}");
    }
    let (diff, before) = differ(&mut state, block(1));
    let mut others = StateTries::<OneThread>::at(B256::repeat_byte(1));
    others.apply(root, &diff, &before, &[], &mut nodes).unwrap();
    let branches = nodes.given;
    assert!(branches > 0);
    nodes.given = 0;
    tries.apply(root, &diff, &StateDiff::default(), &[], &mut nodes).unwrap();
    assert!(nodes.given > branches, "{} leaves are read where nothing is known", nodes.given);
}

#[test]
fn of_tries_only_so_much_stays_in_memory() {
    let mut tries = StateTries::<OneThread>::default();
    let mut nodes = Nodes::default();
    let mut state = StateDiff::default();
    let deeds = (0..40).flat_map(|who| (0..30).map(move |slot| (who, 1, Some(slot)))).collect();
    let (diff, _) = differ(&mut state, deeds);
    let (root, changed, _) =
        tries.apply(EMPTY_ROOT_HASH, &diff, &StateDiff::default(), &[], &mut nodes).unwrap();
    nodes.put(changed);
    for most in [200, 20, 0] {
        tries.shed(most);
        assert!(tries.loaded() <= most);
    }
    let (diff, before) = differ(&mut state, std::vec![(3, 2, Some(4))]);
    let kept = tries.apply(root, &diff, &before, &[], &mut nodes).unwrap();
    assert_eq!(kept, apply(root, &diff, &[], &mut nodes).unwrap());
}
