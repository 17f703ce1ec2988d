//! The same transactions on nothing but revm: sender recovery and execution, in memory.

use crate::state::{BALANCE, People, TOKEN, params};
use alloy_consensus::{Transaction, transaction::SignerRecoverable};
use alloy_primitives::{Address, U256};
use anyhow::{Context as _, Result, ensure};
use kedge::block_file::FileBlock;
use kedge_vm::OpTxEnvelope;
use kedge_workloads::token;
use revm::bytecode::Bytecode;
use revm::context::{BlockEnv, TxEnv};
use revm::database::{CacheDB, EmptyDB};
use revm::primitives::hardfork::SpecId;
use revm::state::AccountInfo;
use revm::{Context, ExecuteCommitEvm, MainBuilder, MainContext};
use std::time::{Duration, Instant};

/// The contracts, and of the people those that the blocks mean.
pub(crate) fn state(people: &People, blocks: &[FileBlock]) -> Result<CacheDB<EmptyDB>> {
    let mut db = CacheDB::new(EmptyDB::new());
    for account in people.contracts()? {
        let info = AccountInfo {
            nonce: account.nonce,
            balance: account.balance,
            ..AccountInfo::default()
        };
        let info = if account.code.is_empty() {
            info
        } else {
            info.with_code(Bytecode::new_raw_checked(account.code)?)
        };
        db.insert_account_info(account.address, info);
        for (slot, value) in account.storage {
            db.insert_account_storage(account.address, slot, value)?;
        }
    }
    let balance = U256::from(BALANCE);
    let mut person = |address: Address| -> Result<()> {
        db.insert_account_info(address, AccountInfo { balance, ..AccountInfo::default() });
        Ok(db.insert_account_storage(TOKEN, token::balance_slot(address), balance)?)
    };
    for (_, address) in &people.senders {
        person(*address)?;
    }
    for tx in users(blocks) {
        match tx.input().get(16..36) {
            Some(recipient) if tx.to() == Some(TOKEN) => person(Address::from_slice(recipient))?,
            None => person(tx.to().context("a call")?)?,
            Some(_) => {}
        }
    }
    Ok(db)
}

/// All transactions that users sent.
pub(crate) fn users(blocks: &[FileBlock]) -> impl Iterator<Item = &OpTxEnvelope> {
    let all = blocks.iter().flat_map(|block| &block.body.transactions);
    all.filter(|tx| !matches!(tx, OpTxEnvelope::Deposit(_)))
}

/// How long it takes. Ensures that every transaction succeeds.
pub(crate) fn run(db: CacheDB<EmptyDB>, blocks: &[FileBlock]) -> Result<Duration> {
    let mut evm = Context::mainnet().with_db(db).build_mainnet();
    evm.ctx.cfg.spec = SpecId::OSAKA;
    evm.ctx.cfg.chain_id = params().chain_id;
    let start = Instant::now();
    for block in blocks {
        evm.ctx.block = BlockEnv {
            number: U256::from(block.header.number),
            beneficiary: block.header.beneficiary,
            timestamp: U256::from(block.header.timestamp),
            gas_limit: block.header.gas_limit,
            basefee: block.header.base_fee_per_gas.unwrap_or_default(),
            prevrandao: Some(block.header.mix_hash),
            ..BlockEnv::default()
        };
        for tx in users(std::slice::from_ref(block)) {
            let env = TxEnv::builder()
                .caller(tx.recover_signer()?)
                .tx_type(Some(2))
                .chain_id(tx.chain_id())
                .nonce(tx.nonce())
                .gas_limit(tx.gas_limit())
                .max_fee_per_gas(tx.max_fee_per_gas())
                .gas_priority_fee(tx.max_priority_fee_per_gas())
                .kind(tx.kind())
                .value(tx.value())
                .data(tx.input().clone())
                .build_fill();
            let result = evm.transact_commit(env)?;
            ensure!(result.is_success(), "{result:?}");
        }
    }
    Ok(start.elapsed())
}
