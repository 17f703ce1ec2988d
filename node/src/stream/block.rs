//! A block as the sequencer signed it.

use crate::rpc::types::L1BlockId;
use alloy_primitives::{B256, Bytes, FixedBytes, keccak256};
use bitcoin::{
    XOnlyPublicKey,
    hashes::Hash as _,
    key::Keypair,
    secp256k1::{Message, Secp256k1, schnorr},
};
use kedge_genesis::{L1Height, L1Ref, L2Number, Params, tagged_hash};
use kedge_store::{L2Rows, SignatureRow, SignatureRows, StoreError};
use kedge_vm::{Payload, PayloadTx};
use serde::{Deserialize, Serialize};

/// Version of what is signed.
pub const VERSION: u8 = 0;
/// BIP-340 tag of what is signed. The key signs batches too, whose tag is another.
const BLOCK_TAG: &[u8] = b"kedge/block";
/// Most bytes of transactions in one signed block. The gas limit allows less: a byte costs at least 4 gas.
pub const MAX_BLOCK_BYTES: usize = 4_500_000;
/// Gas that any transaction costs at least.
const MIN_TRANSACTION_GAS: u64 = 21_000;

/// A block that the sequencer made: what it decided of the block, what it came to, and its signature.
///
/// What the rules put into a block (attributes, deposits, forced transactions) is not part of it: everybody
/// takes that from Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedBlock {
    /// [`VERSION`].
    pub version: u8,
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// Unix seconds.
    pub timestamp: u64,
    /// Its L1 origin.
    pub l1_origin: L1BlockId,
    /// Whether it is the first block of its origin.
    pub epoch_start: bool,
    /// The users' transactions that the sequencer listed, EIP-2718 bytes, in order.
    pub transactions: Vec<Bytes>,
    /// BIP-340 signature by the sequencer's key.
    pub signature: FixedBytes<64>,
}

/// Why what a node sent is no signed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// Another version of the format.
    #[error("version {0} of signed blocks, this program knows {VERSION}")]
    Version(u8),
    /// More bytes or transactions than a block can have.
    #[error("the block is larger than any can be")]
    Oversized,
    /// The signature is not the sequencer's signature of this block.
    #[error("the signature is not the sequencer's")]
    Signature,
}

/// A block whose signature was found to be the sequencer's. Nothing else of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBlock {
    block: SignedBlock,
    origin: L1Ref,
}

impl SignedBlock {
    /// A block of `payload`, whose last `listed` transactions are the sequencer's own choice. Not signed yet.
    fn unsigned(payload: Payload, listed: usize, hash: B256, parent_hash: B256) -> Self {
        let ruled = payload.transactions.len().saturating_sub(listed);
        let transactions = payload.transactions.into_iter().skip(ruled);
        Self {
            version: VERSION,
            number: payload.number.0,
            hash,
            parent_hash,
            timestamp: payload.timestamp,
            l1_origin: payload.origin.into(),
            epoch_start: payload.sequence_number == 0,
            transactions: transactions
                .filter_map(|tx| match tx {
                    PayloadTx::User(bytes) => Some(bytes),
                    PayloadTx::System(_) => None,
                })
                .collect(),
            signature: FixedBytes::ZERO,
        }
    }

    /// The sequencer's signature of a block of `payload`, whose last `listed` transactions it chose.
    pub fn sign(
        chain_id: u64,
        key: &Keypair,
        payload: &Payload,
        listed: usize,
        hash: B256,
        parent_hash: B256,
    ) -> SignatureRow {
        let block = Self::unsigned(payload.clone(), listed, hash, parent_hash);
        block.signed(chain_id, key).row()
    }

    /// The same block with the signature of this key.
    pub fn signed(self, chain_id: u64, key: &Keypair) -> Self {
        let message = Message::from_digest(self.digest(chain_id).0);
        let signature = Secp256k1::signing_only().sign_schnorr_no_aux_rand(&message, key);
        Self { signature: signature.serialize().into(), ..self }
    }

    fn row(&self) -> SignatureRow {
        let listed = u32::try_from(self.transactions.len()).unwrap_or(u32::MAX);
        SignatureRow { listed, signature: self.signature.0 }
    }

