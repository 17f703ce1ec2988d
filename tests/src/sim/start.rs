//! Where every run begins: the parameters, and a Bitcoin on which everybody has coins that can be spent.

use crate::sim_bitcoin::SimBitcoin;
use anyhow::{Context, Result};
use bitcoin::hashes::Hash as _;
use bitcoin::{ScriptBuf, WScriptHash};
use kedge::wallet::WalletKeys;
use kedge_genesis::{L1Height, L1Ref, Network, Params};
use std::sync::OnceLock;

/// Everybody who has a Bitcoin wallet, and with how many block rewards in it.
pub(super) const WALLETS: [(&str, u32); 7] = [
    ("sequencer", 6),
    ("challenger", 4),
    ("users", 6),
    ("liar", 4),
    ("bluffer", 2),
    ("copier", 2),
    ("rogue", 2),
];

/// Blocks on top of a reward before it can be spent.
const MATURITY: u32 = 100;
/// L1 blocks after which nothing is taken back any more.
const FINALITY: u32 = 6;
/// The deepest reorganisation.
pub(super) const MAX_REORG: u32 = FINALITY - 1;
/// How many blocks in a row a signer may miss.
pub(super) const SIGNER_PATIENCE: u32 = 3;
/// Blocks from a deadline on within which only the signers can move a bond. The verdict is final after
/// [`FINALITY`] of them; the signers need up to [`SIGNER_PATIENCE`] and the slash one more; the deepest
/// reorganisation can take it back as late as [`MAX_REORG`] blocks after that, with a mempool that forgets it;
/// the signers and the slash need as many once more, and the block after that may be the proposer's.
const BOND_MARGIN: u32 = FINALITY + (SIGNER_PATIENCE + 1) + MAX_REORG + (SIGNER_PATIENCE + 1) + 1;

/// The wallet keys of somebody, made from the name.
pub(super) fn wallet_keys(name: &str) -> WalletKeys {
    let seed = alloy_primitives::keccak256(name).0;
    WalletKeys::from_seed(Network::Dev.params().bitcoin, &seed)
}

/// Where blocks pay that nobody needs the reward of.
pub(super) fn miner() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([0xa5; 32]))
}

/// Where the rewards of everybody in [`WALLETS`] go, which takes long to derive.
fn first_scripts() -> Result<&'static [ScriptBuf]> {
    static SCRIPTS: OnceLock<Vec<ScriptBuf>> = OnceLock::new();
    if let Some(scripts) = SCRIPTS.get() {
        return Ok(scripts);
    }
    let network = Network::Dev.params().bitcoin;
    let script = |name| Ok(wallet_keys(name).first_address(network)?.script_pubkey());
    let scripts = WALLETS.iter().map(|(name, _)| script(name)).collect::<Result<_>>()?;
    Ok(SCRIPTS.get_or_init(|| scripts))
}

/// A Bitcoin on which everybody's rewards can be spent. The same one every time.
pub(super) fn bitcoin() -> Result<SimBitcoin> {
    let bitcoin = SimBitcoin::new();
    for ((_, rewards), script) in WALLETS.iter().zip(first_scripts()?) {
        for _ in 0..*rewards {
            bitcoin.mine_exactly_now(script, &[])?;
        }
    }
    for _ in 0..MATURITY {
        bitcoin.mine_exactly_now(&miner(), &[])?;
    }
    Ok(bitcoin)
}

/// The parameters: those of development with finality deep enough for reorganisations of five blocks, windows
/// that match, segments of a few blocks and proofs of several chunks. The rollup starts on top of
/// [`bitcoin`].
pub(super) fn params() -> Result<&'static Params> {
    static PARAMS: OnceLock<Params> = OnceLock::new();
    if let Some(params) = PARAMS.get() {
        return Ok(params);
    }
    let bitcoin = bitcoin()?;
    let tip = bitcoin.tip();
    let block = bitcoin.block_at(tip.height).context("the tip is there")?;
    let start = L1Ref { height: tip.height, hash: tip.hash };
    Ok(PARAMS.get_or_init(|| Params {
        l1_start: start,
        l1_start_time: block.header.time,
        finality_depth: FINALITY,
        sequencing_window: 14,
        channel_timeout: 8,
        challenge_window: 14,
        bond_margin: BOND_MARGIN as u16,
        segment_target_gas: 200_000,
        max_chunk_bytes: 12_000,
        ..*Network::Dev.params()
    }))
}

/// The height from which wallets look for their coins.
pub(super) const BIRTHDAY: L1Height = L1Height(1);
