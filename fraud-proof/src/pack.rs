//! Trie nodes without the hashes that follow from them.
//!
//! A node mostly holds hashes of its children. Where a child is in the same set, its hash is left out: a
//! node is written after those of its children that are left out, and takes them from a stack.
//!
//! The form of a set of nodes is a function of the set. A *reference* is a byte `0xa0` followed by the hash
//! of a node of the set, found by reading a node from its first byte on, references not overlapping. Nodes
//! are visited in depth-first order: those that no node refers to ascending by hash, and below each node
//! its references in order. A reference to a node not visited yet is left out; others stay. Each node is
//! written when all below it are:
//!
//! ```text
//! varint count of references left out, then for each: varint length, the bytes before it; varint length, the rest
//! ```
//!
//! Reading it back, a node pops as many hashes as it leaves out off the stack, the topmost belonging to
//! its last reference, and pushes its own.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use alloy_primitives::{B256, Bytes, keccak256};

/// The most nodes of one set. A segment touches at most a few thousand accounts and slots, whose paths
/// nobody can make this long.
pub(crate) const MAX_NODES: usize = 1 << 17;
/// Nodes shorter than a hash live inside their parents.
const MIN_NODE_BYTES: usize = 32;
/// First byte of the RLP of a hash.
const HASH_HEAD: u8 = 0xa0;

type Nodes = BTreeMap<B256, Bytes>;

/// The nodes of a set by their place in the order of hashes.
struct Index<'a> {
    nodes: Vec<(&'a B256, &'a Bytes)>,
    /// A bit for each beginning of a hash that a node has: most hashes in nodes are of nodes outside of the
    /// set, and a look here tells so of nearly all.
    begins: Vec<u64>,
}

/// Bits of a hash that [`Index::begins`] tells apart.
const BEGIN_BITS: u32 = 20;

impl<'a> Index<'a> {
    fn new(nodes: &'a Nodes) -> Self {
        let mut begins = alloc::vec![0u64; 1 << (BEGIN_BITS - 6)];
        for hash in nodes.keys() {
            let (word, bit) = Self::begin(hash);
            if let Some(word) = begins.get_mut(word) {
                *word |= bit;
            }
        }
        Self { nodes: nodes.iter().collect(), begins }
    }

    /// Word and bit of a hash in [`Self::begins`].
    fn begin(hash: &B256) -> (usize, u64) {
        let [a, b, c, ..] = hash.0;
        let begin = (usize::from(a) << 12) | (usize::from(b) << 4) | (usize::from(c) >> 4);
        (begin >> 6, 1 << (begin & 63))
    }

    fn place(&self, hash: &B256) -> Option<usize> {
        let (word, bit) = Self::begin(hash);
        if self.begins.get(word).is_none_or(|word| word & bit == 0) {
            return None;
        }
        self.nodes.binary_search_by(|(other, _)| other.cmp(&hash)).ok()
    }

    /// Where in `node` nodes of the set are referred to: offset of the `0xa0`, place.
    fn references(&self, node: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = 0usize;
        while let Some((head, rest)) = node.get(at..).and_then(<[u8]>::split_first) {
            let Some(hash) = rest.first_chunk::<32>() else { break };
            let place = if *head == HASH_HEAD { self.place(&B256::new(*hash)) } else { None };
            if let Some(place) = place {
                found.push((at, place));
            }
            at = at.saturating_add(if place.is_some() { 33 } else { 1 });
        }
        found
    }
}

/// A node being visited.
struct Visit<'a> {
    node: &'a [u8],
    references: alloc::vec::IntoIter<(usize, usize)>,
    /// Offsets of the references that are left out.
    left_out: Vec<usize>,
}

impl Visit<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.left_out.len());
        let mut from = 0usize;
        let mut part = |from: usize, to: usize| {
            let bytes = self.node.get(from..to).unwrap_or_default();
            put_varint(out, bytes.len());
            out.extend_from_slice(bytes);
        };
        for at in &self.left_out {
            part(from, *at);
            from = at.saturating_add(33);
        }
        part(from, self.node.len());
    }
}

