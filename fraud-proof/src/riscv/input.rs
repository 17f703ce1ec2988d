//! What the verifier's program is given.
//!
//! The program trusts nothing of it but that an assertion with this id, base and body is on Bitcoin, which
//! it repeats beside its verdict ([`Subject`](super::outcome::Subject)). From the body all else follows: the
//! parameters by their hash, the Bitcoin blocks by the hash of the asserted one. The input is the record
//!
//! ```text
//! [params, id, base, body, headers, [[height, transactions], …], [chunk, …], proof]
//! ```
//!
//! | field | content |
//! | --- | --- |
//! | `params` | [`Params::encode`] |
//! | `id`, `base` | 32 bytes each, as in [`AssertionView`] |
//! | `body` | the assertion's, as on Bitcoin ([`AssertionBody`]) |
//! | `headers` | 80 bytes for each Bitcoin block from the lowest that is read to the asserted one, ascending; none when none is read |
//! | `height`, `transactions` | of every block that is read, ascending; what follows the header in the serialisation of BIP-144 |
//! | `chunk` | the bytes of each chunk of a batch that is read, but for the batch's last, ascending by hash |
//! | `proof` | the fraud proof |
//!
//! The header of a batch lists the hashes of its chunks, so those need no block around them.

use crate::verify::{AssertionView, Verdict, verify};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Transaction, Txid, WitnessMerkleNode, Wtxid, merkle_tree};
use core::cell::RefCell;
use kedge_bridge::assertion::AssertionBody;
use kedge_bridge::derive::codec::{CodecError, Reader, Writer};
use kedge_bridge::derive::{ChunkRef, L1Lookup, read_chunk};
use kedge_bridge::envelope::chunk_hash;
use kedge_genesis::{L1Height, Params};

/// Why there is no verdict on an input. None of it says anything about the assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputFault {
    /// It is not the record that it has to be.
    #[error("not the record of an input")]
    Record,
    /// The parameters are not those that the assertion names.
    #[error("the parameters are not those that the assertion names")]
    Params,
    /// The headers do not lead up to the asserted block.
    #[error("the headers do not lead up to the asserted block")]
    Headers,
    /// Transactions are not those of the block.
    #[error("transactions are not those of their block")]
    Block,
    /// A block that the verdict depends on is not there.
    #[error("a Bitcoin block is missing")]
    Missing,
}

/// Judges `proof` with [`verify()`] and gives the input on which the program comes to the same verdict.
/// `parent` is the id of the assertion that the assertion continues.
///
/// # Errors
/// When `l1` fails.
pub fn record_input<L: L1Lookup>(
    params: &Params,
    l1: &L,
    assertion: &AssertionView<'_>,
    parent: B256,
    proof: &[u8],
) -> Result<(Verdict, Vec<u8>), L::Error> {
    let recorder = Recorder { l1, read: RefCell::default(), chunks: RefCell::default() };
    let verdict = verify(params, &recorder, assertion, proof)?;
    let (read, chunks) = (recorder.read.into_inner(), recorder.chunks.into_inner());
    let mut headers = Vec::new();
    if let Some(lowest) = read.keys().next() {
        for height in lowest.0..=assertion.l1.height.0 {
            headers.extend(serialize(&l1.l1_block(L1Height(height))?.header));
        }
    }
    let (params_hash, claims) = (params.hash(), assertion.claims.to_vec());
    let body = AssertionBody { parent, params_hash, l1: assertion.l1, claims };
    let input = Writer::record(|w| {
        w.item(&params.encode().as_slice());
        w.item(&assertion.id);
        w.item(&assertion.base);
        w.item(&body.encode().as_slice());
        w.item(&headers.as_slice());
        w.each(&read, |w, (height, block)| {
            w.list(|w| {
                w.item(&height.0);
                w.item(&serialize(&block.txdata).as_slice());
            });
        });
        w.each(&chunks, |w, (_, chunk)| w.item(&chunk.as_slice()));
        w.item(&proof);
    });
    Ok((verdict, input))
}

/// Keeps what it is asked for.
struct Recorder<'a, L> {
    l1: &'a L,
    read: RefCell<BTreeMap<L1Height, Arc<Block>>>,
    chunks: RefCell<BTreeMap<B256, Vec<u8>>>,
}

impl<L: L1Lookup> L1Lookup for Recorder<'_, L> {
    type Error = L::Error;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, L::Error> {
        let block = self.l1.l1_block(height)?;
        self.read.borrow_mut().insert(height, Arc::clone(&block));
        Ok(block)
    }

    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, L::Error> {
        let chunk = self.l1.chunk(at, hash)?;
        match &chunk {
            Some(chunk) => drop(self.chunks.borrow_mut().insert(hash, chunk.clone())),
            // That it is not there only the block shows.
            None => drop(self.l1_block(at.height)?),
        }
        Ok(chunk)
    }
}

