//! Accounts that sign, and the contracts that they call.

use super::world::World;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex, keccak256};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use anyhow::{Context, Result, ensure};
use kedge_genesis::{Sats, abi::BitcoinBridge, predeploys::BITCOIN_BRIDGE};
use kedge_workloads::{Code, deployer, token};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

/// What each account holds of the token at first.
const TOKENS: u64 = 1 << 40;
/// Addresses that are paid: as many as there are, however long a run is.
const RECIPIENTS: u64 = 5_000;

/// `LOG1` of as many zeros as the call data say, topic 7.
const LOGGER: &[u8] = &hex!("60075f355fa100");
/// How many those are.
const LOGGED: [u64; 3] = [100, 8_000, 100_000];

/// The topic of an ERC-20 transfer.
pub(super) const TRANSFER: &str =
    "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// What a transaction is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Transfer,
    TokenTransfer,
    /// A token transfer beyond the balance.
    Revert,
    Deploy,
    /// Logs as many bytes.
    Log(u64),
    Withdraw,
}

impl Deed {
    /// One of the mix.
    pub(super) fn any(rng: &mut StdRng) -> Self {
        match rng.random_range(0..100) {
            0..30 => Self::Transfer,
            30..60 => Self::TokenTransfer,
            60..68 => Self::Revert,
            68..73 => Self::Deploy,
            73..98 => Self::Log(LOGGED[rng.random_range(0..LOGGED.len())]),
            _ => Self::Withdraw,
        }
    }
}

/// An account that sends.
#[derive(Debug)]
pub(super) struct Sender {
    signer: PrivateKeySigner,
    chain_id: u64,
    pub(super) nonce: u64,
}

/// A signed transaction.
#[derive(Debug)]
pub(super) struct Signed {
    /// EIP-2718 bytes, hexadecimal.
    pub(super) encoded: String,
    pub(super) hash: String,
    pub(super) deed: Deed,
    pub(super) nonce: u64,
    pub(super) value: U256,
}

impl Sender {
    /// The account of a secret key in hexadecimal.
    pub(super) fn of(key: &str, chain_id: u64) -> Result<Self> {
        Ok(Self { signer: key.parse()?, chain_id, nonce: 0 })
    }

    pub(super) fn address(&self) -> String {
        format!("{:#x}", self.signer.address())
    }

    /// Its transaction of this nonce.
    pub(super) fn sign(
        &self,
        deed: Deed,
        nonce: u64,
        to: TxKind,
        value: U256,
        gas_limit: u64,
        input: Bytes,
    ) -> Result<Signed> {
        let mut tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to,
            value,
            input,
            ..Default::default()
        };
        let signature = self.signer.sign_transaction_sync(&mut tx)?;
        let tx = TxEnvelope::from(tx.into_signed(signature));
        let encoded = hex::encode_prefixed(tx.encoded_2718());
        Ok(Signed { encoded, hash: tx.tx_hash().to_string(), deed, nonce, value })
    }

    /// Its next transaction.
    pub(super) fn next(&mut self, deed: Deed, world: &World, rng: &mut StdRng) -> Result<Signed> {
        let to = recipient(rng);
        let none = U256::ZERO;
        let (to, value, gas, input) = match deed {
            Deed::Transfer => (to.into(), U256::from(rng.random_range(1..1_000)), 21_000, vec![]),
            Deed::TokenTransfer => {
                let input = token::transfer(to, U256::from(rng.random_range(1..1_000)));
                (address(&world.token)?.into(), none, 100_000, input)
            }
            Deed::Revert => {
                (address(&world.token)?.into(), none, 100_000, token::transfer(to, U256::MAX))
            }
            Deed::Deploy => (TxKind::Create, none, 100_000, deployer(LOGGER)),
            Deed::Log(bytes) => {
                let input = U256::from(bytes).to_be_bytes_vec();
                (address(&world.logger)?.into(), none, 40_000 + 10 * bytes, input)
            }
            Deed::Withdraw => {
                let script = [&[0, 20][..], to.as_slice()].concat();
                let input = BitcoinBridge::withdrawCall { scriptPubKey: script.into() };
                (BITCOIN_BRIDGE.into(), Sats(20_000).to_wei(), 500_000, input.abi_encode())
            }
        };
        let signed = self.sign(deed, self.nonce, to, value, gas, input.into())?;
        self.nonce += 1;
        Ok(signed)
    }
}

