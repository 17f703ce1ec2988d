//! Reading, changing and committing one trie.

use super::node::{Cell, Children, Loaded, Node};
use super::threads::{OneThread, Threads};
use crate::TrieNodes;
use alloc::{collections::BTreeMap, collections::BTreeSet, vec::Vec};
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
    pub(super) checked: bool,
    /// Paths at which a node was stored that has changed, moved or gone since the last commit.
    touched: BTreeSet<Nibbles>,
}

/// What becomes of leaves that were hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// They stay in memory.
    Keep,
    /// They are loaded again when they are needed, or [known](Trie::recall).
    Drop,
}

/// Where fewer nodes changed than these, threads take longer than hashing.
const WORTH_THREADS: usize = 64;
/// Levels of branches whose children may be hashed at once: up to 256 parts.
const LEVELS_IN_THREADS: u8 = 2;

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

/// A loader that gives the leaf of `key` without asking for it, if its value is `value`: the hash tells.
fn recalling<E>(key: &Nibbles, value: Option<&[u8]>, mut load: impl Load<E>) -> impl Load<E> {
    move |path, hash| {
        if let Some(value) = value {
            let leaf = Node::Leaf { key: after(key, path.len()), value: value.to_vec() }.encode();
            if keccak256(&leaf) == hash {
                return Ok(leaf.into());
            }
        }
        load(path, hash)
    }
}

impl Trie {
    /// The trie with that root.
    pub fn new(root: B256) -> Self {
        let root = if root == EMPTY_ROOT_HASH { Cell::Empty } else { Cell::Stored(root) };
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
        self.recall(key, None, load)
    }

