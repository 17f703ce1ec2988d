//! A Bitcoin of made-up blocks, a sequencer on it and a derivation of it.

use alloy_consensus::{EthereumTxEnvelope, SignableTransaction, TxEip1559, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, XOnlyPublicKey, transaction,
};
use kedge_bridge::batch::{self, Batch, BatchBlock};
use kedge_bridge::deposit::deposit_outputs;
use kedge_bridge::derive::{
    BlockFault, DeriveState, Derived, EpochInfo, L1Block, L1Lookup, L2Cursor, derive, next_payload,
    subsidy,
};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, leaf_script, sign_batch, split};
use kedge_bridge::forced;
use kedge_genesis::params::dev_secrets;
use kedge_genesis::{L1Height, L1Ref, Network, Params, Sats};
use kedge_vm::Payload;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// The dev network with everything small, so that every limit is met.
pub(crate) fn params() -> Params {
    Params {
        sequencing_window: 7,
        channel_timeout: 3,
        deposits_gas_per_block: 300_000,
        forced_gas_per_epoch: 250_000,
        max_chunk_bytes: 250,
        max_chunks: 12,
        ..*Network::Dev.params()
    }
}

/// Blocks by height; the last one is the one that is processed.
#[derive(Default)]
pub(crate) struct Chain(pub(crate) BTreeMap<u32, Arc<Block>>);

impl L1Lookup for Chain {
    type Error = Infallible;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, Infallible> {
        Ok(Arc::clone(&self.0[&height.0]))
    }
}

/// An outpoint that nothing else uses.
fn fresh(counter: &mut u64) -> OutPoint {
    *counter += 1;
    OutPoint::new(Txid::hash(&counter.to_le_bytes()), 0)
}

fn tx(inputs: Vec<(OutPoint, Witness)>, output: Vec<TxOut>) -> Transaction {
    let input = inputs
        .into_iter()
        .map(|(previous_output, witness)| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        })
        .collect();
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

pub(crate) fn keypair(secret: [u8; 32]) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &secret).unwrap()
}

/// A chunk as the witness of its reveal.
pub(crate) fn witness(kind: Kind, header: &EnvelopeHeader, body: &[u8]) -> Witness {
    let publisher = XOnlyPublicKey::from_keypair(&keypair([7; 32])).0;
    let leaf = leaf_script(&publisher, kind, header, body).unwrap();
    let control = [&[0xc0][..], &publisher.serialize()].concat();
    Witness::from_slice(&[&[1; 64][..], leaf.as_bytes(), &control])
}

/// A canonical user transaction; the signature need not be anybody's.
pub(crate) fn user_tx(nonce: u64, gas_limit: u64, data: usize) -> Bytes {
    let signature = Signature::new(U256::from(nonce + 1), U256::from(7), nonce.is_multiple_of(3));
    // Incompressible, so that batches have several chunks.
    let input: Bytes = (0..data as u64)
        .map(|at| alloy_primitives::keccak256([nonce, at].map(u64::to_be_bytes).concat())[0])
        .collect();
    let to = TxKind::Call(Address::repeat_byte(nonce as u8));
    let envelope: EthereumTxEnvelope<TxEip4844> = if nonce.is_multiple_of(2) {
        let chain_id = params().chain_id;
        let tx = TxEip1559 { chain_id, nonce, gas_limit, to, input, ..Default::default() };
        tx.into_signed(signature).into()
    } else {
        TxLegacy {
            chain_id: Some(params().chain_id),
            nonce,
            gas_limit,
            to,
            input,
            ..Default::default()
        }
        .into_signed(signature)
        .into()
    };
    envelope.encoded_2718().into()
}

/// What the sequencer meant by a channel.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The cursor below its first block.
    pub(crate) base: L2Cursor,
    /// Its blocks.
    pub(crate) payloads: Vec<Payload>,
    /// The cursor after its last block.
    pub(crate) end: L2Cursor,
    /// Whether derivation should take it as it is, given that it stands at `base`.
    pub(crate) intact: bool,
}

