//! The Merkle root over all pages: a binary tree of 2^18 leaves, BLAKE3, kept up to date by the pages
//! that changed.
//!
//! A leaf is BLAKE3 of the page's 4,096 bytes, a node BLAKE3 of its two children. The two can be told
//! apart by their depth, which is the same for all leaves.

use super::memory::{Memory, PAGES, Page};
use alloc::{boxed::Box, vec, vec::Vec};
use alloy_primitives::B256;

/// Levels above the leaves.
pub const DEPTH: usize = PAGES.ilog2() as usize;
/// Levels of one chunk of stored nodes.
const HALF: usize = DEPTH / 2;
/// Nodes of a chunk: a heap of `HALF` levels and its leaves, from 1.
const CHUNK: usize = 2 << HALF;
const _: () = assert!(PAGES == 1 << DEPTH && DEPTH == 2 * HALF);

type Chunk = Box<[B256]>;

/// Hashes of every node that is not that of untouched memory.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The upper half of the levels; its leaves are the roots of `lower`.
    upper: Chunk,
    /// The lower half, where anything was ever written.
    lower: Vec<Option<Chunk>>,
    empty: Chunk,
}

/// Hash of a page.
pub fn leaf(page: &Page) -> B256 {
    let mut bytes = [0; 4096];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(page) {
        *to = word.to_le_bytes();
    }
    B256::new(blake3::hash(&bytes).into())
}

/// Hash of two nodes.
pub fn node(left: B256, right: B256) -> B256 {
    B256::new(blake3::hash([left.0, right.0].as_flattened()).into())
}

/// A chunk all of whose leaves are `leaf`.
fn uniform(leaf: B256) -> Chunk {
    let mut chunk = vec![leaf; CHUNK].into_boxed_slice();
    let (mut hash, mut end) = (leaf, CHUNK / 2);
    while end > 1 {
        hash = node(hash, hash);
        let start = end / 2;
        if let Some(level) = chunk.get_mut(start..end) {
            level.fill(hash);
        }
        end = start;
    }
    chunk
}

fn root(chunk: &Chunk) -> B256 {
    chunk.get(1).copied().unwrap_or_default()
}

/// Recomputes what is above the nodes at `places`, which are sorted.
fn lift(chunk: &mut Chunk, mut places: Vec<usize>) {
    while places.first().is_some_and(|place| *place > 1) {
        places.iter_mut().for_each(|place| *place /= 2);
        places.dedup();
        for place in &places {
            let left = place.wrapping_mul(2);
            if let Some([left, right]) = chunk.get(left..left.wrapping_add(2)) {
                let hash = node(*left, *right);
                if let Some(to) = chunk.get_mut(*place) {
                    *to = hash;
                }
            }
        }
    }
}

impl Tree {
    /// The tree of untouched memory.
    pub fn new() -> Self {
        let empty = uniform(leaf(&[0; 1024]));
        Self { upper: uniform(root(&empty)), lower: vec![None; CHUNK / 2], empty }
    }

    /// The root.
    pub fn root(&self) -> B256 {
        root(&self.upper)
    }

    /// Takes over the pages that changed since the last call, and gives the root.
    pub(super) fn update(&mut self, memory: &mut Memory) -> B256 {
        let mut pages = memory.take_dirty();
        pages.sort_unstable();
        let mut changed = Vec::new();
        for group in pages.chunk_by(|a, b| a >> HALF == b >> HALF) {
            let Some(number) = group.first().map(|page| (page >> HALF) as usize) else { continue };
            let Some(chunk) = self.lower.get_mut(number) else { continue };
            let chunk = chunk.get_or_insert_with(|| self.empty.clone());
            let mut places = Vec::with_capacity(group.len());
            for page in group {
                let place = (*page as usize % (CHUNK / 2)).saturating_add(CHUNK / 2);
                if let (Some(content), Some(to)) = (memory.page(*page), chunk.get_mut(place)) {
                    *to = leaf(content);
                    places.push(place);
                }
            }
            lift(chunk, places);
            let place = number.saturating_add(CHUNK / 2);
            if let Some(to) = self.upper.get_mut(place) {
                *to = root(chunk);
                changed.push(place);
            }
        }
        lift(&mut self.upper, changed);
        self.root()
    }

    /// The siblings of a page's path, from the leaf up: with the page's content they prove its place
    /// under the root.
    pub fn path(&self, page: u32) -> Vec<B256> {
        let page = page as usize % PAGES;
        let chunk = self.lower.get(page >> HALF).and_then(Option::as_ref).unwrap_or(&self.empty);
        let mut path = Vec::with_capacity(DEPTH);
        for (chunk, number) in [(chunk, page % (CHUNK / 2)), (&self.upper, page >> HALF)] {
            let mut place = number.saturating_add(CHUNK / 2);
            while place > 1 {
                path.push(chunk.get(place ^ 1).copied().unwrap_or_default());
                place /= 2;
            }
        }
        path
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// The root that a page's content and the siblings of its path give.
pub fn root_from_path(number: u32, page: &Page, path: &[B256]) -> B256 {
    path.iter().enumerate().fold(leaf(page), |hash, (level, sibling)| {
        if number >> level.min(31) & 1 == 0 { node(hash, *sibling) } else { node(*sibling, hash) }
    })
}