    /// The block of that number as the store has it; none when its signature is not there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn read(
        rows: &(impl L2Rows + SignatureRows),
        number: L2Number,
    ) -> Result<Option<Self>, StoreError> {
        let Some(row) = rows.signature(number)? else { return Ok(None) };
        let (Some(parent), Some(hash)) = (number.prev(), rows.hash(number)?) else {
            return Ok(None);
        };
        let (Some(payload), Some(parent_hash)) = (rows.payload(number)?, rows.hash(parent)?) else {
            return Ok(None);
        };
        let block = Self::unsigned(payload, row.listed as usize, hash, parent_hash);
        Ok(Some(Self { signature: row.signature.into(), ..block }))
    }

    /// Bytes of its transactions.
    pub fn size(&self) -> usize {
        self.transactions.iter().map(|tx| tx.len()).sum()
    }

    /// Checks that the sequencer of this network signed it.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(self, params: &Params) -> Result<VerifiedBlock, SignatureFault> {
        if self.version != VERSION {
            return Err(SignatureFault::Version(self.version));
        }
        // Empty ones are many in a message, and each is hashed.
        let most = params.block_gas_limit / MIN_TRANSACTION_GAS;
        if self.transactions.len() as u64 > most || self.size() > MAX_BLOCK_BYTES {
            return Err(SignatureFault::Oversized);
        }
        let key = params.keys.and_then(|keys| XOnlyPublicKey::from_slice(&keys.sequencer).ok());
        let signature = schnorr::Signature::from_slice(self.signature.as_slice());
        let (Some(key), Ok(signature)) = (key, signature) else {
            return Err(SignatureFault::Signature);
        };
        let message = Message::from_digest(self.digest(params.chain_id).0);
        Secp256k1::verification_only()
            .verify_schnorr(&signature, &message, &key)
            .map_err(|_| SignatureFault::Signature)?;
        let origin = L1Ref {
            height: L1Height(self.l1_origin.height),
            hash: self.l1_origin.hash.to_byte_array().into(),
        };
        Ok(VerifiedBlock { block: self, origin })
    }

    /// What is signed: the tagged hash `kedge/block` of version, chain id, number, hash, parent's hash, time,
    /// the origin's height and hash (internal byte order), whether it is the origin's first, and the keccak-256
    /// of each transaction. Numbers are big-endian.
    fn digest(&self, chain_id: u64) -> B256 {
        let mut bytes = Vec::with_capacity(126 + 32 * self.transactions.len());
        bytes.push(self.version);
        bytes.extend(chain_id.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.hash);
        bytes.extend(self.parent_hash);
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.l1_origin.height.to_be_bytes());
        bytes.extend(self.l1_origin.hash.to_byte_array());
        bytes.push(u8::from(self.epoch_start));
        for tx in &self.transactions {
            bytes.extend(keccak256(tx));
        }
        tagged_hash(BLOCK_TAG, &bytes)
    }
}

impl VerifiedBlock {
    /// Its number.
    pub const fn number(&self) -> L2Number {
        L2Number(self.block.number)
    }

    /// Its L1 origin.
    pub const fn origin(&self) -> L1Ref {
        self.origin
    }

    /// The block.
    pub const fn block(&self) -> &SignedBlock {
        &self.block
    }

    /// The signature as the store keeps it.
    pub fn signature(&self) -> SignatureRow {
        self.block.row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;
    use kedge_genesis::{Network, params::dev_secrets};

    fn key(secret: &[u8; 32]) -> Keypair {
        Keypair::from_seckey_slice(&Secp256k1::new(), secret).unwrap()
    }

    fn signed() -> SignedBlock {
        let payload = Payload {
            number: L2Number(7),
            timestamp: 1_700_000_000,
            origin: L1Ref { height: L1Height(3), hash: B256::repeat_byte(0x33) },
            sequence_number: 1,
            transactions: vec![
                PayloadTx::User(Bytes::from_static(b"forced")),
                PayloadTx::User(Bytes::from_static(b"one")),
                PayloadTx::User(Bytes::from_static(b"two")),
            ],
        };
        let (hash, parent) = (B256::repeat_byte(0x77), B256::repeat_byte(0x66));
        let sequencer = key(&dev_secrets::SEQUENCER);
        let chain_id = Network::Dev.params().chain_id;
        let row = SignedBlock::sign(chain_id, &sequencer, &payload, 2, hash, parent);
        assert_eq!(row.listed, 2);
        let block = SignedBlock::unsigned(payload, 2, hash, parent);
        SignedBlock { signature: row.signature.into(), ..block }
    }

    #[test]
    fn what_the_sequencer_signs_is_this_hash() {
        let digest = signed().digest(1);
        assert_eq!(
            digest.0,
            hex!("700f3bbfea1841745a50eafe8d613b061cda212c5d867617f2d040836269e49e")
        );
    }

    #[test]
    fn only_what_the_sequencer_chose_is_part_of_the_signed_block() {
        let block = signed();
        assert_eq!(block.transactions, [&b"one"[..], b"two"].map(Bytes::from_static));
        assert!(!block.epoch_start);
    }

    #[test]
    fn a_signature_is_of_every_part_of_the_block_and_of_the_chain() {
        let params = Network::Dev.params();
        let good = signed();
        assert_eq!(good.clone().verify(params).unwrap().block(), &good);
        let spoils: [fn(&mut SignedBlock); 10] = [
            |it| it.number += 1,
            |it| it.hash.0[0] ^= 1,
            |it| it.parent_hash.0[0] ^= 1,
            |it| it.timestamp += 1,
            |it| it.l1_origin.height += 1,
            |it| it.l1_origin.hash = bitcoin::BlockHash::from_byte_array([1; 32]),
            |it| it.epoch_start = true,
            |it| it.transactions[0] = Bytes::from_static(b"another"),
            |it| drop(it.transactions.pop()),
            |it| it.signature.0[0] ^= 1,
        ];
        for spoil in spoils {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(bad.clone().verify(params), Err(SignatureFault::Signature), "{bad:?}");
        }
        let elsewhere = Params { chain_id: params.chain_id + 1, ..*params };
        assert_eq!(good.verify(&elsewhere), Err(SignatureFault::Signature));
    }

    #[test]
    fn other_versions_and_blocks_larger_than_any_are_refused() {
        let params = Network::Dev.params();
        let newer = SignedBlock { version: 1, ..signed() };
        assert_eq!(newer.verify(params), Err(SignatureFault::Version(1)));
        let large =
            SignedBlock { transactions: vec![vec![0; MAX_BLOCK_BYTES + 1].into()], ..signed() };
        assert_eq!(large.verify(params), Err(SignatureFault::Oversized));
        let many = SignedBlock { transactions: vec![Bytes::new(); 1 << 20], ..signed() };
        assert_eq!(many.verify(params), Err(SignatureFault::Oversized));
    }
}