/// The form of a set of nodes by their hashes.
pub(crate) fn pack(nodes: &Nodes) -> Vec<u8> {
    let index = Index::new(nodes);
    let mut references: Vec<_> =
        index.nodes.iter().map(|(_, node)| index.references(node)).collect();
    let mut inner = alloc::vec![false; references.len()];
    for (_, place) in references.iter().flatten() {
        if let Some(inner) = inner.get_mut(*place) {
            *inner = true;
        }
    }
    let mut out = Vec::new();
    // Each node is visited once, and takes its references with it.
    let mut visit = |place: usize| -> Option<Visit<'_>> {
        let (_, node) = index.nodes.get(place)?;
        let references = core::mem::take(references.get_mut(place)?).into_iter();
        Some(Visit { node, references, left_out: Vec::new() })
    };
    let mut visited = alloc::vec![false; inner.len()];
    let mut first = |place: usize| {
        visited.get_mut(place).is_some_and(|visited| !core::mem::replace(visited, true))
    };
    for root in (0..inner.len()).filter(|place| inner.get(*place) == Some(&false)) {
        first(root);
        // A stack of its own: what an adversary nests must not nest calls.
        let mut stack: Vec<Visit<'_>> = visit(root).into_iter().collect();
        while let Some(parent) = stack.last_mut() {
            match parent.references.next() {
                Some((at, child)) => {
                    if first(child) {
                        parent.left_out.push(at);
                        stack.extend(visit(child));
                    }
                }
                None => {
                    parent.write(&mut out);
                    stack.pop();
                }
            }
        }
    }
    out
}

/// The set of nodes with that form. None when it is none; whether it is the one form of the set is for
/// the caller to compare.
pub(crate) fn unpack(mut bytes: &[u8]) -> Option<Nodes> {
    let mut nodes = Nodes::new();
    let mut stack: Vec<B256> = Vec::new();
    while !bytes.is_empty() {
        if nodes.len() >= MAX_NODES {
            return None;
        }
        let count = take_varint(&mut bytes)?;
        let children = stack.split_off(stack.len().checked_sub(count)?);
        let mut node = Vec::new();
        for child in children {
            node.extend_from_slice(take_part(&mut bytes)?);
            node.push(HASH_HEAD);
            node.extend_from_slice(child.as_slice());
        }
        node.extend_from_slice(take_part(&mut bytes)?);
        let hash = keccak256(&node);
        if node.len() < MIN_NODE_BYTES || nodes.insert(hash, node.into()).is_some() {
            return None;
        }
        stack.push(hash);
    }
    Some(nodes)
}

fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_varint(bytes)?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

/// LEB128.
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

/// LEB128 of at most 28 bits; not necessarily the shortest.
fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in [0u32, 7, 14, 21] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn set(nodes: Vec<Vec<u8>>) -> Nodes {
        nodes.into_iter().map(|node| (keccak256(&node), node.into())).collect()
    }

    /// Nodes, each referring to earlier ones between random bytes.
    fn graph() -> impl Strategy<Value = Nodes> {
        let part = prop::collection::vec(any::<u8>(), 0..40);
        let node =
            (part.clone(), prop::collection::vec((any::<prop::sample::Index>(), part), 0..5));
        prop::collection::vec(node, 0..24).prop_map(|plans| {
            let mut nodes: Vec<Vec<u8>> = Vec::new();
            for (at, (head, refs)) in plans.into_iter().enumerate() {
                let mut node = vec![at as u8; 32];
                node.extend(head);
                for (index, tail) in refs.into_iter().filter(|_| at > 0) {
                    node.push(HASH_HEAD);
                    node.extend(keccak256(&nodes[index.index(at)]));
                    node.extend(tail);
                }
                nodes.push(node);
            }
            set(nodes)
        })
    }

    proptest! {
        #[test]
        fn every_set_comes_back_and_is_never_longer_than_its_nodes(nodes in graph()) {
            let packed = pack(&nodes);
            prop_assert_eq!(unpack(&packed), Some(nodes.clone()));
            let plain: usize = nodes.values().map(|node| node.len() + 3).sum();
            prop_assert!(packed.len() <= plain);
        }

        #[test]
        fn any_bytes_unpack_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes);
        }
    }

    #[test]
    fn a_chain_of_any_length_does_not_exhaust_the_stack() {
        let mut nodes = vec![vec![7; 40]];
        for _ in 0..MAX_NODES - 1 {
            let below = keccak256(nodes.last().unwrap());
            nodes.push([&[HASH_HEAD][..], below.as_slice()].concat());
        }
        let nodes = set(nodes);
        let packed = pack(&nodes);
        // Count, two empty parts.
        assert_eq!(packed.len(), 42 + 3 * (MAX_NODES - 1));
        assert_eq!(unpack(&packed), Some(nodes));
        assert_eq!(unpack(&[&packed[..], &[1, 0, 0]].concat()), None);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let node: Vec<u8> = [&[0, 32][..], &[5; 32]].concat();
        assert!(unpack(&node).is_some());
        let bad: [Vec<u8>; 6] = [
            vec![1, 0, 0],                           // nothing to pop
            [&[0, 31][..], &[5; 31]].concat(),       // shorter than a hash
            [&node[..], &node].concat(),             // twice
            node[..20].to_vec(),                     // cut
            vec![0xff, 0xff, 0xff, 0xff, 0],         // varint too long
            [&node[..], &[2, 0, 0, 0][..]].concat(), // pops two of one
        ];
        for bad in bad {
            assert_eq!(unpack(&bad), None, "{bad:?}");
        }
    }
}