    /// As [`Trie::get`] where the value is likely to be `value`: if it is, the node that has it is not loaded.
    ///
    /// # Errors
    /// As [`Trie::get`].
    pub(super) fn recall<E>(
        &mut self,
        key: &Nibbles,
        value: Option<&[u8]>,
        load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<Option<&[u8]>, TrieError<E>> {
        let mut load = recalling(key, value, checking(self.checked, load));
        let mut cell = &mut self.root;
        let mut path = Nibbles::new();
        loop {
            let Some(loaded) = resolve(cell, &path, &mut load)? else { return Ok(None) };
            let rest = after(key, path.len());
            match &mut loaded.node {
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

    /// The first node on the way to `key` that is not in memory: its path and hash. If it is the leaf of `key` with
    /// the value `value`, it comes into memory instead.
    pub(super) fn gap(&mut self, key: &Nibbles, value: Option<&[u8]>) -> Option<(Nibbles, B256)> {
        let mut cell = &mut self.root;
        let mut path = Nibbles::new();
        loop {
            let rest = after(key, path.len());
            if let Cell::Stored(hash) = cell {
                let hash = *hash;
                let leaf = value.map(|value| Node::Leaf { key: rest, value: value.to_vec() });
                match leaf {
                    Some(node) if keccak256(node.encode()) == hash => {
                        *cell = Cell::stored(node, &hash);
                        return None;
                    }
                    _ => return Some((path, hash)),
                }
            }
            let (child, used) = cell.towards(&rest)?;
            path.extend(&rest.slice(..used));
            cell = child;
        }
    }

    /// Brings the node at `path`, which is a [gap](Self::gap) with that hash, into memory. False where these are not
    /// its bytes.
    pub(super) fn fill(&mut self, path: &Nibbles, hash: B256, rlp: &[u8]) -> bool {
        if !self.checked && keccak256(rlp) != hash {
            return false;
        }
        let Some(node) = Node::decode(rlp, path.len()) else { return false };
        let (mut cell, mut rest) = (&mut self.root, *path);
        while !rest.is_empty() {
            let Some((child, used)) = cell.towards(&rest) else { return false };
            (cell, rest) = (child, after(&rest, used));
        }
        if matches!(cell, Cell::Stored(_)) {
            *cell = Cell::stored(node, &hash);
        }
        true
    }

    /// Sets `key` to `value`; an empty value removes it.
    ///
    /// # Errors
    /// When a node that the change needs cannot be loaded.
    pub fn set<E>(
        &mut self,
        key: &Nibbles,
        value: Vec<u8>,
        load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<(), TrieError<E>> {
        self.replace(key, None, value, load)
    }

    /// As [`Trie::set`] where the value so far is likely to be `before`: see [`Trie::recall`].
    ///
    /// # Errors
    /// As [`Trie::set`].
    pub(super) fn replace<E>(
        &mut self,
        key: &Nibbles,
        before: Option<&[u8]>,
        value: Vec<u8>,
        mut load: impl FnMut(&Nibbles, B256) -> Result<Bytes, E>,
    ) -> Result<(), TrieError<E>> {
        if value.is_empty() && self.recall(key, before, &mut load)?.is_none() {
            return Ok(());
        }
        let (root, touched) = (&mut self.root, &mut self.touched);
        let mut load = recalling(key, before, checking(self.checked, load));
        if value.is_empty() {
            remove(root, Nibbles::new(), *key, touched, &mut load)
        } else {
            insert(root, Nibbles::new(), *key, value, touched, &mut load)
        }
    }

    /// Hashes what changed. Gives the root and, by path, every node that is stored now and was not
    /// (or was another) before, and none for every path at which nothing is stored any more.
    pub fn commit(&mut self) -> (B256, BTreeMap<Nibbles, Option<Bytes>>) {
        self.commit_on::<OneThread>(Leaves::Keep)
    }

    /// As [`Trie::commit`], on the threads of `T`.
    pub(super) fn commit_on<T: Threads>(
        &mut self,
        leaves: Leaves,
    ) -> (B256, BTreeMap<Nibbles, Option<Bytes>>) {
        let touched = core::mem::take(&mut self.touched);
        let levels = if touched.len() < WORTH_THREADS { 0 } else { LEVELS_IN_THREADS };
        let mut changes: BTreeMap<_, _> = touched.into_iter().map(|path| (path, None)).collect();
        let root = match &mut self.root {
            Cell::Empty => EMPTY_ROOT_HASH,
            Cell::Stored(hash) => *hash,
            Cell::Loaded(loaded) => {
                let mut nodes = Vec::new();
                if let Some(rlp) = commit::<T>(loaded, Nibbles::new(), levels, leaves, &mut nodes) {
                    let root = keccak256(&rlp);
                    nodes.push((Nibbles::new(), rlp.into()));
                    loaded.reference = Some(RlpNode::word_rlp(&root));
                }
                changes.extend(nodes.into_iter().map(|(path, node)| (path, Some(node))));
                loaded.reference.as_ref().and_then(RlpNode::as_hash).unwrap_or(EMPTY_ROOT_HASH)
            }
        };
        (root, changes)
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
        while let Cell::Loaded(loaded) = cell {
            if loaded.is_stored() {
                proof.push(loaded.node.encode().into());
            }
            let (child, used) = match &loaded.node {
                Node::Extension { key, child } if rest.starts_with(key) => (Some(child), key.len()),
                Node::Branch { children, .. } => {
                    (rest.first().and_then(|nibble| children.get(nibble)), 1)
                }
                Node::Leaf { .. } | Node::Extension { .. } => (None, 0),
            };
            let Some(child) = child else { break };
            cell = child;
            rest = after(&rest, used);
        }
        Ok(proof)
    }

    /// How many nodes are in memory.
    pub(super) fn loaded(&self) -> usize {
        self.root.loaded()
    }

    /// Leaves those nodes out of memory that are more than `depth` nodes below the root. The trie must be
    /// committed.
    pub(super) fn shed(&mut self, depth: usize) {
        self.root.shed(depth);
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

/// The node, loaded if it is not there yet.
fn resolve<'c, E>(
    cell: &'c mut Cell,
    path: &Nibbles,
    load: &mut impl Load<E>,
) -> Result<Option<&'c mut Loaded>, TrieError<E>> {
    if let Cell::Stored(hash) = cell {
        let rlp = load(path, *hash)?;
        let node = Node::decode(&rlp, path.len()).ok_or(TrieError::Corrupt(*path))?;
        *cell = Cell::stored(node, hash);
    }
    match cell {
        Cell::Loaded(loaded) => Ok(Some(loaded)),
        Cell::Empty | Cell::Stored(_) => Ok(None),
    }
}

/// Notes that the node at `path` is about to change.
fn touch(loaded: &mut Loaded, path: &Nibbles, touched: &mut BTreeSet<Nibbles>) {
    if loaded.is_stored() {
        touched.insert(*path);
    }
    loaded.reference = None;
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
        Node::Extension { key: prefix, child: Cell::fresh(branch) }
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
    let Some(loaded) = resolve(cell, &path, load)? else {
        *cell = Cell::fresh(Node::Leaf { key, value });
        return Ok(());
    };
    touch(loaded, &path, touched);
    match &mut loaded.node {
        Node::Branch { children, value: own } => {
            match key.first() {
                None => *own = Some(value),
                Some(nibble) => {
                    let (path, key) = (join(&path, nibble), after(&key, 1));
                    match children.get_mut(nibble) {
                        Some(child) => return insert(child, path, key, value, touched, load),
                        None => children.insert(nibble, Cell::fresh(Node::Leaf { key, value })),
                    }
                }
            }
            return Ok(());
        }
        Node::Extension { key: stretch, child } if key.starts_with(stretch) => {
            let rest = after(&key, stretch.len());
            return insert(child, path.join(stretch), rest, value, touched, load);
        }
        Node::Leaf { key: own, value: old } if *own == key => {
            *old = value;
            return Ok(());
        }
        Node::Leaf { .. } | Node::Extension { .. } => {}
    }
    if let Cell::Loaded(loaded) = core::mem::take(cell) {
        *cell = Cell::fresh(split(loaded.node, &key, value));
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
                child
            } else {
                Cell::fresh(Node::Extension { key: rest, child })
            };
            if let Some(nibble) = after(&stretch, common).first() {
                children.insert(nibble, child);
            }
            common
        }
        Node::Branch { .. } => return node,
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
    let Some(loaded) = resolve(cell, &path, load)? else { return Ok(()) };
    touch(loaded, &path, touched);
    match &mut loaded.node {
        Node::Leaf { .. } => *cell = Cell::Empty,
        Node::Extension { key: stretch, child } => {
            let below = path.join(stretch);
            remove(child, below, after(&key, stretch.len()), touched, load)?;
            let is_branch =
                matches!(child, Cell::Loaded(loaded) if matches!(loaded.node, Node::Branch { .. }));
            if !is_branch {
                let (stretch, child) = (*stretch, core::mem::take(child));
                *cell = prepend(stretch, child, &below, touched);
            }
        }
        Node::Branch { children, value } => {
            match key.first() {
                None => *value = None,
                Some(nibble) => {
                    if let Some(child) = children.get_mut(nibble) {
                        remove(child, join(&path, nibble), after(&key, 1), touched, load)?;
                        if matches!(child, Cell::Empty) {
                            children.remove(nibble);
                        }
                    }
                }
            }
            if children.is_empty() {
                let leaf = |value| Cell::fresh(Node::Leaf { key: Nibbles::new(), value });
                *cell = value.take().map_or(Cell::Empty, leaf);
            } else if value.is_none()
                && let Some((nibble, mut child)) = children.take_only()
            {
                let below = join(&path, nibble);
                resolve(&mut child, &below, load)?;
                *cell = prepend(Nibbles::from_nibbles([nibble]), child, &below, touched);
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
) -> Cell {
    match &mut child {
        Cell::Empty => return child,
        Cell::Loaded(loaded) => match &mut loaded.node {
            Node::Leaf { key, .. } | Node::Extension { key, .. } => {
                *key = prefix.join(key);
                touch(loaded, below, touched);
                return child;
            }
            Node::Branch { .. } => {}
        },
        Cell::Stored(_) => {}
    }
    Cell::fresh(Node::Extension { key: prefix, child })
}

/// Nodes that are stored, by path.
type Stored = Vec<(Nibbles, Bytes)>;

/// Commits what changed at and below a node; gives its RLP when it changed itself. Its children's subtrees down
/// to `levels` below may be committed at once.
fn commit<T: Threads>(
    loaded: &mut Loaded,
    path: Nibbles,
    levels: u8,
    leaves: Leaves,
    stored: &mut Stored,
) -> Option<Vec<u8>> {
    if loaded.reference.is_some() {
        return None;
    }
    match &mut loaded.node {
        Node::Leaf { .. } => {}
        Node::Extension { key, child } => {
            commit_child::<T>(child, path.join(key), levels, leaves, stored);
        }
        Node::Branch { children, .. } => {
            commit_children::<T>(children.as_mut_slice(), path, levels, leaves, stored);
        }
    }
    Some(loaded.node.encode())
}

/// See [`commit`].
fn commit_child<T: Threads>(
    child: &mut Cell,
    path: Nibbles,
    levels: u8,
    leaves: Leaves,
    stored: &mut Stored,
) {
    let Cell::Loaded(loaded) = child else { return };
    let Some(rlp) = commit::<T>(loaded, path, levels, leaves, stored) else { return };
    let reference = RlpNode::from_rlp(&rlp);
    let hash = reference.as_hash();
    loaded.reference = Some(reference);
    if let Some(hash) = hash {
        stored.push((path, rlp.into()));
        if matches!((leaves, &loaded.node), (Leaves::Drop, Node::Leaf { .. })) {
            *child = Cell::Stored(hash);
        }
    }
}

/// See [`commit`].
fn commit_children<T: Threads>(
    children: &mut [(u8, Cell)],
    path: Nibbles,
    levels: u8,
    leaves: Leaves,
    stored: &mut Stored,
) {
    if levels == 0 || children.len() < 2 {
        for (nibble, child) in children {
            let levels = levels.saturating_sub(1);
            commit_child::<T>(child, join(&path, *nibble), levels, leaves, stored);
        }
        return;
    }
    let (left, right) = children.split_at_mut(children.len() / 2);
    let mut more = Stored::new();
    T::join(
        || commit_children::<T>(left, path, levels, leaves, stored),
        || commit_children::<T>(right, path, levels, leaves, &mut more),
    );
    stored.append(&mut more);
}
