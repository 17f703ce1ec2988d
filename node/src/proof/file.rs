//! Proof files: the bytes of [`kedge_fraud_proof::Proof::encode`] and nothing else.

use kedge_genesis::Network;
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The bytes of a proof file, at most one more than a proof of any network can have: the verdict on what is
/// longer is that it is, and no device without an end is read on.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a proof"));
    }
    let limits = Network::ALL.map(|network| {
        let params = network.params();
        u64::from(params.max_chunks).saturating_mul(u64::from(params.max_chunk_bytes))
    });
    let limit = limits.into_iter().max().unwrap_or_default();
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a new file, whole or not at all; what exists is left alone.
///
/// # Errors
/// When there is such a file, or it cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}
