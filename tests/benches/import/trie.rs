//! The nodes of a trie of any size, from its leaves in order.

use alloy_primitives::B256;
use alloy_rlp::Encodable;
use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode};
use alloy_trie::{Nibbles, TrieMask};
use anyhow::Result;

/// The leaves of a trie: hashed keys, ascending, and where their values come from.
pub(crate) struct Leaves<'l> {
    pub(crate) keys: &'l [(B256, u32)],
    pub(crate) value: &'l dyn Fn(u32) -> Vec<u8>,
}

/// Hands every node that is stored to `emit`, children first, and gives the root.
pub(crate) fn build(
    leaves: &Leaves<'_>,
    emit: &mut dyn FnMut(Nibbles, Vec<u8>) -> Result<()>,
) -> Result<B256> {
    let rlp = node(leaves, leaves.keys, 0, emit)?;
    let root = alloy_primitives::keccak256(&rlp);
    emit(Nibbles::new(), rlp)?;
    Ok(root)
}

/// How a parent refers to the node of `keys`, which agree in their first `depth` nibbles.
fn reference(
    leaves: &Leaves<'_>,
    keys: &[(B256, u32)],
    depth: usize,
    emit: &mut dyn FnMut(Nibbles, Vec<u8>) -> Result<()>,
) -> Result<RlpNode> {
    let rlp = node(leaves, keys, depth, emit)?;
    let reference = RlpNode::from_rlp(&rlp);
    if rlp.len() >= 32 {
        emit(Nibbles::unpack(keys[0].0).slice(..depth), rlp)?;
    }
    Ok(reference)
}

fn node(
    leaves: &Leaves<'_>,
    keys: &[(B256, u32)],
    depth: usize,
    emit: &mut dyn FnMut(Nibbles, Vec<u8>) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut rlp = Vec::new();
    let (first, index) = keys[0];
    let first = Nibbles::unpack(first);
    if keys.len() == 1 {
        LeafNodeRef::new(&first.slice(depth..), &(leaves.value)(index)).encode(&mut rlp);
        return Ok(rlp);
    }
    let last = Nibbles::unpack(keys[keys.len() - 1].0);
    let common = first.common_prefix_length(&last);
    if common > depth {
        let child = reference(leaves, keys, common, emit)?;
        ExtensionNodeRef::new(&first.slice(depth..common), &child).encode(&mut rlp);
        return Ok(rlp);
    }
    let (mut rest, mut children, mut mask) = (keys, Vec::with_capacity(16), TrieMask::default());
    for nibble in 0..16 {
        let nibble_of = |key: &B256| (key[depth / 2] >> (4 * (1 - depth % 2))) & 15;
        let (these, others) =
            rest.split_at(rest.partition_point(|(key, _)| nibble_of(key) <= nibble));
        rest = others;
        if !these.is_empty() {
            children.push(reference(leaves, these, depth + 1, emit)?);
            mask.set_bit(nibble);
        }
    }
    BranchNodeRef::new(&children, mask).encode(&mut rlp);
    Ok(rlp)
}
