//! Key files: 32 bytes as 64 hexadecimal digits, readable by their owner alone.
//!
//! A secret reaches Kedge through a file, never through an argument or the environment, and its bytes
//! never reach a log or an error.

use bitcoin::{
    hashes::{Hash, sha256},
    key::{Keypair, Secp256k1},
    secp256k1::SecretKey,
};
use kedge_genesis::{Network, params::dev_secrets};
use std::{
    fs,
    io::{self, Read as _, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// No key, password or cookie file is larger, bytes.
const MAX_SECRET_FILE_BYTES: u64 = 4_096;

/// The text of a small file: what is larger than 4 KiB, or has no end, as a device, is refused unread.
///
/// # Errors
/// The file cannot be read, is larger or is not UTF-8.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_SECRET_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET_FILE_BYTES {
        let reason = "it is larger than the 4 KiB that a key, password or cookie file may have";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the key file {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others on the machine can read it.
    #[error("the key file {0} is readable by others; run: chmod 600 {0}")]
    Permissions(String),
    /// Not 64 hexadecimal digits, or not a valid secret key.
    #[error(
        "the key file {0} does not hold a secret key: 64 hexadecimal digits are expected; `kedge key new` makes one"
    )]
    Malformed(String),
    /// The network's keys are secret, so the file must be named.
    #[error(
        "the network {network} needs {flag}; only dev and regtest have public keys to fall back to"
    )]
    Needed {
        /// Name of the network.
        network: &'static str,
        /// The flag to give.
        flag: &'static str,
    },
}

/// The roles that have a public key pair of their own on the `dev` and `regtest` networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs batches.
    Sequencer,
    /// Pays for commits and reveals, and publishes assertions.
    Operator,
    /// Pays for fraud proofs, signs their reveals and takes rewards.
    Challenger,
    /// The wallet that the dev rollup mines to and that pays deposits.
    Wallet,
    /// The proposer of `kedge dev` whose assertions are wrong.
    DishonestProposer,
    /// One of the vault's signers.
    Signer(u8),
}

impl Role {
    /// The role's public secret on `dev` and `regtest`.
    pub fn dev_secret(self) -> Option<SecretKey> {
        let bytes = match self {
            Self::Sequencer => dev_secrets::SEQUENCER,
            Self::Operator => sha256::Hash::hash(b"kedge dev operator").to_byte_array(),
            Self::Challenger => sha256::Hash::hash(b"kedge dev challenger").to_byte_array(),
            Self::Wallet => sha256::Hash::hash(b"kedge dev wallet").to_byte_array(),
            Self::DishonestProposer => {
                sha256::Hash::hash(b"kedge dev dishonest proposer").to_byte_array()
            }
            Self::Signer(index) => *dev_secrets::SIGNERS.get(usize::from(index))?,
        };
        SecretKey::from_slice(&bytes).ok()
    }
}

/// The key in `file`; without a file the public one of the role, on the networks that have them.
///
/// # Errors
/// The file is missing, malformed or open to others, or the network needs one.
pub fn load(
    file: Option<&Path>,
    network: Network,
    role: Role,
    flag: &'static str,
) -> Result<SecretKey, KeyError> {
    match (file, network) {
        (Some(path), _) => read(path),
        (None, Network::Dev | Network::Regtest) => {
            role.dev_secret().ok_or(KeyError::Needed { network: network.name(), flag })
        }
        (None, Network::Signet | Network::Mainnet) => {
            Err(KeyError::Needed { network: network.name(), flag })
        }
    }
}

/// Reads a key file.
///
/// # Errors
/// The file is missing, malformed or open to others.
pub fn read(path: &Path) -> Result<SecretKey, KeyError> {
    let shown = || path.display().to_string();
    let failed = |source| KeyError::Read { path: shown(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions(shown()));
    }
    let text = read_small(path).map_err(failed)?;
    let text = text.trim();
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|_| KeyError::Malformed(shown()))?;
    SecretKey::from_slice(&bytes).map_err(|_| KeyError::Malformed(shown()))
}

/// Writes a key to a new file that only its owner can read; an existing file is left alone.
///
/// # Errors
/// The file exists or cannot be written.
pub fn write_new(path: &Path, key: &SecretKey) -> Result<(), KeyError> {
    let failed = |source| KeyError::Write { path: path.display().to_string(), source };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    writeln!(file, "{}", hex::encode(key.secret_bytes()))
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// The key pair of a secret.
pub fn keypair(secret: &SecretKey) -> Keypair {
    Keypair::from_secret_key(&Secp256k1::new(), secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_is_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key");
        let key = Role::Operator.dev_secret().expect("public");
        write_new(&path, &key).expect("a new file");
        assert_eq!(read(&path).expect("just written"), key);
        assert!(matches!(write_new(&path, &key), Err(KeyError::Write { .. })));
    }

    #[test]
    fn a_key_file_open_to_others_or_malformed_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key");
        fs::write(&path, "deadbeef").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(read(&path), Err(KeyError::Permissions(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let error = read(&path).expect_err("too short");
        assert!(matches!(error, KeyError::Malformed(_)));
        assert!(!error.to_string().contains("deadbeef"));
    }

    #[test]
    fn files_too_large_for_a_secret_are_not_read_to_their_end() {
        let error = read_small(Path::new("/dev/zero")).expect_err("endless");
        assert!(error.to_string().contains("larger than the 4 KiB"), "{error}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key");
        fs::write(&path, "0".repeat(4_096)).expect("written");
        assert_eq!(read_small(&path).expect("just small enough").len(), 4_096);
        fs::write(&path, "0".repeat(4_097)).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(read(&path), Err(KeyError::Read { .. })));
    }

    #[test]
    fn networks_with_secret_keys_do_not_fall_back_to_public_ones() {
        assert!(load(None, Network::Regtest, Role::Signer(2), "--key-file").is_ok());
        assert!(load(None, Network::Regtest, Role::Signer(3), "--key-file").is_err());
        assert!(load(None, Network::Mainnet, Role::Sequencer, "--sequencer-key-file").is_err());
    }
}
