//! A folder of raw Bitcoin blocks, one a file under any name: as bytes, as `kedge l1 export-blocks` writes
//! them, or in hexadecimal, as `bitcoin-cli getblock HASH 0` prints them. Hidden files and whatever is no file are
//! passed over.
//!
//! The files are ordered by what their headers say. Each header must have the proof of work that it names,
//! and each body must be the one that its header commits to, witnesses included. Of several branches the one
//! with the most work counts. Whether that is Bitcoin's chain is not decided here: compare its tip.

use super::blocks::{BlockSource, BlocksError};
use bitcoin::{
    Block, BlockHash, Transaction, TxOut, Txid, Work,
    block::Header,
    consensus::{Decodable, deserialize},
    hashes::Hash as _,
};
use kedge_genesis::{L1Height, L1Ref, Params};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

/// Bytes of a header.
const HEADER_BYTES: usize = 80;
/// No block is longer: its weight is at most 4,000,000.
const MAX_BLOCK_BYTES: usize = 4_000_000;
/// How the script of a coinbase output begins that commits to the block's witnesses (BIP-141).
const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The blocks of a folder above a network's start, the branch with the most work.
#[derive(Debug)]
pub struct Folder {
    start: L1Ref,
    /// Files and hashes of the blocks, from the one after the start on.
    chain: Vec<(PathBuf, BlockHash)>,
}

/// A file by its header.
struct Entry {
    path: PathBuf,
    header: Header,
    hash: BlockHash,
}

impl Folder {
    /// Reads the header of every file.
    ///
    /// # Errors
    /// When the folder or a file cannot be read, a file is no block, nothing follows the network's start, or a
    /// block between others is missing.
    pub fn open(dir: &Path, params: &Params) -> Result<Self, BlocksError> {
        let io = |source| BlocksError::Io { path: dir.to_owned(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let path = entry.path();
            if !hidden && path.is_file() {
                paths.push(path);
            }
        }
        // Two files may hold one block.
        paths.sort();
        let mut entries = Vec::new();
        for path in paths {
            let header = read_header(&path)?;
            let hash = header.block_hash();
            if header.validate_pow(header.target()).is_err() {
                let reason = "its hash has not the proof of work that its header names".to_owned();
                return Err(BlocksError::NotABlock { path, reason });
            }
            entries.push(Entry { path, header, hash });
        }
        let start = BlockHash::from_byte_array(params.l1_start.hash.0);
        let chain = best_chain(&entries, start)?;
        if chain.is_empty() {
            return Err(BlocksError::NoStart {
                path: dir.to_owned(),
                files: entries.len(),
                network: params.network.name(),
                height: params.l1_start.height,
                start,
            });
        }
        let chain = chain.into_iter().map(|entry| (entry.path.clone(), entry.hash)).collect();
        Ok(Self { start: params.l1_start, chain })
    }
}

/// The branch with the most work above `start`.
fn best_chain(entries: &[Entry], start: BlockHash) -> Result<Vec<&Entry>, BlocksError> {
    let mut children: HashMap<BlockHash, Vec<&Entry>> = HashMap::new();
    let mut by_hash: HashMap<BlockHash, &Entry> = HashMap::new();
    for entry in entries {
        if by_hash.insert(entry.hash, entry).is_none() {
            children.entry(entry.header.prev_blockhash).or_default().push(entry);
        }
    }
    let mut above: HashSet<BlockHash> = HashSet::new();
    let mut best: Option<(Work, &Entry)> = None;
    let mut next: Vec<(Work, &Entry)> = Vec::new();
    let branches = |at: &BlockHash| children.get(at).into_iter().flatten();
    next.extend(branches(&start).map(|entry| (entry.header.work(), *entry)));
    while let Some((work, entry)) = next.pop() {
        above.insert(entry.hash);
        // Of equal ones the smaller hash, so that the order of the files does not matter.
        if best.is_none_or(|(most, tip)| (work, tip.hash) > (most, entry.hash)) {
            best = Some((work, entry));
        }
        next.extend(branches(&entry.hash).map(|child| (work + child.header.work(), *child)));
    }
    if above.is_empty() {
        return Ok(Vec::new());
    }
    // The start and what it follows may be there; anything else that hangs in the air misses something.
    let mut known = above;
    let mut at = start;
    while let Some(entry) = by_hash.get(&at) {
        known.insert(at);
        at = entry.header.prev_blockhash;
    }
    let hanging = entries.iter().find(|entry| {
        !known.contains(&entry.hash) && !by_hash.contains_key(&entry.header.prev_blockhash)
    });
    if let Some(entry) = hanging {
        let (missing, path) = (entry.header.prev_blockhash, entry.path.clone());
        return Err(BlocksError::Missing { missing, path });
    }
    let mut chain = Vec::new();
    let mut at = best.map(|(_, entry)| entry);
    while let Some(entry) = at {
        chain.push(entry);
        at = by_hash.get(&entry.header.prev_blockhash).copied().filter(|below| below.hash != start);
    }
    chain.reverse();
    Ok(chain)
}

impl BlockSource for Folder {
    fn tip(&self) -> L1Height {
        self.start.height.plus(u32::try_from(self.chain.len()).unwrap_or(u32::MAX))
    }