/// The chain, its derivation and a sequencer.
pub(crate) struct World {
    pub(crate) params: Params,
    pub(crate) chain: Chain,
    pub(crate) state: DeriveState,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) counter: u64,
    /// Transactions for the next Bitcoin blocks.
    pub(crate) mempool: Vec<Transaction>,
    /// The sequencer's chain above the last batch that it made.
    pub(crate) cursor: L2Cursor,
    pub(crate) base: L2Cursor,
    pub(crate) unsafe_payloads: Vec<Payload>,
    pub(crate) unsafe_blocks: Vec<BatchBlock>,
    pub(crate) next_batch: u64,
    pub(crate) prev_body: B256,
    pub(crate) plans: BTreeMap<B256, Plan>,
    /// Every deposit made: recipient and amount, in order of Bitcoin.
    pub(crate) deposits: Vec<(u32, Address, u64)>,
    /// Every valid forced transaction, in order of Bitcoin.
    pub(crate) forced: Vec<(u32, Bytes)>,
}

impl World {
    pub(crate) fn new(params: Params) -> Self {
        let state = DeriveState::genesis(&params).unwrap();
        Self {
            chain: Chain::default(),
            payloads: Vec::new(),
            counter: 0,
            mempool: Vec::new(),
            cursor: state.cursor,
            base: state.cursor,
            unsafe_payloads: Vec::new(),
            unsafe_blocks: Vec::new(),
            next_batch: 0,
            prev_body: B256::ZERO,
            plans: BTreeMap::new(),
            deposits: Vec::new(),
            forced: Vec::new(),
            params,
            state,
        }
    }

    pub(crate) fn vault(&self) -> ScriptBuf {
        self.state.vault.current.clone()
    }

    pub(crate) fn next_height(&self) -> u32 {
        self.state.l1.height.0 + 1
    }

    /// A transaction with so many deposits, for the next block.
    pub(crate) fn deposit(&mut self, count: usize) -> Transaction {
        let height = self.next_height();
        let outputs: Vec<_> = (0..count)
            .map(|_| {
                self.counter += 1;
                let to = Address::left_padding_from(&self.counter.to_be_bytes());
                let amount = self.params.min_deposit.0 + self.counter;
                self.deposits.push((height, to, amount));
                (to, Sats(amount))
            })
            .collect();
        let from = fresh(&mut self.counter);
        tx(vec![(from, Witness::new())], deposit_outputs(&self.vault(), &outputs))
    }

    /// A reveal with a forced message of one transaction per declared gas, for the next block.
    pub(crate) fn force(&mut self, gas: &[u64], pays: bool) -> Transaction {
        let txs: Vec<_> = gas
            .iter()
            .map(|gas| {
                self.counter += 1;
                user_tx(self.counter, *gas, 5)
            })
            .collect();
        let total: u64 = gas.iter().sum();
        if pays && total <= self.params.forced_gas_per_epoch {
            let height = self.next_height();
            self.forced.extend(txs.iter().map(|tx| (height, tx.clone())));
        }
        let body = forced::encode(&txs);
        let header = EnvelopeHeader {
            chain_id: self.params.chain_id,
            index: 0,
            prev_body: B256::ZERO,
            chunk: 0,
            chunks: vec![kedge_bridge::envelope::chunk_hash(&body)],
            signature: None,
        };
        let price = forced::price_of(total, &self.params).0;
        let value = Amount::from_sat(if pays { price } else { price - 1 });
        let from = fresh(&mut self.counter);
        tx(
            vec![(from, witness(Kind::Forced, &header, &body))],
            vec![TxOut { value, script_pubkey: self.vault() }],
        )
    }

