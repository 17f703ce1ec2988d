//! Roots of tries.

use alloy_primitives::{B256, Bytes, hex, keccak256};
use kedge_vectors::Vectors;
use kedge_vm::{
    Nibbles,
    trie::{EMPTY_ROOT_HASH, Trie},
};
use serde_json::Value;
use std::{collections::BTreeMap, convert::Infallible};

const UNUSED: &[(&str, &str)] = &[(
    "trietestnextprev.json",
    "neighbours of a key in order, which nothing here asks a trie for",
)];

#[test]
fn tries_have_the_roots_of_the_vectors() {
    let Some(vectors) = Vectors::find("ethereum/TrieTests", UNUSED) else { return };
    let tally = vectors.run(|file, tally| {
        let tests: BTreeMap<String, Value> = serde_json::from_slice(&vectors.read(file)).unwrap();
        let hashed = file.to_lowercase().contains("secure");
        for (name, test) in tests {
            let expected: B256 = serde_json::from_value(test["root"].clone()).unwrap();
            let root = root(&test["in"], hashed);
            let outcome =
                if root == expected { Ok(()) } else { Err(format!("{root}, not {expected}")) };
            tally.case(|| format!("{file}: {name}"), None, outcome);
        }
    });
    vectors.finish(tally);
}

/// The root after the changes of a test, each on a trie that is loaded from what earlier ones stored.
fn root(changes: &Value, hashed: bool) -> B256 {
    let changes: Vec<(String, Option<String>)> = match changes {
        Value::Array(_) => serde_json::from_value(changes.clone()).unwrap(),
        _ => {
            serde_json::from_value::<BTreeMap<_, _>>(changes.clone()).unwrap().into_iter().collect()
        }
    };
    let mut stored: BTreeMap<Nibbles, Bytes> = BTreeMap::new();
    let mut root = EMPTY_ROOT_HASH;
    for (key, value) in changes {
        let key = if hashed { keccak256(bytes(&key)).to_vec() } else { bytes(&key) };
        let value = value.map(|value| bytes(&value)).unwrap_or_default();
        let mut trie = Trie::new(root);
        trie.set(&Nibbles::unpack(key), value, |path, _| {
            Ok::<_, Infallible>(stored.get(path).cloned().unwrap_or_default())
        })
        .unwrap();
        let (after, nodes) = trie.commit();
        root = after;
        for (path, node) in nodes {
            match node {
                Some(node) => drop(stored.insert(path, node)),
                None => drop(stored.remove(&path)),
            }
        }
    }
    root
}

fn bytes(text: &str) -> Vec<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => hex::decode(digits).unwrap(),
        None => text.as_bytes().to_vec(),
    }
}
