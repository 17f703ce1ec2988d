//! The nodes of the tries: a row for each block that changed one.
//!
//! A row's key is the node, which is the owner of its trie and its path, and the number of the block, newest first.
//! So the node after block `n` is the first row from `n` on: one look-up at the latest block as at any other, and a
//! change is one write that overwrites nothing. An empty row says that the node is gone.

use crate::change::Change;
use crate::db::{Durability, Store};
use crate::error::Result;
use crate::read::Reader;
use crate::table::Table;
use alloy_primitives::{B256, Bytes};
use kedge_genesis::L2Number;
use kedge_vm::Nibbles;
use rocksdb::{DBRawIterator, ReadOptions, SliceTransform, WriteBatch};

/// Bytes of a block number in a key.
const NUMBER_BYTES: usize = 7;

/// What block 0 has for its number. The first byte of none is a nibble, so no node's rows lie between another's.
const OLDEST: u64 = (1 << 56) - 1;
const NEWEST: u64 = 0x10 << 48;

/// What names a node. Owner none is the account trie, else the storage trie of that hashed address.
pub(crate) fn node_key(owner: Option<B256>, path: &Nibbles) -> Vec<u8> {
    let owned = [u8::from(owner.is_some())];
    let owner = owner.as_ref().map_or(&[][..], |owner| owner.as_slice());
    [&owned, owner, &path.to_vec()].concat()
}

/// Key of the row of a node that block `number` changed.
pub(crate) fn version_key(node: &[u8], number: L2Number) -> Vec<u8> {
    let number = OLDEST.saturating_sub(number.0).max(NEWEST).to_be_bytes();
    [node, &number[1..]].concat()
}

/// The node and the block of a row's key.
pub(crate) fn split_version(key: &[u8]) -> Option<(&[u8], L2Number)> {
    let (node, number) = key.split_last_chunk::<NUMBER_BYTES>()?;
    let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some((node, L2Number(OLDEST - number)))
}

/// Tells RocksDB which part of a row's key is the node.
pub(crate) fn node_of_key() -> SliceTransform {
    fn node(key: &[u8]) -> &[u8] {
        key.split_last_chunk::<NUMBER_BYTES>().map_or(key, |(node, _)| node)
    }
    SliceTransform::create("kedge.node", node, Some(|key| key.len() > NUMBER_BYTES))
}

/// Options of an iterator over the rows of one node.
pub(crate) fn one_node() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(true);
    options
}

/// Looks nodes up, one after the other.
pub struct NodeRows<'s> {
    pub(crate) store: &'s Store,
    pub(crate) rows: DBRawIterator<'s>,
}

impl core::fmt::Debug for NodeRows<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeRows").field("store", &self.store.path()).finish_non_exhaustive()
    }
}

impl NodeRows<'_> {
    /// The key of the row here.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.rows.key()
    }

    /// Goes to the row of a node as it was after block `number`. False where there is none.
    pub(crate) fn seek(&mut self, node: &[u8], number: L2Number) -> Result<bool> {
        self.rows.seek(version_key(node, number));
        self.is_of(node)
    }

    /// Goes to the row from before this one. False where there is none.
    pub(crate) fn older(&mut self, node: &[u8]) -> Result<bool> {
        self.rows.next();
        self.is_of(node)
    }

    fn is_of(&self, node: &[u8]) -> Result<bool> {
        let key = self.rows.key().and_then(split_version);
        if key.is_none() {
            self.rows.status().map_err(|source| self.store.error(source))?;
        }
        Ok(key.is_some_and(|(of, _)| of == node))
    }

    /// The node here; none where it is gone.
    pub(crate) fn value(&self) -> Option<Bytes> {
        self.rows.value().filter(|value| !value.is_empty()).map(Bytes::copy_from_slice)
    }

    /// The node as it was after block `number`.
    pub(crate) fn find(&mut self, node: &[u8], number: L2Number) -> Result<Option<Bytes>> {
        Ok(if self.seek(node, number)? { self.value() } else { None })
    }
}

impl Store {
    /// Drops the rows of nodes that only states before that after block `oldest` have. `go_on` is asked after each
    /// write. False where it said no.
    pub(crate) fn prune_nodes(
        &self,
        oldest: L2Number,
        at_once: usize,
        dropped: &mut u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<bool> {
        let (reader, family) = (self.reader(), self.family(Table::Tries));
        let mut batch = WriteBatch::default();
        // The node whose row of that state has come.
        let mut kept: Option<Vec<u8>> = None;
        for entry in reader.all(Table::Tries) {
            let (key, value) = entry?;
            let Some((node, number)) = split_version(&key) else { continue };
            if number > oldest {
                continue;
            }
            let older = kept.as_deref() == Some(node);
            if !older {
                kept = Some(node.to_vec());
                // Between nodes: without the row that says that a node is gone, the one before it would count.
                if batch.len() >= at_once {
                    self.write(std::mem::take(&mut batch), Durability::Buffered)?;
                    if !go_on(*dropped) {
                        return Ok(false);
                    }
                }
            }
            if older || value.is_empty() {
                batch.delete_cf(family, &key);
                *dropped += 1;
            }
        }
        self.write(batch, Durability::Buffered)?;
        Ok(true)
    }

    /// The same for one node: `key` is that of the row of a block from which on states are kept, and the states
    /// before it have been dropped. Gives how many rows that are.
    pub(crate) fn prune_node(
        rows: &mut NodeRows<'_>,
        change: &mut Change<'_>,
        key: &[u8],
    ) -> Result<usize> {
        let Some((node, number)) = split_version(key) else { return Ok(0) };
        let mut dropped = 0;
        let mut drop = |change: &mut Change<'_>, key: &[u8]| {
            dropped += usize::from(change.drop_row(Table::Tries, key));
        };
        let mut found = rows.seek(node, number)?;
        if found && rows.key() == Some(key) {
            if rows.value().is_none() {
                drop(change, key);
            }
            found = rows.older(node)?;
        }
        if found && let Some(older) = rows.key() {
            drop(change, older);
        }
        Ok(dropped)
    }
}

