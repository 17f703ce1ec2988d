//! What derivation remembers between two Bitcoin blocks: small, of bounded size, references only.

use super::codec::{CodecError, Reader, Writer, txid_bytes};
use super::epoch::{MEDIAN_TIME_SPAN, median_time};
use crate::vault::{VaultScripts, vault_script};
use alloc::vec;
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use kedge_genesis::{L1Height, L1Ref, L2Number, Params, tagged_hash, tags};

/// What an L1 block contributes as an origin, apart from its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochInfo {
    /// The L1 block.
    pub at: L1Ref,
    /// Merkle root of its transactions, internal byte order.
    pub merkle_root: B256,
    /// Median time past of the block, that is with its own header time. Unix seconds.
    pub median_time: u64,
    /// What the block's transactions paid on average, sat per 1,000 virtual bytes, clamped to the
    /// limits of the parameters.
    pub fee_rate: u64,
    /// The scripts to which deposits of this block are credited, after its own rotations.
    pub vault: VaultScripts,
}

/// How far the queue of forced messages has been taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForcedCursor {
    /// The L1 block whose forced messages come next.
    pub height: L1Height,
    /// How many forced envelopes of that block are done, valid or not.
    pub skip: u32,
}

/// Where the L2 chain stands, as far as the next block's contents depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Cursor {
    /// Number of the last L2 block.
    pub number: L2Number,
    /// Its timestamp, Unix seconds.
    pub timestamp: u64,
    /// Its L1 origin.
    pub origin: L1Ref,
    /// How many blocks of the same origin precede it.
    pub sequence_number: u64,
    /// Deposits of the origin that have been taken; zero once the epoch is complete.
    pub deposits_taken: u32,
    /// Whether all deposits of the origin have been taken, and with them its forced transactions.
    pub epoch_complete: bool,
    /// The queue of forced messages.
    pub forced: ForcedCursor,
}

/// Where the bytes of one chunk are on Bitcoin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Height of the block with the reveal.
    pub height: L1Height,
    /// The reveal.
    pub txid: Txid,
    /// The input whose witness is the envelope.
    pub input: u32,
}

/// A batch of several chunks that has begun and is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChannel {
    /// Channel id of the batch, which the sequencer signed.
    pub id: B256,
    /// Number of chunks that make it complete.
    pub total: u16,
    /// Height of its first chunk; the channel times out from there.
    pub opened: L1Height,
    /// The chunks seen, in order from chunk 0. Fewer than `total`, at least one.
    pub chunks: Vec<ChunkRef>,
}

/// The state of derivation after one L1 block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeriveState {
    /// The L1 block.
    pub l1: L1Ref,
    /// Header times of it and up to ten blocks before it, oldest first. Unix seconds.
    pub times: Vec<u32>,
    /// The origin of the cursor, then every later L1 block: at most `sequencing_window` + 1, and one less while
    /// the origin's epoch is incomplete.
    pub epochs: Vec<EpochInfo>,
    /// The batch of several chunks that has begun.
    pub channel: Option<OpenChannel>,
    /// Index that the next batch must have.
    pub next_batch: u64,
    /// Body hash of the last batch that was consumed; zero before the first.
    pub prev_body: B256,
    /// Where the derived ("safe") L2 chain stands.
    pub cursor: L2Cursor,
    /// The one vault output that every spend of the vault must spend; none before the first deposit.
    pub vault_head: Option<OutPoint>,
    /// The vault's scripts.
    pub vault: VaultScripts,
}

impl DeriveState {
    /// The state after the L1 block at which the network starts, with L2 block 0 as the head. None
    /// when the network has no keys yet.
    ///
    /// Header times below the start are not known, so the median time past of the first ten origins
    /// is over fewer times than Bitcoin's unless the network starts at Bitcoin's block 0.
    pub fn genesis(params: &Params) -> Option<Self> {
        let times = vec![params.l1_start_time];
        let vault = VaultScripts { current: vault_script(params)?, previous: None };
        let start = EpochInfo {
            at: params.l1_start,
            merkle_root: B256::ZERO,
            median_time: median_time(&times),
            fee_rate: params.fees.min_l1_fee_rate,
            vault: vault.clone(),
        };
        Some(Self {
            l1: params.l1_start,
            times,
            epochs: vec![start],
            channel: None,
            next_batch: 0,
            prev_body: B256::ZERO,
            cursor: L2Cursor {
                number: L2Number(0),
                timestamp: u64::from(params.l1_start_time),
                origin: params.l1_start,
                sequence_number: 0,
                deposits_taken: 0,
                epoch_complete: true,
                forced: ForcedCursor { height: params.l1_start.height.next(), skip: 0 },
            },
            vault_head: None,
            vault,
        })
    }

