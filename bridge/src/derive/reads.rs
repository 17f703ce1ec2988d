//! How many Bitcoin blocks epochs make derivation read.

use super::{ChunkRef, L1Lookup};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::Block;
use core::cell::Cell;
use kedge_genesis::L1Height;

/// A lookup that counts the blocks that are read, one that is read several times in a row once.
#[derive(Debug)]
pub struct Reads<'a, L> {
    lookup: &'a L,
    count: Cell<u32>,
    last: Cell<Option<L1Height>>,
}

impl<'a, L> Reads<'a, L> {
    /// None read yet.
    pub const fn new(lookup: &'a L) -> Self {
        Self { lookup, count: Cell::new(0), last: Cell::new(None) }
    }

    /// How many were read.
    pub const fn count(&self) -> u32 {
        self.count.get()
    }
}

impl<L: L1Lookup> L1Lookup for Reads<'_, L> {
    type Error = L::Error;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, L::Error> {
        if self.last.replace(Some(height)) != Some(height) {
            self.count.set(self.count.get().saturating_add(1));
        }
        self.lookup.l1_block(height)
    }

    /// Not counted: it is known by its hash, without its block.
    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, L::Error> {
        self.lookup.chunk(at, hash)
    }
}
