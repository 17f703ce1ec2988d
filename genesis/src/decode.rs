//! Parameters from the bytes that their hash is over, for a program that takes them from its input and
//! compares their hash with the one in an assertion.

use crate::{
    params::{BitcoinNetwork, FeeParams, Keys, Network, Params},
    units::{L1Height, L1Ref, Sats},
};
use alloc::{boxed::Box, vec::Vec};
use alloy_primitives::B256;
use alloy_rlp::{Decodable, Error, Header};

/// The fields of an RLP list.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Takes the next field, a list, and reads all of it.
    fn list<T>(
        &mut self,
        read: impl FnOnce(&mut Fields<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut fields = Fields(Header::decode_bytes(&mut self.0, true)?);
        let value = read(&mut fields)?;
        if fields.0.is_empty() { Ok(value) } else { Err(Error::UnexpectedLength) }
    }

    fn next<T: Decodable>(&mut self) -> Result<T, Error> {
        T::decode(&mut self.0)
    }

    fn key(&mut self) -> Result<[u8; 32], Error> {
        self.next().map(|key: B256| key.0)
    }
}

impl Params {
    /// The parameters with that encoding ([`Self::encode`]). The signers' keys stay in memory for good.
    ///
    /// # Errors
    /// When the bytes are not the canonical encoding of parameters.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut outer = Fields(bytes);
        let params = outer.list(params)?;
        if outer.0.is_empty() { Ok(params) } else { Err(Error::UnexpectedLength) }
    }
}

fn params(fields: &mut Fields<'_>) -> Result<Params, Error> {
    let network = match fields.next::<u8>()? {
        0 => Network::Dev,
        1 => Network::Regtest,
        2 => Network::Signet,
        3 => Network::Mainnet,
        _ => return Err(Error::Custom("no such network")),
    };
    let chain_id = fields.next()?;
    let bitcoin = match fields.next::<u8>()? {
        0 => BitcoinNetwork::Regtest,
        1 => BitcoinNetwork::Signet,
        2 => BitcoinNetwork::Main,
        _ => return Err(Error::Custom("no such Bitcoin network")),
    };
    // Expressions of fields are evaluated in the order in which they are written.
    Ok(Params {
        network,
        chain_id,
        bitcoin,
        l1_start: L1Ref { height: L1Height(fields.next()?), hash: fields.next()? },
        l1_start_time: fields.next()?,
        finality_depth: fields.next()?,
        sequencing_window: fields.next()?,
        channel_timeout: fields.next()?,
        challenge_window: fields.next()?,
        max_assertion_span: fields.next()?,
        segment_target_gas: fields.next()?,
        block_gas_limit: fields.next()?,
        block_witness_limit: fields.next()?,
        block_overhead_gas: fields.next()?,
        deposit_gas: fields.next()?,
        attributes_gas: fields.next()?,
        deposits_gas_per_block: fields.next()?,
        forced_gas_per_epoch: fields.next()?,
        forced_sats_per_100_gas: fields.next()?,
        refund_delay: fields.next()?,
        proposer_bond: Sats(fields.next()?),
        proof_fee_rate: fields.next()?,
        bond_margin: fields.next()?,
        min_deposit: Sats(fields.next()?),
        min_withdrawal: Sats(fields.next()?),
        rotation_grace: fields.next()?,
        recovery_delay: fields.next()?,
        max_batch_bytes: fields.next()?,
        max_batch_blocks: fields.next()?,
        max_chunk_bytes: fields.next()?,
        max_chunks: fields.next()?,
        max_time_drift: fields.next()?,
        fee_recipient: fields.next()?,
        fees: fields.list(fees)?,
        keys: fields.list(keys)?,
    })
}

fn fees(fields: &mut Fields<'_>) -> Result<FeeParams, Error> {
    Ok(FeeParams {
        denominator: fields.next()?,
        elasticity: fields.next()?,
        min_base_fee: fields.next()?,
        initial_base_fee: fields.next()?,
        l1_fee_scalar: fields.next()?,
        min_l1_fee_rate: fields.next()?,
        max_l1_fee_rate: fields.next()?,
    })
}

fn keys(fields: &mut Fields<'_>) -> Result<Option<Keys>, Error> {
    if fields.0.is_empty() {
        return Ok(None);
    }
    let sequencer = fields.key()?;
    let signers = fields.list(|fields| {
        let mut signers = Vec::new();
        while !fields.0.is_empty() {
            signers.push(fields.key()?);
        }
        Ok(signers)
    })?;
    let signers = Box::leak(signers.into_boxed_slice());
    Ok(Some(Keys { sequencer, signers, threshold: fields.next()?, recovery: fields.key()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_back_from_what_their_hash_is_over() {
        for network in Network::ALL {
            let params = network.params();
            assert_eq!(Params::decode(&params.encode()).as_ref(), Ok(params));
        }
        let mut changed = *Network::Dev.params();
        changed.fees.max_l1_fee_rate += 1;
        changed.finality_depth = 0;
        changed.keys = changed.keys.map(|keys| Keys { signers: &[[7; 32]], threshold: 1, ..keys });
        assert_eq!(Params::decode(&changed.encode()), Ok(changed));
    }

    #[test]
    fn what_is_no_encoding_of_parameters_is_refused() {
        let good = Network::Dev.params().encode();
        for cut in 0..good.len() {
            assert!(Params::decode(&good[..cut]).is_err(), "{cut}");
        }
        assert!(Params::decode(&[&good[..], &[0x80]].concat()).is_err());
        // No such network; a number with a leading zero; a list where a number should be.
        for (at, byte) in [(3, 4), (4, 0x83), (3, 0xc0)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Params::decode(&bad).is_err(), "{at}");
        }
        assert!(Params::decode(&[0xc0; 3]).is_err());
    }
}