fn address(text: &str) -> Result<Address> {
    Ok(text.parse()?)
}

/// An address that nobody has the key of, one of [`RECIPIENTS`].
pub(super) fn recipient(rng: &mut StdRng) -> Address {
    let number = rng.random_range(0..RECIPIENTS);
    Address::from_slice(&keccak256(number.to_be_bytes())[12..])
}

/// The slot of an address's token balance.
pub(super) fn token_slot(of: &str) -> Result<String> {
    Ok(format!("{:#066x}", token::balance_slot(address(of)?)))
}

/// A call of the token's `balanceOf`.
pub(super) fn balance_of(of: &str) -> Result<String> {
    Ok(format!("0x70a08231{:0>64}", hex::encode(address(of)?)))
}

/// A call of the token's `transfer`.
pub(super) fn token_transfer(to: Address, value: U256) -> String {
    hex::encode_prefixed(token::transfer(to, value))
}

/// Call data that make the logger log this many bytes.
pub(super) fn log_input(bytes: u64) -> String {
    format!("{:#066x}", U256::from(bytes))
}

/// Deploys the token, of which each sender holds [`TOKENS`], and the contract that logs.
pub(super) async fn deploy(world: &mut World, senders: &mut [Sender]) -> Result<()> {
    let mut init = Code::new();
    for sender in &*senders {
        let slot = token::balance_slot(sender.signer.address());
        init = init.push(U256::from(TOKENS)).push(slot).raw([0x55]);
    }
    let made = |start: usize| {
        let length = token::RUNTIME.len();
        init.clone().load(start, length).place(length).raw(hex!("5ff3"))
    };
    let init = made(made(0).len()).raw(token::RUNTIME).into_bytes();
    let deployer_of = senders.first_mut().context("there are senders")?;
    world.token = created(world, deployer_of, init, 3_000_000).await?;
    world.logger = created(world, deployer_of, deployer(LOGGER), 200_000).await?;
    Ok(())
}

async fn created(world: &World, from: &mut Sender, init: Vec<u8>, gas: u64) -> Result<String> {
    let tx = from.sign(Deed::Deploy, from.nonce, TxKind::Create, U256::ZERO, gas, init.into())?;
    from.nonce += 1;
    let receipt = world.ask(0, "eth_sendRawTransactionSync", json!([tx.encoded])).await?;
    ensure!(receipt["status"] == "0x1", "a contract was not deployed: {receipt}");
    Ok(receipt["contractAddress"].as_str().context("no contract")?.to_owned())
}

/// What a receipt has to say of such a transaction.
pub(super) fn check_receipt(world: &World, tx: &Signed, receipt: &Value) -> Result<()> {
    let logs = receipt["logs"].as_array().context("no logs")?;
    let status = if tx.deed == Deed::Revert { "0x0" } else { "0x1" };
    ensure!(receipt["status"] == status, "{:?} ended with {receipt}", tx.deed);
    ensure!(receipt["transactionHash"] == tx.hash.as_str(), "the receipt of another transaction");
    let (count, emitter) = match tx.deed {
        Deed::Transfer | Deed::Revert | Deed::Deploy => (0, None),
        Deed::TokenTransfer => (1, Some(&world.token)),
        Deed::Log(_) => (1, Some(&world.logger)),
        // The bridge's own and the message passer's.
        Deed::Withdraw => (logs.len().max(1), None),
    };
    ensure!(logs.len() == count, "{:?} has {} logs", tx.deed, logs.len());
    if let (Some(log), Some(emitter)) = (logs.first(), emitter) {
        ensure!(log["address"] == emitter.as_str(), "a log of another contract: {log}");
    }
    if let (Some(log), Deed::Log(bytes)) = (logs.first(), tx.deed) {
        let length = log["data"].as_str().map(str::len);
        ensure!(length == Some(2 + 2 * bytes as usize), "{length:?} digits of {bytes} bytes");
    }
    Ok(())
}