/// An input, taken apart. All in it belongs to the body; the transactions of a block are compared with its
/// header when it is read.
pub(super) struct Input<'a> {
    pub(super) params: Params,
    pub(super) id: B256,
    pub(super) base: B256,
    pub(super) body: &'a [u8],
    pub(super) assertion: AssertionBody,
    pub(super) blocks: Blocks<'a>,
    pub(super) proof: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, InputFault> {
        let mut params: &[u8] = &[];
        let mut headers: &[u8] = &[];
        let (id, base, body, transactions, chunks, proof) = Reader::record(bytes, |r| {
            params = r.bytes()?;
            let (id, base) = (r.item()?, r.item()?);
            let body = r.bytes()?;
            headers = r.bytes()?;
            let blocks = r.each(usize::MAX, |r| r.list(|r| Ok((r.height()?, r.bytes()?))))?;
            let chunks = r.each(usize::MAX, Reader::bytes)?;
            Ok::<_, CodecError>((id, base, body, blocks, chunks, r.bytes()?))
        })
        .map_err(|_| InputFault::Record)?;
        let assertion = AssertionBody::decode(body).ok_or(InputFault::Record)?;
        let params = Params::decode(params).map_err(|_| InputFault::Params)?;
        if params.hash() != assertion.params_hash {
            return Err(InputFault::Params);
        }
        let headers = chain(headers, &assertion).ok_or(InputFault::Headers)?;
        let transactions = transactions.into_iter().collect();
        let chunks = chunks.into_iter().map(|chunk| (chunk_hash(chunk), chunk)).collect();
        let blocks = Blocks { headers, transactions, chunks, last: RefCell::default() };
        Ok(Self { params, id, base, body, assertion, blocks, proof })
    }
}

/// Headers by height. None when they do not lead up to the asserted block.
fn chain(bytes: &[u8], assertion: &AssertionBody) -> Option<BTreeMap<L1Height, Header>> {
    let (headers, rest) = bytes.as_chunks::<80>();
    let mut height = assertion.l1.height;
    let mut hash = assertion.l1.hash;
    let mut chain = BTreeMap::new();
    for bytes in headers.iter().rev() {
        let header: Header = deserialize(bytes).ok()?;
        if header.block_hash().to_byte_array() != hash.0 || chain.insert(height, header).is_some() {
            return None;
        }
        hash = B256::new(header.prev_blockhash.to_byte_array());
        height = L1Height(height.0.saturating_sub(1));
    }
    rest.is_empty().then_some(chain)
}

/// The Bitcoin blocks of an input.
pub(super) struct Blocks<'a> {
    headers: BTreeMap<L1Height, Header>,
    transactions: BTreeMap<L1Height, &'a [u8]>,
    /// Chunks by hash.
    chunks: BTreeMap<B256, &'a [u8]>,
    /// The block read last: derivation reads one several times in a row.
    last: RefCell<Option<(L1Height, Arc<Block>)>>,
}

impl L1Lookup for Blocks<'_> {
    type Error = InputFault;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, InputFault> {
        if let Some((at, block)) = &*self.last.borrow()
            && *at == height
        {
            return Ok(Arc::clone(block));
        }
        let transactions = self.transactions.get(&height).ok_or(InputFault::Missing)?;
        let header = *self.headers.get(&height).ok_or(InputFault::Headers)?;
        let txdata = deserialize(transactions).map_err(|_| InputFault::Block)?;
        let block = Block { header, txdata };
        if !is_whole(&block) {
            return Err(InputFault::Block);
        }
        let block = Arc::new(block);
        self.last.replace(Some((height, Arc::clone(&block))));
        Ok(block)
    }

    fn chunk(&self, at: &ChunkRef, hash: B256) -> Result<Option<Vec<u8>>, InputFault> {
        if let Some(chunk) = self.chunks.get(&hash) {
            return Ok(Some(chunk.to_vec()));
        }
        let block = self.l1_block(at.height)?;
        Ok(read_chunk(&block, at).filter(|chunk| chunk_hash(chunk) == hash))
    }
}

/// Whether the block's transactions and their witnesses are those that its header commits to, no more and no
/// less.
///
/// That the first is a coinbase keeps inner nodes of the merkle tree from passing for transactions, that all
/// are different keeps the last ones from being repeated. Witnesses are as the coinbase commits to
/// (BIP-141); without such a commitment there are none.
fn is_whole(block: &Block) -> bool {
    let Some(coinbase) = block.txdata.first() else { return false };
    let ids: Vec<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let different = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    let root = merkle_tree::calculate_root(ids.iter().map(|id| id.to_raw_hash()));
    let has_root = root == Some(block.header.merkle_root.to_raw_hash());
    coinbase.is_coinbase() && different && has_root && has_witnesses(block, coinbase, &ids)
}

/// Whether the witnesses of a block with these transaction ids are those that its coinbase commits to.
fn has_witnesses(block: &Block, coinbase: &Transaction, ids: &[Txid]) -> bool {
    let plain = |tx: &Transaction| tx.input.iter().all(|input| input.witness.is_empty());
    // The last such output counts (BIP-141).
    let commitment = coinbase.output.iter().rev().find_map(|output| {
        let script = output.script_pubkey.as_bytes();
        script.strip_prefix(WITNESS_COMMITMENT)?.first_chunk::<32>()
    });
    let Some(commitment) = commitment else { return block.txdata.iter().all(plain) };
    let reserved = coinbase.input.first().and_then(|input| {
        let mut items = input.witness.iter();
        let reserved = items.next().filter(|_| items.next().is_none())?;
        <&[u8; 32]>::try_from(reserved).ok()
    });
    let Some(reserved) = reserved else { return false };
    // Without a witness the two ids of a transaction are the same; the coinbase's counts as zero.
    let hashes = block.txdata.iter().zip(ids).map(|(tx, id)| {
        if plain(tx) { Wtxid::from_raw_hash(id.to_raw_hash()) } else { tx.compute_wtxid() }
    });
    let coinbase = core::iter::once(Wtxid::all_zeros());
    let hashes = coinbase.chain(hashes.skip(1)).map(|id| id.to_raw_hash());
    let root = merkle_tree::calculate_root(hashes).map(WitnessMerkleNode::from_raw_hash);
    root.is_some_and(|root| {
        Block::compute_witness_commitment(&root, reserved).as_byte_array() == commitment
    })
}

/// First bytes of the output script that commits to a block's witnesses (BIP-141).
const WITNESS_COMMITMENT: &[u8] = &[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
