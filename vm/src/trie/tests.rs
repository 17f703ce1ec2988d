use super::*;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use alloy_primitives::{B256, Bytes, keccak256};
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
