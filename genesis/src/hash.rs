//! The hash by which an assertion names the parameters that it was made under.

use crate::{
    params::{BitcoinNetwork, FeeParams, Keys, Network, Params},
    tags::PARAMS_TAG,
    units::{L1Ref, Sats},
};
use alloc::vec::Vec;
use alloy_primitives::B256;
use alloy_rlp::{Encodable, Header};
use sha2::{Digest, Sha256};

/// BIP-340's tagged hash: `SHA256(SHA256(tag) || SHA256(tag) || message)`.
pub fn tagged_hash(tag: &[u8], message: &[u8]) -> B256 {
    let tag = Sha256::digest(tag);
    let mut engine = Sha256::new();
    engine.update(tag);
    engine.update(tag);
    engine.update(message);
    B256::from_slice(&engine.finalize())
}

/// An RLP list under construction.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    fn push(&mut self, item: impl Encodable) -> &mut Self {
        item.encode(&mut self.0);
        self
    }

    fn list(&mut self, inner: &Self) -> &mut Self {
        self.0.extend_from_slice(&inner.finish());
        self
    }

    fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Header { list: true, payload_length: self.0.len() }.encode(&mut out);
        out.extend_from_slice(&self.0);
        out
    }
}

impl Params {
    /// Tagged hash (`kedge/params`) over the RLP list of all fields in the order of their declaration.
    /// Networks are their position in [`Network::ALL`] and in [`BitcoinNetwork`]; absent keys are an
    /// empty list.
    pub fn hash(&self) -> B256 {
        tagged_hash(PARAMS_TAG, &self.encode())
    }

    /// The encoding that [`Self::hash`] hashes.
    pub fn encode(&self) -> Vec<u8> {
        // Names every field, so that a new one cannot be left out of the hash.
        let Self {
            network,
            chain_id,
            bitcoin,
            l1_start: L1Ref { height, hash },
            l1_start_time,
            finality_depth,
            sequencing_window,
            channel_timeout,
            challenge_window,
            max_assertion_span,
            segment_target_gas,
            block_gas_limit,
            block_witness_limit,
            block_overhead_gas,
            deposit_gas,
            attributes_gas,
            deposits_gas_per_block,
            forced_gas_per_epoch,
            forced_sats_per_100_gas,
            refund_delay,
            proposer_bond: Sats(proposer_bond),
            proof_fee_rate,
            bond_margin,
            min_deposit: Sats(min_deposit),
            min_withdrawal: Sats(min_withdrawal),
            rotation_grace,
            recovery_delay,
            max_batch_bytes,
            max_batch_blocks,
            max_chunk_bytes,
            max_chunks,
            max_time_drift,
            fee_recipient,
            fees,
            keys,
        } = self;
        let network: u8 = match network {
            Network::Dev => 0,
            Network::Regtest => 1,
            Network::Signet => 2,
            Network::Mainnet => 3,
        };
        let bitcoin: u8 = match bitcoin {
            BitcoinNetwork::Regtest => 0,
            BitcoinNetwork::Signet => 1,
            BitcoinNetwork::Main => 2,
        };
        let mut list = List::default();
        list.push(network).push(chain_id).push(bitcoin);
        list.push(height.0).push(hash).push(l1_start_time);
        list.push(finality_depth).push(sequencing_window).push(channel_timeout);
        list.push(challenge_window).push(max_assertion_span);
        list.push(segment_target_gas).push(block_gas_limit).push(block_witness_limit);
        list.push(block_overhead_gas).push(deposit_gas).push(attributes_gas);
        list.push(deposits_gas_per_block).push(forced_gas_per_epoch);
        list.push(forced_sats_per_100_gas).push(refund_delay).push(proposer_bond);
        list.push(proof_fee_rate).push(bond_margin);
        list.push(min_deposit).push(min_withdrawal);
        list.push(rotation_grace).push(recovery_delay);
        list.push(max_batch_bytes).push(max_batch_blocks);
        list.push(max_chunk_bytes).push(max_chunks);
        list.push(max_time_drift).push(fee_recipient);
        list.list(&fees_list(fees)).list(&keys_list(keys.as_ref()));
        list.finish()
    }
}

fn fees_list(fees: &FeeParams) -> List {
    let FeeParams {
        denominator,
        elasticity,
        min_base_fee,
        initial_base_fee,
        l1_fee_scalar,
        min_l1_fee_rate,
        max_l1_fee_rate,
    } = fees;
    let mut list = List::default();
    list.push(denominator).push(elasticity).push(min_base_fee).push(initial_base_fee);
    list.push(l1_fee_scalar).push(min_l1_fee_rate).push(max_l1_fee_rate);
    list
}

fn keys_list(keys: Option<&Keys>) -> List {
    let mut list = List::default();
    if let Some(Keys { sequencer, signers, threshold, recovery }) = keys {
        let mut signer_list = List::default();
        for signer in *signers {
            signer_list.push(B256::from(*signer));
        }
        list.push(B256::from(*sequencer)).list(&signer_list);
        list.push(threshold).push(B256::from(*recovery));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{b256, hex};

    #[test]
    fn tagged_hash_is_that_of_bip_340() {
        // Empty message under the tag "BIP0340/challenge".
        let tag: [u8; 32] = Sha256::digest(b"BIP0340/challenge").into();
        assert_eq!(tag, hex!("7bb52d7a9fef58323eb1bf7a407db382d2f3f2d81bb1224f49fe518f6d48d37c"));
        let twice: [u8; 32] = Sha256::digest([tag, tag].concat()).into();
        assert_eq!(tagged_hash(b"BIP0340/challenge", b""), B256::from(twice));
    }

    #[test]
    fn parameter_hashes_are_pinned() {
        let hashes = Network::ALL.map(|network| network.params().hash());
        assert_eq!(
            hashes,
            [
                b256!("d7572ac51dbc9b8e43839078feed875b59daae827227335bcfa15484f0868150"),
                b256!("40eace02889089ed76e7b667cd6ca35055ad3535eaeab4b04365e90e6f80415a"),
                b256!("a51649402f098e033585e1f8093a8ba999a9db039a40ab3fa447ab0d049d0984"),
                b256!("b4a5aae1a4a3b1545091333096aaa9b4045034054faa723778a64a3e70905f06"),
            ]
        );
    }

    #[test]
    fn every_part_of_the_parameters_reaches_the_hash() {
        let dev = *Network::Dev.params();
        let mut changed = [dev; 5];
        changed[0].l1_start.hash.0[31] ^= 1;
        changed[1].fees.max_l1_fee_rate += 1;
        changed[2].keys = None;
        changed[3].keys.as_mut().unwrap().recovery[0] ^= 1;
        changed[4].fee_recipient.0[0] ^= 1;
        for params in changed {
            assert_ne!(params.hash(), dev.hash());
        }
    }
}
