//! Reading, changing and committing one trie.

use super::node::{Cell, Children, Node};
use crate::TrieNodes;
use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet, vec::Vec};
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, nodes::RlpNode};

/// Why a trie cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrieError<E> {
    /// The loader failed.
    #[error("loading a trie node: {0}")]
    Load(#[source] E),
    /// The loader gave bytes that are not the node that the parent refers to.
    #[error("corrupt trie node at {0:?}")]
    Corrupt(Nibbles),
}

/// One trie. After an error it may have been changed in part: discard it.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    root: Cell,
    /// Whether nodes are checked before they come here.
    checked: bool,
    /// Paths at which a node was stored that has changed, moved or gone since the last commit.
    touched: BTreeSet<Nibbles>,
}

/// Gives the bytes of the node at a path with a hash, which they have.
trait Load<E>: FnMut(&Nibbles, B256) -> Result<Bytes, TrieError<E>> {}
impl<E, F: FnMut(&Nibbles, B256) -> Result<Bytes, TrieError<E>>> Load<E> for F {}

/// A loader that checks what it gets, unless somebody has.
fn checking<E>(
    checked: bool,
    mut load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
) -> impl Load<E> {
    move |path, hash| {
        let rlp = load(path, hash).map_err(TrieError::Load)?;
        if checked || keccak256(&rlp) == hash { Ok(rlp) } else { Err(TrieError::Corrupt(*path)) }
    }
}

impl Trie {
    /// The trie with that root.
    pub fn new(root: B256) -> Self {
        let root = if root == EMPTY_ROOT_HASH { Cell::default() } else { Cell::stored(root) };
        Self { root, checked: false, touched: BTreeSet::new() }
    }

    /// The trie with that root, whose nodes come from `N`.
    pub(crate) fn of<N: TrieNodes + ?Sized>(root: B256) -> Self {
        Self { checked: N::CHECKED, ..Self::new(root) }
    }

