//! When a proof was committed to: the heights of the transactions that its reveals spend.
//!
//! A commit can be a whole challenge window below its reveal, and anybody can put hundreds of copies of a
//! proof into one Bitcoin block, in every block of the window. So all that one block asks for is searched for
//! together, each block below is read at most once, and whoever has to be earlier than somebody is looked for
//! in the blocks before that only.

use super::proofs::Tip;
use alloc::collections::{BTreeMap, BTreeSet};
use bitcoin::{Block, OutPoint, Txid};
use kedge_bridge::derive::{ChunkRef, L1Lookup};
use kedge_bridge::envelope::{Kind, parse_input};
use kedge_genesis::L1Height;

/// What is known of the commits of the proofs that one Bitcoin block may complete.
#[derive(Default)]
pub(super) struct Commits {
    /// What each chunk's reveal spends, by reveal and input.
    spent: BTreeMap<(Txid, u32), OutPoint>,
    /// The transactions that these outputs are of.
    wanted: BTreeSet<Txid>,
    /// Those found: height, and which of their outputs are P2TR.
    found: BTreeMap<Txid, (L1Height, BTreeSet<u32>)>,
    /// The blocks searched.
    searched: BTreeSet<L1Height>,
}

impl Commits {
    /// Takes note of what the reveals of the block at hand and those of `chunks` spend.
    pub(super) fn prepare<'c, L: L1Lookup>(
        &mut self,
        tip: &Tip<'_, L>,
        chunks: impl Iterator<Item = &'c ChunkRef>,
    ) -> Result<(), L::Error> {
        if !self.spent.is_empty() {
            return Ok(());
        }
        let mut earlier: BTreeMap<L1Height, BTreeSet<Txid>> = BTreeMap::new();
        for chunk in chunks {
            earlier.entry(chunk.height).or_default().insert(chunk.txid);
        }
        for (height, reveals) in earlier {
            self.note(&*tip.l1_block(height)?, Some(&reveals));
        }
        self.note(&tip.l1.block, None);
        Ok(())
    }

    /// Takes note of the proof envelopes in a block's transactions, or in some of them.
    fn note(&mut self, block: &Block, reveals: Option<&BTreeSet<Txid>>) {
        for tx in &block.txdata {
            let mut txid = None;
            for (input, txin) in (0u32..).zip(&tx.input) {
                if parse_input(&txin.witness).is_none_or(|envelope| envelope.kind != Kind::Proof) {
                    continue;
                }
                let txid = *txid.get_or_insert_with(|| tx.compute_txid());
                if reveals.is_none_or(|reveals| reveals.contains(&txid)) {
                    self.spent.insert((txid, input), txin.previous_output);
                    self.wanted.insert(txin.previous_output.txid);
                }
            }
        }
    }

    /// Height of the transaction whose output the chunk's reveal spends. That of the reveal itself when there
    /// is no such Taproot output at or above `floor`: only Taproot makes an output commit to what its spend
    /// reveals, and nobody can commit to a proof before there is an assertion.
    pub(super) fn height<L: L1Lookup>(
        &mut self,
        tip: &Tip<'_, L>,
        chunk: &ChunkRef,
        floor: L1Height,
    ) -> Result<L1Height, L::Error> {
        Ok(self.find(tip, chunk, floor, tip.l1.at.height)?.unwrap_or(chunk.height))
    }

    /// [`Self::height`] if it is below `limit`, found without a look at the blocks from there on.
    pub(super) fn height_below<L: L1Lookup>(
        &mut self,
        tip: &Tip<'_, L>,
        chunk: &ChunkRef,
        floor: L1Height,
        limit: L1Height,
    ) -> Result<Option<L1Height>, L::Error> {
        let Some(top) = limit.prev() else { return Ok(None) };
        // A reveal is not below what it spends.
        let height = self.find(tip, chunk, floor, top)?.unwrap_or(chunk.height);
        Ok(Some(height).filter(|height| *height < limit))
    }

    /// Height of the Taproot output that the chunk's reveal spends, if it is at or above `floor`, and known or
    /// not above `top`.
    fn find<L: L1Lookup>(
        &mut self,
        tip: &Tip<'_, L>,
        chunk: &ChunkRef,
        floor: L1Height,
        top: L1Height,
    ) -> Result<Option<L1Height>, L::Error> {
        let Some(commit) = self.spent.get(&(chunk.txid, chunk.input)).copied() else {
            return Ok(None);
        };
        let mut next = Some(top);
        loop {
            if let Some((height, p2tr)) = self.found.get(&commit.txid) {
                let counts = *height >= floor && p2tr.contains(&commit.vout);
                return Ok(counts.then_some(*height));
            }
            let Some(at) = next.filter(|at| *at >= floor) else { return Ok(None) };
            if self.searched.insert(at) {
                self.search(&*tip.l1_block(at)?, at);
            }
            next = at.prev();
        }
    }

    fn search(&mut self, block: &Block, height: L1Height) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            if self.wanted.contains(&txid) {
                let outputs = (0u32..).zip(&tx.output);
                let p2tr = outputs.filter(|(_, output)| output.script_pubkey.is_p2tr());
                self.found.insert(txid, (height, p2tr.map(|(vout, _)| vout).collect()));
            }
        }
    }
}
