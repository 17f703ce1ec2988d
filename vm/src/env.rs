//! EVMs with the chain's rules and precompiles, for execution and for calls that are not part of the
//! chain (`eth_call`, `eth_estimateGas`, tracing).

use crate::{EvmConfig, Header, precompile};
use alloy_evm::EvmEnv;
use alloy_op_evm::{OpEvm, OpEvmContext, OpTx};
use alloy_primitives::{Address, B256, U256};
use op_revm::{L1BlockInfo, OpBuilder, OpSpecId, OpTransaction, precompiles::OpPrecompiles};
use revm::{
    Context, Inspector, MainContext,
    context::{BlockEnv, CfgEnv},
    context_interface::block::BlobExcessGasAndPrice,
    inspector::NoOpInspector,
    precompile::Precompiles,
};

pub use alloy_evm::precompiles::PrecompilesMap;

/// An EVM on the database `DB`. Transactions go in as [`OpTx`].
pub type Evm<DB, I = NoOpInspector> = OpEvm<DB, I, PrecompilesMap, OpTx>;

/// What `BLOCKHASH`, `TIMESTAMP` and the like answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockFields {
    pub(crate) number: u64,
    pub(crate) timestamp: u64,
    pub(crate) beneficiary: Address,
    pub(crate) prev_randao: B256,
    pub(crate) gas_limit: u64,
    pub(crate) base_fee: u64,
}

impl EvmConfig {
    /// The environment of the block with that header: what its transactions ran in.
    pub fn env(&self, header: &Header) -> EvmEnv<OpSpecId> {
        self.env_of(BlockFields {
            number: header.number,
            timestamp: header.timestamp,
            beneficiary: header.beneficiary,
            prev_randao: header.mix_hash,
            gas_limit: header.gas_limit,
            base_fee: header.base_fee_per_gas.unwrap_or_default(),
        })
    }

    /// [`Self::env`] for calls that nobody signed or pays for, as `eth_call` and `eth_estimateGas` want
    /// it: no nonce check, senders may have code, gas may exceed the block's and EIP-7825's limit, a gas
    /// price below the base fee is accepted, and no fee is charged. A value is still checked against
    /// the sender's balance when it is sent.
    pub fn call_env(&self, header: &Header) -> EvmEnv<OpSpecId> {
        relaxed(self.env(header))
    }

    pub(crate) fn env_of(&self, block: BlockFields) -> EvmEnv<OpSpecId> {
        let cfg =
            CfgEnv::new().with_chain_id(self.chain_id).with_spec_and_mainnet_gas_params(self.spec);
        let block = BlockEnv {
            number: U256::from(block.number),
            beneficiary: block.beneficiary,
            timestamp: U256::from(block.timestamp),
            difficulty: U256::ZERO,
            prevrandao: Some(block.prev_randao),
            gas_limit: block.gas_limit,
            basefee: block.base_fee,
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice {
                excess_blob_gas: 0,
                blob_gasprice: 1,
            }),
            slot_num: 0,
        };
        EvmEnv::new(cfg, block)
    }

    /// The precompiles of these rules.
    pub fn precompiles(&self) -> &'static Precompiles {
        if self.schnorr {
            precompile::kedge()
        } else {
            OpPrecompiles::new_with_spec(self.spec).precompiles()
        }
    }

    /// An EVM in that environment on `db`.
    pub fn evm<DB: alloy_evm::Database>(&self, env: EvmEnv<OpSpecId>, db: DB) -> Evm<DB> {
        self.build(env, db, NoOpInspector {}, false)
    }

    /// An EVM that shows every step to `inspector`. For included transactions and calls only: after a
    /// transaction that the EVM refuses, an inspected EVM charges the next one other gas.
    pub fn evm_with_inspector<DB, I>(
        &self,
        env: EvmEnv<OpSpecId>,
        db: DB,
        inspector: I,
    ) -> Evm<DB, I>
    where
        DB: alloy_evm::Database,
        I: Inspector<OpEvmContext<DB>>,
    {
        self.build(env, db, inspector, true)
    }

    fn build<DB, I>(&self, env: EvmEnv<OpSpecId>, db: DB, inspector: I, inspect: bool) -> Evm<DB, I>
    where
        DB: alloy_evm::Database,
        I: Inspector<OpEvmContext<DB>>,
    {
        let context = Context::mainnet()
            .with_tx(OpTx(OpTransaction::builder().build_fill()))
            .with_cfg(CfgEnv::new_with_spec(OpSpecId::BEDROCK))
            .with_chain(L1BlockInfo::default())
            .with_db(db)
            .with_block(env.block_env)
            .with_cfg(env.cfg_env);
        let evm = context
            .build_op_with_inspector(inspector)
            .with_precompiles(PrecompilesMap::from_static(self.precompiles()));
        OpEvm::new(evm, inspect)
    }

    /// The L1 fee parameters that transactions of block `number` pay, read from the `L1Block` contract
    /// in the state after that block.
    ///
    /// # Errors
    /// The database's.
    pub fn l1_block_info<DB: revm::Database>(
        &self,
        number: u64,
        db: &mut DB,
    ) -> Result<L1BlockInfo, DB::Error> {
        L1BlockInfo::try_fetch(db, U256::from(number), self.spec)
    }

    /// What posting these EIP-2718 bytes to Bitcoin costs their sender, wei.
    pub fn l1_fee(&self, info: &L1BlockInfo, transaction: &[u8]) -> U256 {
        let mut info = info.clone();
        info.clear_tx_l1_cost();
        info.calculate_tx_l1_cost(transaction, self.spec)
    }
}

/// Switches off the checks that only a signed, paid transaction has to pass. See
/// [`EvmConfig::call_env`].
fn relaxed(mut env: EvmEnv<OpSpecId>) -> EvmEnv<OpSpecId> {
    let cfg = &mut env.cfg_env;
    cfg.disable_nonce_check = true;
    cfg.disable_eip3607 = true;
    cfg.disable_base_fee = true;
    cfg.disable_block_gas_limit = true;
    cfg.disable_fee_charge = true;
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    env
}