impl Reader<'_> {
    /// How many nodes there are at the latest block.
    pub(crate) fn count_nodes(&self) -> Result<u64> {
        let (mut count, mut last) = (0_u64, Vec::new());
        for entry in self.all(Table::Tries) {
            let (key, value) = entry?;
            let node = split_version(&key).map_or(&*key, |(node, _)| node);
            if node != last {
                count = count.saturating_add(u64::from(!value.is_empty()));
                last = node.to_vec();
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Identity;
    use crate::read::{Rows, find_nodes};
    use crate::table::Domain;
    use kedge_genesis::Network;
    use std::sync::Arc;
    use tempfile::{TempDir, tempdir};

    fn node(number: u8) -> Vec<u8> {
        node_key(None, &Nibbles::from_nibbles([number / 16, number % 16]))
    }

    /// Changes nodes in a block; empty ones are gone.
    fn block(change: &mut Change<'_>, number: u64, nodes: &[(u8, &'static [u8])]) {
        change.begin(Domain::L2, number).unwrap();
        for (of, value) in nodes {
            let key = version_key(&node(*of), L2Number(number));
            change.add(Table::Tries, key, Bytes::from_static(value)).unwrap();
        }
        change.end(Domain::L2).unwrap();
    }

    fn store() -> (TempDir, Store) {
        let dir = tempdir().unwrap();
        let identity = Identity { network: Network::Dev, params: B256::ZERO, genesis: B256::ZERO };
        let store = Store::open(dir.path(), &identity).unwrap();
        for (number, nodes) in [(1, &[(0, b"1"), (1, b"1")]), (2, &[(0, b"2"), (2, b"2")])] {
            let nodes = nodes.map(|(of, value)| (of, value.as_slice()));
            let mut change = store.change();
            block(&mut change, number, &nodes);
            change.commit(Durability::Buffered).unwrap();
        }
        (dir, store)
    }

    fn found(rows: &impl Rows) -> [Option<Vec<u8>>; 4] {
        let find = |of| rows.find_node(&mut rows.node_rows(), &node(of)).unwrap();
        [0, 1, 2, 3].map(|of| find(of).map(|node| node.to_vec()))
    }

    fn expected(nodes: [&[u8]; 4]) -> [Option<Vec<u8>>; 4] {
        nodes.map(|node| (!node.is_empty()).then(|| node.to_vec()))
    }

    #[test]
    fn a_change_sees_what_it_and_the_one_before_it_changed_and_took_back() {
        for written in [false, true] {
            let (_dir, store) = store();
            let mut before = store.change();
            block(&mut before, 3, &[(0, b"3"), (1, b""), (3, b"3")]);
            assert_eq!(found(&before), expected([b"3", b"", b"2", b"3"]));
            let before = Arc::new(before.finish().unwrap());
            if written {
                before.commit(Durability::Buffered).unwrap();
            }
            let mut change = Change::after(before);
            assert_eq!(found(&change), expected([b"3", b"", b"2", b"3"]));
            block(&mut change, 4, &[(0, b""), (1, b"4")]);
            assert_eq!(found(&change), expected([b"", b"4", b"2", b"3"]));
            change.undo(Domain::L2, 4).unwrap();
            change.undo(Domain::L2, 3).unwrap();
            assert_eq!(found(&change), expected([b"2", b"1", b"2", b""]));
            change.undo(Domain::L2, 2).unwrap();
            assert_eq!(found(&change), expected([b"1", b"1", b"", b""]));
            block(&mut change, 2, &[(0, b"other")]);
            assert_eq!(found(&change), expected([b"other", b"1", b"", b""]));
            if written {
                change.commit(Durability::Buffered).unwrap();
                assert_eq!(found(&store.reader()), expected([b"other", b"1", b"", b""]));
            }
        }
    }

    #[test]
    fn many_nodes_are_found_in_the_order_in_which_they_are_asked_for() {
        let (_dir, store) = store();
        let mut change = store.change();
        let many: Vec<(u8, &[u8])> =
            (3..=255).map(|of| (of, &b"many"[usize::from(of % 4)..])).collect();
        block(&mut change, 3, &many);
        let keys: Vec<_> = (0..=255).rev().map(node).collect();
        let one = |key: &Vec<u8>| change.find_node(&mut change.node_rows(), key).unwrap();
        let all: Vec<_> = keys.iter().map(one).collect();
        assert_eq!(find_nodes(&change, &keys).unwrap(), all);
        change.commit(Durability::Buffered).unwrap();
        assert_eq!(find_nodes(&store.reader(), &keys).unwrap(), all);
    }
}