    fn block(&self, height: L1Height, _: Option<BlockHash>) -> Result<Block, BlocksError> {
        let above =
            height.0.checked_sub(self.start.height.0).and_then(|above| above.checked_sub(1));
        let entry = above.and_then(|above| self.chain.get(above as usize));
        let (path, hash) = entry.ok_or(BlocksError::Reorganised { height })?;
        let not =
            |reason: &str| BlocksError::NotABlock { path: path.clone(), reason: reason.into() };
        let block: Block =
            deserialize(&read_file(path)?).map_err(|error| not(&error.to_string()))?;
        if block.block_hash() != *hash {
            return Err(not("it has changed since it was looked at first"));
        }
        if !is_whole(&block) {
            return Err(not("its transactions, or their witnesses, are not those of its header"));
        }
        Ok(block)
    }
}

/// Whether the body is the one that the header commits to, with all witnesses.
fn is_whole(block: &Block) -> bool {
    let Some(coinbase) = block.txdata.first().filter(|tx| tx.is_coinbase()) else { return false };
    // With every witness left out there is nothing that the crate would compare. A block before segwit may have
    // the commitment alone, but no network starts as early.
    let is_commitment = |output: &TxOut| output.script_pubkey.as_bytes().starts_with(&COMMITMENT);
    let is_stripped = coinbase.output.iter().any(is_commitment)
        && coinbase.input.iter().all(|input| input.witness.is_empty());
    // A merkle tree cannot tell whether its last leaves are there twice (CVE-2012-2459).
    let txids: HashSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    !is_stripped
        && txids.len() == block.txdata.len()
        && block.check_merkle_root()
        && block.check_witness_commitment()
}

/// The header at the beginning of a file.
fn read_header(path: &Path) -> Result<Header, BlocksError> {
    let mut bytes = read_at_most(path, 2 * HEADER_BYTES)?;
    if bytes.iter().all(u8::is_ascii_hexdigit) {
        // A block's first bytes are its version, of which some are no digits.
        bytes = hex::decode(&bytes).unwrap_or_default();
    }
    Header::consensus_decode(&mut bytes.as_slice()).map_err(|_| BlocksError::NotABlock {
        path: path.to_owned(),
        reason: "it is too short".to_owned(),
    })
}

/// The bytes of a block's file, whichever way it is written.
fn read_file(path: &Path) -> Result<Vec<u8>, BlocksError> {
    let not =
        |reason: &str| BlocksError::NotABlock { path: path.to_owned(), reason: reason.into() };
    // In hexadecimal twice as long, with the ends of lines of any system.
    let limit = 2 * MAX_BLOCK_BYTES + 2;
    let bytes = read_at_most(path, limit + 1)?;
    let text = bytes.trim_ascii();
    let bytes = if text.iter().all(u8::is_ascii_hexdigit) {
        hex::decode(text).map_err(|error| not(&error.to_string()))?
    } else {
        bytes
    };
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(not("it is larger than a block can be"));
    }
    Ok(bytes)
}

fn read_at_most(path: &Path, limit: usize) -> Result<Vec<u8>, BlocksError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit as u64).read_to_end(&mut bytes));
    read.map_err(|source| BlocksError::Io { path: path.to_owned(), source })?;
    Ok(bytes)
}
