//! What derivation hands to execution: the content of one L2 block before it is executed.

use alloc::vec::Vec;
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::{Decodable, Encodable, Header as RlpHeader};
use kedge_genesis::{L1Height, L1Ref, L2Number};
use op_alloy_consensus::TxDeposit;

/// The content of one L2 block as Bitcoin (or the sequencer, ahead of Bitcoin) states it. Everything
/// else that a block header holds follows from the parent, the parameters and execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Number of the block, one above its parent's.
    pub number: L2Number,
    /// Unix seconds; several blocks may share a second.
    pub timestamp: u64,
    /// The Bitcoin block that this block names as its L1 origin.
    pub origin: L1Ref,
    /// Blocks of the same origin before this one.
    pub sequence_number: u64,
    /// Listed transactions in order: system deposits first.
    pub transactions: Vec<PayloadTx>,
}

/// A transaction of a [`Payload`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadTx {
    /// A deposit that derivation made (L1 attributes, bridge deposits). Always included.
    System(TxDeposit),
    /// EIP-2718 bytes as a batch or a forced message lists them: not known to decode, to be signed or
    /// to be executable. Skipped when it is not.
    User(Bytes),
}

const SYSTEM: u8 = 0;
const USER: u8 = 1;

impl Payload {
    /// keccak-256 of the canonical encoding: two payloads are equal exactly if their ids are.
    pub fn id(&self) -> B256 {
        keccak256(alloy_rlp::encode(self))
    }
}

impl Encodable for PayloadTx {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        let (kind, bytes) = self.parts();
        RlpHeader { list: true, payload_length: kind.length().saturating_add(bytes.length()) }
            .encode(out);
        kind.encode(out);
        bytes.encode(out);
    }

    fn length(&self) -> usize {
        let (kind, bytes) = self.parts();
        let payload = kind.length().saturating_add(bytes.length());
        payload.saturating_add(alloy_rlp::length_of_length(payload))
    }
}

impl PayloadTx {
    fn parts(&self) -> (u8, Bytes) {
        match self {
            Self::System(deposit) => (SYSTEM, deposit.encoded_2718().into()),
            Self::User(bytes) => (USER, bytes.clone()),
        }
    }
}

impl Decodable for PayloadTx {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut list = RlpHeader::decode_bytes(buf, true)?;
        let kind = u8::decode(&mut list)?;
        let bytes = Bytes::decode(&mut list)?;
        if !list.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        match kind {
            SYSTEM => TxDeposit::decode_2718_exact(&bytes)
                .map(Self::System)
                .map_err(|_| alloy_rlp::Error::Custom("not a deposit transaction")),
            USER => Ok(Self::User(bytes)),
            _ => Err(alloy_rlp::Error::Custom("unknown kind of payload transaction")),
        }
    }
}

impl Payload {
    fn fields(&self) -> [u64; 4] {
        [self.number.0, self.timestamp, u64::from(self.origin.height.0), self.sequence_number]
    }

    fn payload_length(&self) -> usize {
        self.fields()
            .iter()
            .map(Encodable::length)
            .fold(self.origin.hash.length(), usize::saturating_add)
            .saturating_add(self.transactions.length())
    }
}

/// `[number, timestamp, origin height, sequence number, origin hash, [[kind, bytes], …]]`
impl Encodable for Payload {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        RlpHeader { list: true, payload_length: self.payload_length() }.encode(out);
        for field in self.fields() {
            field.encode(out);
        }
        self.origin.hash.encode(out);
        self.transactions.encode(out);
    }

    fn length(&self) -> usize {
        let payload = self.payload_length();
        payload.saturating_add(alloy_rlp::length_of_length(payload))
    }
}

impl Decodable for Payload {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut list = RlpHeader::decode_bytes(buf, true)?;
        let number = L2Number(u64::decode(&mut list)?);
        let timestamp = u64::decode(&mut list)?;
        let height = L1Height(u32::decode(&mut list)?);
        let sequence_number = u64::decode(&mut list)?;
        let hash = B256::decode(&mut list)?;
        let transactions = Vec::decode(&mut list)?;
        if !list.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        Ok(Self {
            number,
            timestamp,
            origin: L1Ref { height, hash },
            sequence_number,
            transactions,
        })
    }
}
