//! The ten accounts of the test mnemonic that development tools share.

use alloy_primitives::{Address, B256};
use alloy_signer_local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English};
use kedge_genesis::params::dev_secrets::MNEMONIC;

/// How many accounts are funded.
pub const COUNT: u32 = 10;

/// An account with its public secret.
#[derive(Clone, Debug)]
pub struct DevAccount {
    /// Its address.
    pub address: Address,
    /// Its secret key, which everybody knows.
    pub private_key: B256,
}

/// Signer of account `index`: BIP-44 path `m/44'/60'/0'/0/index`.
///
/// # Errors
/// When the index is not one of a non-hardened BIP-32 child.
pub fn signer(index: u32) -> anyhow::Result<PrivateKeySigner> {
    Ok(MnemonicBuilder::<English>::default().phrase(MNEMONIC).index(index)?.build()?)
}

/// All of them.
///
/// # Errors
/// As [`signer`].
pub fn all() -> anyhow::Result<Vec<DevAccount>> {
    (0..COUNT)
        .map(|index| {
            let signer = signer(index)?;
            Ok(DevAccount { address: signer.address(), private_key: signer.to_bytes() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;

    #[test]
    fn the_accounts_are_those_of_other_development_tools() {
        let all = all().expect("derivable");
        assert_eq!(all.len(), 10);
        assert_eq!(all[0].address, address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
        assert_eq!(all[9].address, address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"));
    }
}
