//! `kedge key`: makes key files and shows what belongs to a key.

use super::DevKey;
use crate::{
    keys::{self, Role},
    wallet::WalletKeys,
};
use alloy_primitives::B256;
use alloy_signer_local::PrivateKeySigner;
use bitcoin::secp256k1::{SecretKey, rand::rngs::OsRng};
use kedge_genesis::Network;
use serde_json::json;
use std::path::Path;

/// Writes a fresh key to a new file.
pub(super) fn new(out: &Path) -> anyhow::Result<()> {
    keys::write_new(out, &SecretKey::new(&mut OsRng))?;
    println!("wrote a fresh secret key to {}", out.display());
    Ok(())
}

/// Shows the public side of a key.
pub(super) fn show(
    network: Network,
    file: Option<&Path>,
    dev: Option<DevKey>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (role, flag) = match dev {
        Some(DevKey::Sequencer) => (Role::Sequencer, "--key-file"),
        Some(DevKey::Challenger) => (Role::Challenger, "--key-file"),
        Some(DevKey::Wallet) => (Role::Wallet, "--key-file"),
        Some(DevKey::Operator) | None => (Role::Operator, "--key-file"),
    };
    let secret = keys::load(file, network, role, flag)?;
    let x_only = keys::keypair(&secret).x_only_public_key().0;
    let l2 = PrivateKeySigner::from_bytes(&B256::new(secret.secret_bytes()))?.address();
    let bitcoin = network.params().bitcoin;
    let wallet = WalletKeys::from_seed(bitcoin, &secret.secret_bytes()).first_address(bitcoin)?;
    if as_json {
        let shown = json!({ "publicKey": x_only.to_string(), "l2Address": l2, "walletAddress": wallet.to_string() });
        println!("{shown}");
    } else {
        println!("public key      {x_only}");
        println!("L2 address      {l2}");
        println!("wallet address  {wallet}");
    }
    Ok(())
}
