//! Which blocks hold logs of an address or with a topic.
//!
//! One row for every address, and every topic by its position, that the logs of a block have: the kind of
//! the term, the term, the block's number. A request's blocks are found by leaps: where one of its terms says
//! that nothing is before block `n`, no other looks there. What a request costs follows from the blocks that
//! its rarest term is in, not from the length of the chain.

use crate::change::Change;
use crate::error::Result;
use crate::history::{at, split_at};
use crate::read::{Reader, corrupt, successor};
use crate::table::Table;
use alloy_primitives::{Address, B256, Log};
use kedge_genesis::L2Number;
use kedge_vm::OpReceiptEnvelope;
use std::collections::BTreeSet;

/// The kind of an address; the topic at position `i` has kind `1 + i`.
const ADDRESS: u8 = 0;

/// What a request asks of a log. Empty lists say nothing; of several entries in a list one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTerms {
    /// The contract that logged.
    pub addresses: Vec<Address>,
    /// Topics by position.
    pub topics: [Vec<B256>; 4],
}

impl LogTerms {
    /// Whether they say nothing, so that every block may hold such a log.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.topics.iter().all(Vec::is_empty)
    }

    /// For each list that says something, the keys of its entries without block number.
    fn clauses(&self) -> Vec<Vec<Term>> {
        let addresses = self.addresses.iter().map(|it| Term::new(ADDRESS, it.as_slice()));
        let topics = (ADDRESS + 1..).zip(&self.topics);
        let topics = topics.map(|(kind, topics)| {
            topics.iter().map(|it| Term::new(kind, it.as_slice())).collect::<Vec<_>>()
        });
        let clauses = std::iter::once(addresses.collect()).chain(topics);
        clauses.filter(|clause| !clause.is_empty()).collect()
    }
}

fn key(kind: u8, term: &[u8]) -> Vec<u8> {
    [&[kind], term].concat()
}

/// The keys, without block number, under which a block with these logs is found.
pub(crate) fn keys_of<'l>(logs: impl IntoIterator<Item = &'l Log>) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for log in logs {
        keys.insert(key(ADDRESS, log.address.as_slice()));
        for (kind, topic) in (ADDRESS + 1..).zip(log.topics()) {
            keys.insert(key(kind, topic.as_slice()));
        }
    }
    keys
}

impl Change<'_> {
    /// Adds the logs of a block to the index.
    pub(crate) fn index_logs(
        &mut self,
        number: L2Number,
        receipts: &[OpReceiptEnvelope],
    ) -> Result<()> {
        for key in keys_of(receipts.iter().flat_map(OpReceiptEnvelope::logs)) {
            self.add(Table::LogIndex, at(&key, number), Vec::new())?;
        }
        Ok(())
    }
}

/// How far a term's rows have been read.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Not yet.
    Unread,
    /// Its next block.
    Block(u64),
    /// There is no more.
    End,
}

/// One entry of a request.
#[derive(Debug)]
struct Term {
    key: Vec<u8>,
    place: Place,
}

impl Term {
    fn new(kind: u8, term: &[u8]) -> Self {
        Self { key: key(kind, term), place: Place::Unread }
    }

    /// The first block from `number` on that this term is in. Asked with rising numbers.
    fn from(&mut self, reader: &Reader<'_>, number: u64) -> Result<Option<u64>> {
        match self.place {
            Place::End => return Ok(None),
            Place::Block(block) if block >= number => return Ok(Some(block)),
            Place::Block(_) | Place::Unread => {}
        }
        let first = at(&self.key, L2Number(number));
        let found = reader.first_between(Table::LogIndex, &first, successor(&self.key))?;
        let Some((key, _)) = found else {
            self.place = Place::End;
            return Ok(None);
        };
        let (_, block) = split_at(&key).ok_or_else(|| corrupt(Table::LogIndex, &key))?;
        self.place = Place::Block(block.0);
        Ok(Some(block.0))
    }
}

/// The blocks that may hold logs which a request asks for, in order. Each item is one leap: to such a block, or
/// none where the request's terms still disagree. Of terms that are often near each other and never together
/// there may be any number of those, so it is for the caller to say how long it looks.
#[derive(Debug)]
pub struct LogBlocks<'r, 's> {
    reader: &'r Reader<'s>,
    clauses: Vec<Vec<Term>>,
    /// The clause that is asked next.
    turn: usize,
    /// Clauses in a row that are in block `next`.
    agree: usize,
    next: Option<u64>,
    last: u64,
}

impl<'s> Reader<'s> {
    /// The blocks from `first` to `last` in which, for each list of `terms` that says something, at least
    /// one log has one of its entries. All of them where `terms` is empty. Whether one log has all of it is
    /// for the caller to see.
    pub fn blocks_with_logs(
        &self,
        terms: &LogTerms,
        first: L2Number,
        last: L2Number,
    ) -> LogBlocks<'_, 's> {
        LogBlocks {
            reader: self,
            clauses: terms.clauses(),
            turn: 0,
            agree: 0,
            next: Some(first.0),
            last: last.0,
        }
    }
}

impl LogBlocks<'_, '_> {
    /// The first block from `number` on that the clause whose turn it is is in, or `number` without
    /// clauses.
    fn nearest(&mut self, number: u64) -> Result<Option<u64>> {
        let (turn, count) = (self.turn, self.clauses.len());
        let Some(clause) = self.clauses.get_mut(turn) else { return Ok(Some(number)) };
        self.turn = (turn + 1) % count;
        let mut nearest = None;
        for term in clause {
            let block = term.from(self.reader, number)?;
            nearest = nearest.into_iter().chain(block).min();
        }
        Ok(nearest)
    }
}

impl Iterator for LogBlocks<'_, '_> {
    type Item = Result<Option<L2Number>>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next.take().filter(|number| *number <= self.last)?;
        let nearest = match self.nearest(number) {
            Ok(nearest) => nearest.filter(|nearest| *nearest <= self.last)?,
            Err(error) => return Some(Err(error)),
        };
        self.agree = if nearest == number { self.agree + 1 } else { 1 };
        if self.agree < self.clauses.len() {
            self.next = Some(nearest);
            return Some(Ok(None));
        }
        self.agree = 0;
        self.next = nearest.checked_add(1);
        Some(Ok(Some(L2Number(nearest))))
    }
}
