//! Making a block: coinbase, witness commitment (BIP-141) and regtest's token proof of work.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, Script, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness, transaction,
};

/// Regtest halves the subsidy every 150 blocks.
const HALVING_INTERVAL: u32 = 150;
/// What the transactions of a block may weigh, leaving room for header and coinbase.
pub const MAX_TXS_WEIGHT: u64 = 4_000_000 - 8_000;
/// The tag of the output that commits to the witnesses.
const COMMITMENT_TAG: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];

/// What a new block stands on and pays.
pub struct Template<'a> {
    /// The block before it.
    pub parent: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its header's time, Unix seconds.
    pub time: u32,
    /// Its target.
    pub bits: CompactTarget,
    /// What the coinbase pays.
    pub script: &'a Script,
    /// The fees of its transactions, satoshis.
    pub fees: u64,
    /// Makes blocks of the same height differ.
    pub extra: u64,
}

impl Template<'_> {
    /// The finished block with these transactions.
    pub fn block(&self, txs: impl Iterator<Item = Transaction>) -> Block {
        let mut txdata = vec![self.coinbase()];
        txdata.extend(txs);
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: self.parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.time,
            bits: self.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        let reserved = [0; 32];
        if let Some(root) = block.witness_root() {
            let commitment = Block::compute_witness_commitment(&root, &reserved);
            let mut data = PushBytesBuf::from(COMMITMENT_TAG);
            data.extend_from_slice(commitment.as_byte_array()).expect("36 bytes are a push");
            let script_pubkey = ScriptBuf::new_op_return(data);
            let coinbase = block.txdata.first_mut().expect("the coinbase was put there");
            coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey });
            for input in &mut coinbase.input {
                input.witness = Witness::from_slice(&[reserved]);
            }
        }
        block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
        let target = block.header.target();
        while !target.is_met_by(block.header.block_hash()) {
            block.header.nonce = block.header.nonce.wrapping_add(1);
        }
        block
    }

    fn coinbase(&self) -> Transaction {
        let script_sig = Builder::new()
            .push_int(i64::from(self.height))
            .push_slice(self.extra.to_le_bytes())
            .into_script();
        let value = Amount::from_sat(subsidy(self.height) + self.fees);
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig,
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value, script_pubkey: self.script.to_owned() }],
        }
    }
}

/// New coins of a regtest block, in satoshis.
pub fn subsidy(height: u32) -> u64 {
    5_000_000_000_u64.checked_shr(height / HALVING_INTERVAL).unwrap_or_default()
}
