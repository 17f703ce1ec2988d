//! The rules that execution takes from the network's parameters.

use alloy_primitives::{Address, Bytes};
use kedge_genesis::{FeeParams, Params, predeploys::SEQUENCER_FEE_VAULT};
use op_revm::OpSpecId;

/// What the witness meter charges for an account or a slot at its first touch in a block, bytes. The trie
/// nodes on its path may be more, but so that a channel of proof chunks carries them for as many keys as a
/// segment can touch, in tries of up to 2^32 leaves. Part of consensus, as is every constant here.
pub const WITNESS_BYTES_PER_KEY: u64 = 1_500;

/// Limits of Kedge's own meter, on top of the EVM's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterLimits {
    /// Gas charged for any block, full or empty.
    pub block_overhead_gas: u64,
    /// Witness bytes of one block.
    pub block_witness_limit: u64,
}

/// The rules of execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvmConfig {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The rules of the EVM, as the OP Stack numbers them.
    pub spec: OpSpecId,
    /// Gas limit of every block.
    pub gas_limit: u64,
    /// Receives priority fees.
    pub beneficiary: Address,
    /// EIP-1559 parameters that every header carries.
    pub fees: FeeParams,
    /// Kedge's meter; none for blocks of other OP Stack chains.
    pub meter: Option<MeterLimits>,
    /// Whether the BIP-340 precompile exists.
    pub schnorr: bool,
    /// Whether `BLOCKHASH` reads the history contract of EIP-2935 instead of ancestor headers, which
    /// makes its witness one slot. Both give the same answers on a chain that has had the contract
    /// since block 0.
    pub history_from_state: bool,
}

impl EvmConfig {
    /// The rules of a Kedge network.
    pub fn from_params(params: &Params) -> Self {
        Self {
            chain_id: params.chain_id,
            spec: OpSpecId::KARST,
            gas_limit: params.block_gas_limit,
            beneficiary: SEQUENCER_FEE_VAULT,
            fees: params.fees,
            meter: Some(MeterLimits {
                block_overhead_gas: params.block_overhead_gas,
                block_witness_limit: params.block_witness_limit,
            }),
            schnorr: true,
            history_from_state: true,
        }
    }

    /// The most gas that a user's transaction can declare and still fit an otherwise empty block.
    pub fn max_transaction_gas(&self) -> u64 {
        self.gas_limit.saturating_sub(self.meter.map_or(0, |meter| meter.block_overhead_gas))
    }

    /// `extraData` of every header: version 1, EIP-1559 denominator and elasticity, minimum base fee
    /// (Jovian, 17 bytes).
    pub fn extra_data(&self) -> Bytes {
        let mut bytes = [0; 17];
        for (slot, byte) in bytes.iter_mut().zip(
            [1].into_iter()
                .chain(self.fees.denominator.to_be_bytes())
                .chain(self.fees.elasticity.to_be_bytes())
                .chain(self.fees.min_base_fee.to_be_bytes()),
        ) {
            *slot = byte;
        }
        Bytes::copy_from_slice(&bytes)
    }
}
