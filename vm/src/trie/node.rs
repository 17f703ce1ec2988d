//! Nodes: their RLP, and their form in memory.

use alloc::{boxed::Box, vec::Vec};
use alloy_primitives::B256;
use alloy_rlp::{Encodable, Header};
use alloy_trie::{
    Nibbles,
    nodes::{RlpNode, encode_path_leaf},
};

/// The RLP of the empty string, which stands for no node and for no value.
const EMPTY: u8 = 0x80;

/// The longest key, in nibbles: a hash.
const KEY_NIBBLES: usize = 64;

/// A place for a node.
#[derive(Clone, Debug, Default)]
pub(super) enum Cell {
    /// No node.
    #[default]
    Empty,
    /// A node that is not in memory, by its hash.
    Stored(B256),
    /// A node in memory.
    Loaded(Box<Loaded>),
}

/// A node with what its parent calls it.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) node: Node,
    /// How the parent refers to the node: its hash, or the node itself when it is shorter than 32
    /// bytes. None for a node that changed since it was last encoded.
    pub(super) reference: Option<RlpNode>,
}

/// A node in memory.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// The rest of a key and its value.
    Leaf { key: Nibbles, value: Vec<u8> },
    /// A stretch that all keys below share; the child is a branch.
    Extension { key: Nibbles, child: Cell },
    /// Children by nibble (none of them empty) and the value of the key that ends here.
    Branch { children: Children, value: Option<Vec<u8>> },
}

/// The children of a branch, ascending by nibble. As a list, because tries are made of little else: it is
/// as long as it has to be and in one piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Children(Vec<(u8, Cell)>);

impl Children {
    fn place(&self, nibble: u8) -> Result<usize, usize> {
        self.0.binary_search_by_key(&nibble, |(nibble, _)| *nibble)
    }

    pub(super) fn get(&self, nibble: u8) -> Option<&Cell> {
        self.0.get(self.place(nibble).ok()?).map(|(_, child)| child)
    }

    pub(super) fn get_mut(&mut self, nibble: u8) -> Option<&mut Cell> {
        let place = self.place(nibble).ok()?;
        self.0.get_mut(place).map(|(_, child)| child)
    }

    /// Puts a child where there is none.
    pub(super) fn insert(&mut self, nibble: u8, child: Cell) {
        if let Err(place) = self.place(nibble) {
            self.0.insert(place, (nibble, child));
        }
    }

    pub(super) fn remove(&mut self, nibble: u8) {
        if let Ok(place) = self.place(nibble) {
            self.0.remove(place);
        }
    }

