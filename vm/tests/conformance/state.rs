//! State tests: one transaction on a state, the root and the logs after it.
//!
//! What is Kedge's own is under test: the tries that the state is built in, read from and changed in, the
//! cache that collects a block's changes, the environment and the precompiles. The handler is Ethereum's,
//! since the OP Stack's pays the base fee to a vault.

use crate::{OLD_FORK, config, spec, state_of};
use alloy_consensus::{TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::eip2718::Decodable2718;
use alloy_evm::FromRecoveredTx;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use kedge_vectors::{Tally, Vectors};
use kedge_vm::{
    AccountInfo, Header, MemoryDb, Nibbles, StateDiff, TrieDb, TrieDbError, TrieNodes,
    env::PrecompilesMap, exec::Cache, memory::MemoryDbError, trie,
};
use op_revm::OpSpecId;
use revm::{
    Context, Database, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::TxEnv,
    context_interface::result::{EVMError, InvalidTransaction},
    primitives::hardfork::SpecId,
    state::Bytecode,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Files whose cases cannot hold, by the end of their path, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/InitCollisionParis.json", COLLISION),
    ("/RevertInCreateInInitCreate2Paris.json", COLLISION),
    ("/RevertInCreateInInit_Paris.json", COLLISION),
    ("/create2collisionStorageParis.json", COLLISION),
    ("/dynamicAccountOverwriteEmpty_Paris.json", COLLISION),
];
const COLLISION: &str = "an address without code and nonce has storage (EIP-7610): EIP-161 leaves none on a \
                         chain that had it from block 0";

/// Files that take a minute, for runs of nothing but vectors.
const SLOW: &[&str] = &["/CALLBlake2f_MaxRounds.json"];
const TOO_SLOW: &str = "2^32 - 1 rounds of BLAKE2b in one call: only `make conformance` runs it";

/// Blobs of a transaction and of a block before Prague (EIP-4844).
const MAX_BLOBS: u64 = 6;

#[derive(Deserialize)]
struct Unit {
    env: Env,
    pre: BTreeMap<Address, Account>,
    post: BTreeMap<String, Vec<Case>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Env {
    current_coinbase: Address,
    current_number: U256,
    current_timestamp: U256,
    current_gas_limit: U256,
    current_base_fee: U256,
    current_random: B256,
    current_excess_blob_gas: Option<U256>,
}

#[derive(Deserialize)]
struct Account {
    nonce: U256,
    balance: U256,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    hash: B256,
    logs: B256,
    txbytes: Bytes,
    expect_exception: Option<String>,
}

/// A state whose ancestors have the hashes that the vectors give them.
struct Chain(TrieDb<MemoryDb>);

impl Database for Chain {
    type Error = TrieDbError<MemoryDbError>;

    fn basic(&mut self, address: Address) -> Result<Option<revm::state::AccountInfo>, Self::Error> {
        self.0.basic(address)
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Self::Error> {
        self.0.code_by_hash(hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.0.storage(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        Ok(keccak256(number.to_string()))
    }
}

impl TrieNodes for Chain {
    type Error = TrieDbError<MemoryDbError>;
    const CHECKED: bool = true;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.0.trie_node(owner, path, hash)
    }
}

/// The state with those accounts, and its root.
fn state(accounts: &BTreeMap<Address, Account>) -> (Chain, B256) {
    let mut diff = StateDiff::default();
    for (address, account) in accounts {
        let mut code_hash = KECCAK256_EMPTY;
        if !account.code.is_empty() {
            code_hash = keccak256(&account.code);
            diff.codes.insert(code_hash, account.code.clone());
        }
        let info = AccountInfo { nonce: account.nonce.to(), balance: account.balance, code_hash };
        diff.accounts.insert(*address, Some(info));
        let slots = account.storage.iter().filter(|(_, value)| !value.is_zero());
        diff.storage.extend(slots.map(|(slot, value)| ((*address, *slot), *value)));
    }
    let (memory, header) = state_of(diff);
    let root = header.state_root;
    (Chain(TrieDb::new(memory, header)), root)
}

/// Why a transaction changes nothing.
#[derive(Debug)]
enum Rejection {
    Undecodable,
    Invalid(InvalidTransaction),
}

impl Rejection {
    /// Whether it is what the vectors call `exception`, one name or several.
    fn is(&self, exception: &str) -> bool {
        use InvalidTransaction as Tx;
        exception.split('|').any(|name| {
            let name = name.strip_prefix("TransactionException.").unwrap_or(name);
            match (name, self) {
                // Prices of 2^128 wei and more are not decoded.
                (
                    "RLP_INVALID_VALUE"
                    | "TYPE_3_TX_CONTRACT_CREATION"
                    | "GASLIMIT_PRICE_PRODUCT_OVERFLOW",
                    Self::Undecodable,
                ) => true,
                (_, Self::Undecodable) => false,
                (name, Self::Invalid(error)) => matches!(
                    (name, error),
                    ("INTRINSIC_GAS_TOO_LOW", Tx::CallGasCostMoreThanGasLimit { .. })
                        | ("INSUFFICIENT_ACCOUNT_FUNDS", Tx::LackOfFundForMaxFee { .. })
                        | ("GASLIMIT_PRICE_PRODUCT_OVERFLOW", Tx::OverflowPaymentInTransaction)
                        | ("GAS_ALLOWANCE_EXCEEDED", Tx::CallerGasLimitMoreThanBlock)
                        | ("INSUFFICIENT_MAX_FEE_PER_GAS", Tx::GasPriceLessThanBasefee)
                        | (
                            "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS",
                            Tx::PriorityFeeGreaterThanMaxFee
                        )
                        | ("INITCODE_SIZE_EXCEEDED", Tx::CreateInitCodeSizeLimit)
                        | ("TYPE_3_TX_INVALID_BLOB_VERSIONED_HASH", Tx::BlobVersionNotSupported)
                        | (
                            "INSUFFICIENT_MAX_FEE_PER_BLOB_GAS",
                            Tx::BlobGasPriceGreaterThanMax { .. }
                        )
                        | ("TYPE_3_TX_ZERO_BLOBS", Tx::EmptyBlobs)
                        | ("TYPE_3_TX_BLOB_COUNT_EXCEEDED", Tx::TooManyBlobs { .. })
                        | ("SENDER_NOT_EOA", Tx::RejectCallerWithCode)
                        | ("NONCE_IS_MAX", Tx::NonceOverflowInTransaction)
                ),
            }
        })
    }
}

/// Executes the transaction, if it is valid, and gives the root and the hash of the logs after it.
fn execute(
    spec: OpSpecId,
    env: &Env,
    chain: &mut Chain,
    root: B256,
    transaction: &[u8],
) -> (B256, B256, Option<Rejection>) {
    let mut cache = Cache::new(chain, false);
    let mut logs = Vec::new();
    let rejection = match transact(spec, env, &mut cache, transaction) {
        Ok(executed) => {
            logs = executed.result.into_logs();
            cache.commit(executed.state);
            None
        }
        Err(rejection) => Some(rejection),
    };
    let (root, _, _) = trie::apply(root, &cache.diff(), &[], chain).unwrap();
    (root, keccak256(alloy_rlp::encode(&logs)), rejection)
}

type Executed = revm::context_interface::result::ResultAndState;

fn transact(
    spec: OpSpecId,
    env: &Env,
    cache: &mut Cache<'_, Chain>,
    transaction: &[u8],
) -> Result<Executed, Rejection> {
    let tx = TxEnvelope::decode_2718_exact(transaction).map_err(|_| Rejection::Undecodable)?;
    let sender = tx.recover_signer().map_err(|_| Rejection::Undecodable)?;
    let config = config(spec);
    let mut evm_env = config.env(&Header {
        number: env.current_number.to(),
        timestamp: env.current_timestamp.to(),
        beneficiary: env.current_coinbase,
        mix_hash: env.current_random,
        gas_limit: env.current_gas_limit.to(),
        base_fee_per_gas: Some(env.current_base_fee.to()),
        ..Header::default()
    });
    // Blobs are Ethereum's alone.
    if !SpecId::from(spec).is_enabled_in(SpecId::PRAGUE) {
        evm_env.cfg_env.set_max_blobs_per_tx(MAX_BLOBS);
    }
    if let Some(excess) = env.current_excess_blob_gas {
        let fraction = evm_env.cfg_env.blob_base_fee_update_fraction();
        evm_env.block_env.set_blob_excess_gas_and_price(excess.to(), fraction);
    }
    let mut evm = Context::mainnet()
        .with_db(cache)
        .with_cfg(evm_env.cfg_env)
        .with_block(evm_env.block_env)
        .build_mainnet()
        .with_precompiles(PrecompilesMap::from_static(config.precompiles()));
    evm.transact(TxEnv::from_recovered_tx(&tx, sender)).map_err(|error| match error {
        EVMError::Transaction(error) => Rejection::Invalid(error),
        error => panic!("{error}"),
    })
}

fn check(
    spec: OpSpecId,
    env: &Env,
    chain: &mut Chain,
    root: B256,
    case: &Case,
) -> Result<(), String> {
    let (root, logs, rejection) = execute(spec, env, chain, root, &case.txbytes);
    match (&case.expect_exception, rejection) {
        (None, None) => {}
        (Some(exception), Some(rejection)) if rejection.is(exception) => {}
        (exception, rejection) => {
            return Err(format!("expected {exception:?}, found {rejection:?}"));
        }
    }
    if (root, logs) == (case.hash, case.logs) {
        Ok(())
    } else {
        let logs = if logs == case.logs { "right" } else { "wrong" };
        Err(format!("root {root}, not {}; logs {logs}", case.hash))
    }
}

#[test]
fn states_and_logs_after_transactions_are_those_of_the_vectors() {
    let Some(vectors) = Vectors::find("state-tests", &[]) else { return };
    let tally = vectors.run(|file, tally| {
        if SLOW.iter().any(|slow| file.ends_with(slow)) && !vectors.alone() {
            vectors.open(file);
            return tally.except(TOO_SLOW);
        }
        let units: BTreeMap<String, Unit> = serde_json::from_slice(&vectors.read(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        for (name, unit) in &units {
            unit_holds(file, name, unit, tally);
        }
    });
    vectors.finish(tally);
}

fn unit_holds(file: &str, name: &str, unit: &Unit, tally: &mut Tally) {
    let (mut chain, root) = state(&unit.pre);
    let exception =
        EXCEPTIONS.iter().find(|(end, _)| file.ends_with(end)).map(|(_, reason)| *reason);
    for (fork, cases) in &unit.post {
        for (index, case) in cases.iter().enumerate() {
            let Some(spec) = spec(fork) else {
                tally.except(OLD_FORK);
                continue;
            };
            let outcome = check(spec, &unit.env, &mut chain, root, case);
            tally.case(|| format!("{file}: {name}: {fork} {index}"), exception, outcome);
        }
    }
}