    /// The sequencer tries to make a block.
    pub(crate) fn build(
        &mut self,
        step: bool,
        timestamp: Option<u64>,
        user: Vec<Bytes>,
    ) -> Result<(), BlockFault> {
        let (payload, cursor) = next_payload(
            &self.params,
            &self.cursor,
            &self.state.epochs,
            &self.chain,
            step,
            timestamp,
            user.clone(),
        )
        .unwrap()?;
        self.unsafe_blocks.push(BatchBlock {
            timestamp: payload.timestamp,
            epoch_step: step,
            transactions: user,
        });
        self.unsafe_payloads.push(payload);
        self.cursor = cursor;
        Ok(())
    }

    /// The sequencer closes a batch: signed reveals of its chunks in order. `spoil` alters the body.
    pub(crate) fn close(&mut self, spoil: impl Fn(&mut Batch), cut: usize) -> Vec<Transaction> {
        let mut batch = Batch {
            first: self.base.number.next(),
            last_origin: self.cursor.origin.hash[..20].try_into().unwrap(),
            blocks: std::mem::take(&mut self.unsafe_blocks),
        };
        let original = batch.clone();
        spoil(&mut batch);
        let mut body = batch::encode(&batch).unwrap();
        body.truncate(body.len() - cut);
        let mut parts = split(
            Kind::Batch,
            self.params.chain_id,
            self.next_batch,
            self.prev_body,
            &body,
            &self.params,
        )
        .unwrap();
        sign_batch(&mut parts, &keypair(dev_secrets::SEQUENCER));
        let plan = Plan {
            base: self.base,
            payloads: std::mem::take(&mut self.unsafe_payloads),
            end: self.cursor,
            intact: cut == 0 && batch == original,
        };
        self.plans.insert(parts[0].0.channel_id(Kind::Batch), plan);
        self.next_batch += 1;
        self.prev_body = parts[0].0.body_hash();
        self.base = self.cursor;
        parts.iter().map(|(header, body)| self.reveal(Kind::Batch, header, body)).collect()
    }

    pub(crate) fn reveal(
        &mut self,
        kind: Kind,
        header: &EnvelopeHeader,
        body: &[u8],
    ) -> Transaction {
        let from = fresh(&mut self.counter);
        tx(
            vec![(from, witness(kind, header, body))],
            vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() }],
        )
    }

    /// Mines a block of these transactions `time` seconds after the start and derives it.
    pub(crate) fn mine(
        &mut self,
        txs: Vec<Transaction>,
        time: u32,
        fees: u64,
    ) -> (L1Block, Derived) {
        let height = L1Height(self.next_height());
        let coinbase = tx(
            vec![(OutPoint::null(), Witness::new())],
            vec![TxOut {
                value: Amount::from_sat(subsidy(self.params.bitcoin, height) + fees),
                script_pubkey: ScriptBuf::from_bytes(height.0.to_le_bytes().to_vec()),
            }],
        );
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::from_byte_array(self.state.l1.hash.0),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.params.l1_start_time + time,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata: std::iter::once(coinbase).chain(txs).collect() };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let l1 = L1Block::new(height, Arc::new(block));
        // Derivation must not need the block at hand from the lookup.
        let derived = derive(&self.params, &self.state, &l1, &self.chain).unwrap();
        self.chain.0.insert(height.0, Arc::clone(&l1.block));
        self.state = derived.post.clone();
        self.payloads.extend(derived.payloads.iter().cloned());
        (l1, derived)
    }

    /// The sequencer starts over from what is derived.
    pub(crate) fn reset(&mut self) {
        self.cursor = self.state.cursor;
        self.base = self.state.cursor;
        self.unsafe_blocks.clear();
        self.unsafe_payloads.clear();
        self.next_batch = self.state.next_batch;
        self.prev_body = self.state.prev_body;
    }

    pub(crate) fn epoch(&self, at: L1Ref) -> Option<&EpochInfo> {
        self.state.epochs.iter().find(|epoch| epoch.at == at)
    }
}