    /// Takes out the one child, if there is just one.
    pub(super) fn take_only(&mut self) -> Option<(u8, Cell)> {
        if self.0.len() == 1 { self.0.pop() } else { None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [(u8, Cell)] {
        &mut self.0
    }
}

impl Cell {
    /// A node that was not there before.
    pub(super) fn fresh(node: Node) -> Self {
        Self::Loaded(Box::new(Loaded { node, reference: None }))
    }

    /// A node that is stored and has that hash.
    pub(super) fn stored(node: Node, hash: &B256) -> Self {
        let reference = Some(RlpNode::word_rlp(hash));
        Self::Loaded(Box::new(Loaded { node, reference }))
    }

    /// The child on the way to the key that goes on with `rest`, and how many nibbles lead to it.
    pub(super) fn towards(&mut self, rest: &Nibbles) -> Option<(&mut Self, usize)> {
        let Self::Loaded(loaded) = self else { return None };
        match &mut loaded.node {
            Node::Leaf { .. } => None,
            Node::Extension { key, child } => rest.starts_with(key).then(|| (child, key.len())),
            Node::Branch { children, .. } => Some((children.get_mut(rest.first()?)?, 1)),
        }
    }

    /// How many nodes of the subtree are in memory.
    pub(super) fn loaded(&self) -> usize {
        let Self::Loaded(loaded) = self else { return 0 };
        let below = match &loaded.node {
            Node::Leaf { .. } => 0,
            Node::Extension { child, .. } => child.loaded(),
            Node::Branch { children, .. } => {
                children.0.iter().map(|(_, child)| child.loaded()).sum()
            }
        };
        below.saturating_add(1)
    }

    /// Leaves the nodes of the subtree out of memory that are more than `depth` nodes below this one. They must
    /// have been encoded since they changed.
    pub(super) fn shed(&mut self, depth: usize) {
        let Self::Loaded(loaded) = self else { return };
        let hash = loaded.reference.as_ref().and_then(RlpNode::as_hash);
        match (depth.checked_sub(1), &mut loaded.node, hash) {
            (None, _, Some(hash)) => *self = Self::Stored(hash),
            (Some(depth), Node::Extension { child, .. }, _) => child.shed(depth),
            (Some(depth), Node::Branch { children, .. }, _) => {
                children.0.iter_mut().for_each(|(_, child)| child.shed(depth));
            }
            (_, _, _) => {}
        }
    }

    /// Appends how the parent refers to it: as to none while it has changes that were not committed.
    fn put_reference(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.push(EMPTY),
            Self::Stored(hash) => out.extend_from_slice(&RlpNode::word_rlp(hash)),
            Self::Loaded(loaded) => {
                out.extend_from_slice(loaded.reference.as_deref().unwrap_or(&[EMPTY]));
            }
        }
    }
}

impl Loaded {
    /// Whether the node is stored under a path of its own, as opposed to inside its parent.
    pub(super) fn is_stored(&self) -> bool {
        self.reference.as_ref().is_some_and(RlpNode::is_hash)
    }
}

impl Node {
    /// Parses a node that is `above` nibbles below the root; none for anything that is not the RLP of a
    /// node, or that would make a key longer than 64 nibbles.
    pub(super) fn decode(mut rlp: &[u8], above: usize) -> Option<Self> {
        let mut list = Header::decode_bytes(&mut rlp, true).ok()?;
        if !rlp.is_empty() {
            return None;
        }
        let mut items = Vec::with_capacity(17);
        while !list.is_empty() {
            let mut rest = list;
            let header = Header::decode(&mut rest).ok()?;
            let length = list.len().checked_sub(rest.len())?.checked_add(header.payload_length)?;
            items.push(list.get(..length)?);
            list = list.get(length..)?;
        }
        match items.as_slice() {
            [path, value] => {
                let (key, is_leaf) = decode_path(string(path)?)?;
                let below = above.checked_add(key.len()).filter(|length| *length <= KEY_NIBBLES)?;
                if is_leaf {
                    return Some(Self::Leaf { key, value: string(value)?.to_vec() });
                }
                let child = decode_reference(value, below)??;
                (!key.is_empty()).then_some(Self::Extension { key, child })
            }
            [children @ .., value] if children.len() == 16 => {
                let below = above.checked_add(1).filter(|length| *length <= KEY_NIBBLES)?;
                let count = children.iter().filter(|item| **item != [EMPTY]).count();
                let mut list = Vec::with_capacity(count);
                for (nibble, item) in (0..).zip(children) {
                    if let Some(child) = decode_reference(item, below)? {
                        list.push((nibble, child));
                    }
                }
                let value = string(value)?;
                Some(Self::Branch {
                    children: Children(list),
                    value: (!value.is_empty()).then(|| value.to_vec()),
                })
            }
            _ => None,
        }
    }

    /// The RLP of a node whose children are committed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(532);
        match self {
            Self::Leaf { key, value } => {
                encode_path_leaf(key, true).as_slice().encode(&mut payload);
                value.as_slice().encode(&mut payload);
            }
            Self::Extension { key, child } => {
                encode_path_leaf(key, false).as_slice().encode(&mut payload);
                child.put_reference(&mut payload);
            }
            Self::Branch { children, value } => {
                let mut rest = children.0.iter().peekable();
                for nibble in 0..16 {
                    match rest.next_if(|(of, _)| *of == nibble) {
                        Some((_, child)) => child.put_reference(&mut payload),
                        None => payload.push(EMPTY),
                    }
                }
                value.as_deref().unwrap_or_default().encode(&mut payload);
            }
        }
        let mut rlp = Vec::with_capacity(payload.len().saturating_add(3));
        Header { list: true, payload_length: payload.len() }.encode(&mut rlp);
        rlp.append(&mut payload);
        rlp
    }
}

/// The bytes of an RLP string that fills `item`.
fn string(mut item: &[u8]) -> Option<&[u8]> {
    let bytes = Header::decode_bytes(&mut item, false).ok()?;
    item.is_empty().then_some(bytes)
}

/// A child `above` nibbles below the root: some(none) for no child, none for what is not a reference.
/// Embedded nodes nest at most 32 deep, since each is shorter than its parent.
fn decode_reference(item: &[u8], above: usize) -> Option<Option<Cell>> {
    match item {
        [EMPTY] => Some(None),
        [0xa0, hash @ ..] => Some(Some(Cell::Stored(B256::try_from(hash).ok()?))),
        embedded if embedded.len() < 32 => Some(Some(Cell::Loaded(Box::new(Loaded {
            node: Node::decode(embedded, above)?,
            reference: Some(RlpNode::from_raw_rlp(embedded).ok()?),
        })))),
        _ => None,
    }
}

/// The nibbles of a hex-prefix encoded path and whether it is a leaf's.
fn decode_path(bytes: &[u8]) -> Option<(Nibbles, bool)> {
    let (flag, rest) = bytes.split_first()?;
    if rest.len() > 32 {
        return None;
    }
    let (kind, nibble) = (flag >> 4, flag & 15);
    let mut path = Nibbles::new();
    match kind {
        0 | 2 if nibble == 0 => {}
        1 | 3 if rest.len() < 32 => path.push(nibble),
        _ => return None,
    }
    path.extend(&Nibbles::unpack(rest));
    Some((path, kind >= 2))
}