    /// The value of `key`, if it has one.
    ///
    /// # Errors
    /// When a node on its path cannot be loaded.
    pub fn get<E>(
        &mut self,
        key: &Nibbles,
        load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<Option<&[u8]>, TrieError<E>> {
        let mut load = checking(self.checked, load);
        let mut cell = &mut self.root;
        let mut path = Nibbles::new();
        loop {
            resolve(cell, &path, &mut load)?;
            let rest = after(key, path.len());
            match &mut cell.node {
                Node::Empty | Node::Stored(_) => return Ok(None),
                Node::Leaf { key, value } => {
                    return Ok((*key == rest).then_some(value.as_slice()));
                }
                Node::Extension { key, child } => {
                    if !rest.starts_with(key) {
                        return Ok(None);
                    }
                    path.extend(key);
                    cell = child;
                }
                Node::Branch { children, value } => match rest.first() {
                    None => return Ok(value.as_deref()),
                    Some(nibble) => match children.get_mut(nibble) {
                        None => return Ok(None),
                        Some(child) => {
                            path.push(nibble);
                            cell = child;
                        }
                    },
                },
            }
        }
    }

    /// Sets `key` to `value`; an empty value removes it.
    ///
    /// # Errors
    /// When a node that the change needs cannot be loaded.
    pub fn set<E>(
        &mut self,
        key: &Nibbles,
        value: Vec<u8>,
        mut load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<(), TrieError<E>> {
        if value.is_empty() && self.get(key, &mut load)?.is_none() {
            return Ok(());
        }
        let (root, touched) = (&mut self.root, &mut self.touched);
        let mut load = checking(self.checked, load);
        if value.is_empty() {
            remove(root, Nibbles::new(), *key, touched, &mut load)
        } else {
            insert(root, Nibbles::new(), *key, value, touched, &mut load)
        }
    }

    /// Hashes what changed. Gives the root and, by path, every node that is stored now and was not
    /// (or was another) before, and none for every path at which nothing is stored any more.
    pub fn commit(&mut self) -> (B256, BTreeMap<Nibbles, Option<Bytes>>) {
        let mut changes: BTreeMap<Nibbles, Option<Bytes>> =
            core::mem::take(&mut self.touched).into_iter().map(|path| (path, None)).collect();
        if matches!(self.root.node, Node::Empty) {
            return (EMPTY_ROOT_HASH, changes);
        }
        if let Some(rlp) = commit(&mut self.root, Nibbles::new(), &mut changes) {
            let root = keccak256(&rlp);
            changes.insert(Nibbles::new(), Some(rlp.into()));
            self.root.reference = Some(RlpNode::word_rlp(&root));
        }
        let root = self.root.reference.as_ref().and_then(RlpNode::as_hash);
        (root.unwrap_or(EMPTY_ROOT_HASH), changes)
    }

    /// The stored nodes on the path of `key`, from the root down: a proof of its value or of its
    /// absence, as `eth_getProof` gives it. Empty for the empty trie. The trie must be committed.
    ///
    /// # Errors
    /// When a node on the path cannot be loaded.
    pub fn prove<E>(
        &mut self,
        key: &Nibbles,
        mut load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<Vec<Bytes>, TrieError<E>> {
        self.get(key, &mut load)?;
        let mut proof = Vec::new();
        let (mut cell, mut rest) = (&self.root, *key);
        loop {
            if cell.is_stored() {
                proof.push(cell.node.encode().into());
            }
            let (child, used) = match &cell.node {
                Node::Extension { key, child } if rest.starts_with(key) => {
                    (Some(&**child), key.len())
                }
                Node::Branch { children, .. } => {
                    (rest.first().and_then(|nibble| children.get(nibble)), 1)
                }
                _ => (None, 0),
            };
            match child {
                None => return Ok(proof),
                Some(child) => {
                    cell = child;
                    rest = after(&rest, used);
                }
            }
        }
    }
}

/// What is left of `key` after its first `count` nibbles.
fn after(key: &Nibbles, count: usize) -> Nibbles {
    key.slice(count.min(key.len())..)
}

fn join(path: &Nibbles, nibble: u8) -> Nibbles {
    let mut path = *path;
    path.push(nibble);
    path
}

/// Loads the node if it is not there yet.
fn resolve<E>(
    cell: &mut Cell,
    path: &Nibbles,
    load: &mut impl Load<E>,
) -> Result<(), TrieError<E>> {
    if let Node::Stored(hash) = cell.node {
        let rlp = load(path, hash)?;
        cell.node = Node::decode(&rlp, path.len()).ok_or(TrieError::Corrupt(*path))?;
    }
    Ok(())
}

/// Notes that the node at `path` is about to change.
fn touch(cell: &mut Cell, path: &Nibbles, touched: &mut BTreeSet<Nibbles>) {
    if cell.is_stored() {
        touched.insert(*path);
    }
    cell.reference = None;
}

/// A branch with one child, which may be a node further down when `rest` is not empty.
fn put(children: &mut Children, value: &mut Option<Vec<u8>>, key: &Nibbles, leaf: Vec<u8>) {
    match key.first() {
        None => *value = Some(leaf),
        Some(nibble) => {
            let node = Node::Leaf { key: after(key, 1), value: leaf };
            children.insert(nibble, Cell::fresh(node));
        }
    }
}

/// `branch`, below an extension when `prefix` is not empty.
fn extend(prefix: Nibbles, branch: Node) -> Node {
    if prefix.is_empty() {
        branch
    } else {
        Node::Extension { key: prefix, child: Box::new(Cell::fresh(branch)) }
    }
}

fn insert<E>(
    cell: &mut Cell,
    path: Nibbles,
    key: Nibbles,
    value: Vec<u8>,
    touched: &mut BTreeSet<Nibbles>,
    load: &mut impl Load<E>,
) -> Result<(), TrieError<E>> {
    resolve(cell, &path, load)?;
    touch(cell, &path, touched);
    match &mut cell.node {
        Node::Branch { children, value: own } => match key.first() {
            None => *own = Some(value),
            Some(nibble) => {
                let (path, key) = (join(&path, nibble), after(&key, 1));
                match children.get_mut(nibble) {
                    Some(child) => return insert(child, path, key, value, touched, load),
                    None => children.insert(nibble, Cell::fresh(Node::Leaf { key, value })),
                }
            }
        },
        Node::Extension { key: stretch, child } if key.starts_with(stretch) => {
            let rest = after(&key, stretch.len());
            return insert(child, path.join(stretch), rest, value, touched, load);
        }
        Node::Leaf { key: own, value: old } if *own == key => *old = value,
        node => cell.node = split(core::mem::take(node), &key, value),
    }
    Ok(())
}

/// `node` (no branch, and not on the way of `key`) together with `key`.
fn split(node: Node, key: &Nibbles, value: Vec<u8>) -> Node {
    let (mut children, mut own) = (Children::default(), None);
    let common = match node {
        Node::Leaf { key: other, value: old } => {
            let common = key.common_prefix_length(&other);
            put(&mut children, &mut own, &after(&other, common), old);
            common
        }
        Node::Extension { key: stretch, child } => {
            let common = key.common_prefix_length(&stretch);
            let rest = after(&stretch, common.saturating_add(1));
            // The child keeps its path, so it stays stored where it is.
            let child = if rest.is_empty() {
                *child
            } else {
                Cell::fresh(Node::Extension { key: rest, child })
            };
            if let Some(nibble) = after(&stretch, common).first() {
                children.insert(nibble, child);
            }
            common
        }
        Node::Empty | Node::Stored(_) | Node::Branch { .. } => {
            return Node::Leaf { key: *key, value };
        }
    };
    put(&mut children, &mut own, &after(key, common), value);
    extend(key.slice(..common), Node::Branch { children, value: own })
}

/// Removes a key that is there.
fn remove<E>(
    cell: &mut Cell,
    path: Nibbles,
    key: Nibbles,
    touched: &mut BTreeSet<Nibbles>,
    load: &mut impl Load<E>,
) -> Result<(), TrieError<E>> {
    resolve(cell, &path, load)?;
    touch(cell, &path, touched);
    match &mut cell.node {
        Node::Empty | Node::Stored(_) => {}
        Node::Leaf { .. } => cell.node = Node::Empty,
        Node::Extension { key: stretch, child } => {
            let below = path.join(stretch);
            remove(child, below, after(&key, stretch.len()), touched, load)?;
            let child = if matches!(child.node, Node::Branch { .. }) {
                return Ok(());
            } else {
                core::mem::take(&mut **child)
            };
            cell.node = prepend(*stretch, child, &below, touched);
        }
        Node::Branch { children, value } => {
            match key.first() {
                None => *value = None,
                Some(nibble) => {
                    if let Some(child) = children.get_mut(nibble) {
                        remove(child, join(&path, nibble), after(&key, 1), touched, load)?;
                        if matches!(child.node, Node::Empty) {
                            children.remove(nibble);
                        }
                    }
                }
            }
            if children.is_empty() {
                cell.node = value
                    .take()
                    .map_or(Node::Empty, |value| Node::Leaf { key: Nibbles::new(), value });
            } else if value.is_none()
                && let Some((nibble, mut child)) = children.take_only()
            {
                let below = join(&path, nibble);
                resolve(&mut child, &below, load)?;
                cell.node = prepend(Nibbles::from_nibbles([nibble]), child, &below, touched);
            }
        }
    }
    Ok(())
}

/// `child`, which was at `below`, as the node that `prefix` leads to: leaves and extensions take the
/// prefix into their key, a branch stays where it is.
fn prepend(
    prefix: Nibbles,
    mut child: Cell,
    below: &Nibbles,
    touched: &mut BTreeSet<Nibbles>,
) -> Node {
    match core::mem::take(&mut child.node) {
        Node::Leaf { key, value } => {
            touch(&mut child, below, touched);
            Node::Leaf { key: prefix.join(&key), value }
        }
        Node::Extension { key, child: inner } => {
            touch(&mut child, below, touched);
            Node::Extension { key: prefix.join(&key), child: inner }
        }
        Node::Empty => Node::Empty,
        node => {
            child.node = node;
            Node::Extension { key: prefix, child: Box::new(child) }
        }
    }
}

/// Commits what changed at and below `cell`; gives its RLP when it changed itself.
fn commit(
    cell: &mut Cell,
    path: Nibbles,
    changes: &mut BTreeMap<Nibbles, Option<Bytes>>,
) -> Option<Vec<u8>> {
    if cell.reference.is_some() {
        return None;
    }
    let mut below = |child: &mut Cell, path: Nibbles| {
        if let Some(rlp) = commit(child, path, changes) {
            child.reference = Some(RlpNode::from_rlp(&rlp));
            if child.is_stored() {
                changes.insert(path, Some(rlp.into()));
            }
        }
    };
    match &mut cell.node {
        Node::Empty | Node::Stored(_) | Node::Leaf { .. } => {}
        Node::Extension { key, child } => below(child, path.join(key)),
        Node::Branch { children, .. } => {
            for (nibble, child) in children.iter_mut() {
                below(child, join(&path, nibble));
            }
        }
    }
    Some(cell.node.encode())
}