    /// Whether it has the shape that derivation gives its states. Only such a state is fit to derive
    /// from: it bounds what derivation reads, and keeps it within the blocks above the network's start.
    /// Says nothing about whether the state is true.
    pub fn is_shaped(&self, params: &Params) -> bool {
        let start = params.l1_start.height;
        let cursor = &self.cursor;
        let origin = cursor.origin.height;
        let most = usize::try_from(params.sequencing_window).unwrap_or(usize::MAX);
        let consecutive =
            (0u32..).zip(&self.epochs).all(|(above, epoch)| epoch.at.height == origin.plus(above));
        let p2tr = |vault: &VaultScripts| {
            let previous = vault.previous.as_ref();
            vault.current.is_p2tr() && previous.is_none_or(|(script, _)| script.is_p2tr())
        };
        let channel = self.channel.as_ref().is_none_or(|channel| {
            let heights = channel.opened..=self.l1.height;
            channel.chunks.first().is_some_and(|chunk| chunk.height == channel.opened)
                && channel.chunks.iter().all(|chunk| heights.contains(&chunk.height))
                && channel.chunks.len() < usize::from(channel.total)
                && channel.total <= params.max_chunks
                && channel.opened > start
        });
        channel
            && consecutive
            && p2tr(&self.vault)
            && self.epochs.iter().all(|epoch| p2tr(&epoch.vault))
            && !self.times.is_empty()
            && self.epochs.len() <= most.saturating_add(usize::from(cursor.epoch_complete))
            && self.epochs.first().is_some_and(|epoch| epoch.at == cursor.origin)
            && self.epochs.last().is_some_and(|epoch| epoch.at == self.l1)
            && (origin > start || (origin == start && cursor.epoch_complete))
            && cursor.forced.height > start
            && cursor.forced.height <= origin.next()
    }

    /// The canonical encoding, RLP.
    pub fn encode(&self) -> Vec<u8> {
        Writer::record(|w| {
            w.l1(&self.l1);
            w.each(&self.times, |w, time| w.item(time));
            w.each(&self.epochs, |w, epoch| w.list(|w| epoch.write(w)));
            w.each(&self.channel, |w, channel| w.list(|w| channel.write(w)));
            w.item(&self.next_batch);
            w.item(&self.prev_body);
            w.list(|w| self.cursor.write(w));
            w.each(&self.vault_head, |w, head| w.list(|w| w.outpoint(head)));
            w.list(|w| write_vault(&self.vault, w));
        })
    }

    /// The state with that canonical encoding.
    ///
    /// # Errors
    /// When the bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Reader::record(bytes, |r| {
            Ok(Self {
                l1: r.l1()?,
                times: r.each(MEDIAN_TIME_SPAN, Reader::item)?,
                epochs: r.each(usize::MAX, |r| r.list(EpochInfo::read))?,
                channel: r.option(|r| r.list(OpenChannel::read))?,
                next_batch: r.item()?,
                prev_body: r.item()?,
                cursor: r.list(L2Cursor::read)?,
                vault_head: r.option(|r| r.list(Reader::outpoint))?,
                vault: r.list(read_vault)?,
            })
        })
    }

    /// The hash that claims commit to: the tagged hash of the encoding.
    pub fn hash(&self) -> B256 {
        tagged_hash(tags::DERIVE_STATE_TAG, &self.encode())
    }
}

impl EpochInfo {
    fn write(&self, w: &mut Writer) {
        w.l1(&self.at);
        w.item(&self.merkle_root);
        w.item(&self.median_time);
        w.item(&self.fee_rate);
        w.list(|w| write_vault(&self.vault, w));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            at: r.l1()?,
            merkle_root: r.item()?,
            median_time: r.item()?,
            fee_rate: r.item()?,
            vault: r.list(read_vault)?,
        })
    }
}

impl L2Cursor {
    /// The canonical encoding, RLP.
    pub fn encode(&self) -> Vec<u8> {
        Writer::record(|w| self.write(w))
    }

    /// The cursor with that canonical encoding.
    ///
    /// # Errors
    /// When the bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Reader::record(bytes, Self::read)
    }

    fn write(&self, w: &mut Writer) {
        w.item(&self.number.0);
        w.item(&self.timestamp);
        w.l1(&self.origin);
        w.item(&self.sequence_number);
        w.item(&self.deposits_taken);
        w.item(&self.epoch_complete);
        w.item(&self.forced.height.0);
        w.item(&self.forced.skip);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            number: L2Number(r.item()?),
            timestamp: r.item()?,
            origin: r.l1()?,
            sequence_number: r.item()?,
            deposits_taken: r.item()?,
            epoch_complete: r.item()?,
            forced: ForcedCursor { height: r.height()?, skip: r.item()? },
        })
    }
}

impl OpenChannel {
    fn write(&self, w: &mut Writer) {
        w.item(&self.id);
        w.item(&self.total);
        w.item(&self.opened.0);
        w.each(&self.chunks, |w, chunk| {
            w.list(|w| {
                w.item(&chunk.height.0);
                w.item(&txid_bytes(chunk.txid));
                w.item(&chunk.input);
            });
        });
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: r.item()?,
            total: r.item()?,
            opened: r.height()?,
            chunks: r.each(usize::from(u16::MAX), |r| {
                r.list(|r| Ok(ChunkRef { height: r.height()?, txid: r.txid()?, input: r.item()? }))
            })?,
        })
    }
}

fn write_vault(vault: &VaultScripts, w: &mut Writer) {
    w.script(&vault.current);
    w.each(&vault.previous, |w, (script, until): &(ScriptBuf, L1Height)| {
        w.list(|w| {
            w.script(script);
            w.item(&until.0);
        });
    });
}

fn read_vault(r: &mut Reader<'_>) -> Result<VaultScripts, CodecError> {
    Ok(VaultScripts {
        current: r.script()?,
        previous: r.option(|r| r.list(|r| Ok((r.script()?, r.height()?))))?,
    })
}
