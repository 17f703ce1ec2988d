//! The genesis state in memory, and calls on it.

use alloy_primitives::{Address, Bytes, Log, U256};
use alloy_sol_types::{SolCall, SolError, SolEvent};
use kedge_genesis::{
    Network, Params,
    abi::{self, L1Attributes},
    alloc, predeploys,
};
use revm::{
    Context, ExecuteCommitEvm, MainBuilder, MainContext,
    context::TxEnv,
    context_interface::result::ExecutionResult,
    database::{CacheDB, EmptyDB},
    primitives::{TxKind, hardfork::SpecId},
    state::{AccountInfo, Bytecode},
};

/// `scriptPubKey` that the chain is started with as the vault's.
pub(crate) const VAULT_SCRIPT: [u8; 34] = {
    let mut script = [7; 34];
    script[0] = 0x51;
    script[1] = 0x20;
    script
};

/// An account with coins.
pub(crate) const ALICE: Address = Address::repeat_byte(0xa1);

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) output: Bytes,
    pub(crate) logs: Vec<Log>,
    pub(crate) gas: u64,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn returned<C: SolCall>(self) -> C::Return {
        assert!(self.success, "reverted with {}", self.output);
        C::abi_decode_returns(&self.output).unwrap()
    }

    #[track_caller]
    pub(crate) fn reverted_with<E: SolError>(self) -> E {
        assert!(!self.success, "succeeded");
        E::abi_decode(&self.output).unwrap()
    }

    /// The events of this kind and where they came from.
    pub(crate) fn events<E: SolEvent>(&self) -> Vec<(Address, E)> {
        self.logs
            .iter()
            .filter_map(|log| Some((log.address, E::decode_log(log).ok()?.data)))
            .collect()
    }
}

/// The development network's genesis state with coins for [`ALICE`] and the system accounts.
pub(crate) struct Chain {
    pub(crate) params: &'static Params,
    pub(crate) db: CacheDB<EmptyDB>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let params = Network::Dev.params();
        let mut chain = Self { params, db: CacheDB::default() };
        for account in alloc(params, &VAULT_SCRIPT) {
            chain.deploy(account.address, account.code);
            for (slot, value) in account.storage {
                chain.db.insert_account_storage(account.address, slot, value).unwrap();
            }
        }
        for rich in [ALICE, predeploys::BRIDGE_DEPOSITOR, predeploys::DEPOSITOR] {
            let balance = btc(1_000);
            chain.db.insert_account_info(rich, AccountInfo { balance, ..Default::default() });
        }
        chain
    }

    /// A chain whose `L1Block` has seen one origin of this fee rate (sat per 1,000 virtual bytes).
    pub(crate) fn at_fee_rate(fee_rate: u64) -> Self {
        let mut chain = Self::new();
        assert!(chain.attributes(&origin(1, fee_rate)).success);
        chain
    }

    pub(crate) fn deploy(&mut self, address: Address, code: Bytes) {
        let info = AccountInfo::from_bytecode(Bytecode::new_raw(code)).with_nonce(1);
        self.db.insert_account_info(address, info);
    }

    pub(crate) fn send(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        gas_limit: u64,
        data: Bytes,
    ) -> Outcome {
        let tx = TxEnv {
            caller: from,
            kind: TxKind::Call(to),
            value,
            gas_limit,
            gas_price: 0,
            data,
            chain_id: None,
            ..Default::default()
        };
        let mut evm = Context::mainnet()
            .with_db(&mut self.db)
            .modify_cfg_chained(|cfg| {
                cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA);
                cfg.disable_nonce_check = true;
                cfg.disable_eip3607 = true;
            })
            .build_mainnet();
        let result = evm.transact_commit(tx).unwrap();
        if let ExecutionResult::Halt { reason, .. } = &result {
            panic!("halted: {reason:?}");
        }
        Outcome {
            success: result.is_success(),
            output: result.output().cloned().unwrap_or_default(),
            logs: result.logs().to_vec(),
            gas: result.tx_gas_used(),
        }
    }

    pub(crate) fn call<C: SolCall>(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        call: C,
    ) -> Outcome {
        self.send(from, to, value, 16_000_000, call.abi_encode().into())
    }

    /// The answer of a view.
    #[track_caller]
    pub(crate) fn view<C: SolCall>(&mut self, to: Address, call: C) -> C::Return {
        self.call(ALICE, to, U256::ZERO, call).returned::<C>()
    }

    /// The L1 attributes deposit as derivation sends it.
    pub(crate) fn attributes(&mut self, at: &L1Attributes) -> Outcome {
        let data = abi::attributes_calldata(self.params, at);
        let gas = self.params.attributes_gas;
        self.send(predeploys::DEPOSITOR, predeploys::L1_BLOCK, U256::ZERO, gas, data)
    }

    pub(crate) fn balance(&self, address: Address) -> U256 {
        self.db.cache.accounts.get(&address).map_or(U256::ZERO, |account| account.info.balance)
    }

    /// All coins there are.
    pub(crate) fn supply(&self) -> U256 {
        self.db.cache.accounts.values().map(|account| account.info.balance).sum()
    }
}

/// An L1 origin of that height and fee rate.
pub(crate) fn origin(number: u64, fee_rate: u64) -> L1Attributes {
    L1Attributes {
        number,
        hash: U256::from(number + 1_000).into(),
        merkle_root: U256::from(number + 2_000).into(),
        median_time: 1_700_000_000 + number,
        fee_rate,
        sequence_number: 0,
    }
}

/// Whole bitcoins in wei.
pub(crate) fn btc(amount: u64) -> U256 {
    sats(amount * 100_000_000)
}

/// Satoshis in wei.
pub(crate) fn sats(amount: u64) -> U256 {
    kedge_genesis::Sats(amount).to_wei()
}
