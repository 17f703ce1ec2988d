//! Copies of a node's store: a folder with the database's files as they were at one moment, and a manifest
//! that says of which chain, how far, and what is in the files.
//!
//! The manifest is written last: a folder without one is no snapshot. Everything that it says is checked when
//! a snapshot is restored.

use crate::{engine::identity_of, node::create_datadir, proof::file::write_new};
use alloy_primitives::B256;
use anyhow::{Context, bail, ensure};
use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use kedge_genesis::{L1Ref, L2Number, Params};
use kedge_store::{L1Rows, L2Rows, SCHEMA, Store, finalized, oldest_state};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// The version of the manifest.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const STORE: &str = "store";

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// Layout of the database.
    pub schema: u32,
    /// The network.
    pub network: String,
    /// Hash of the consensus parameters.
    pub params: B256,
    /// Hash of L2 block 0.
    pub genesis: B256,
    /// The latest L2 block.
    pub latest: u64,
    /// Its hash.
    pub latest_hash: B256,
    /// The newest L2 block derived from Bitcoin.
    pub safe: u64,
    /// The last final L2 block.
    pub finalized: u64,
    /// The oldest L2 block after which the state is kept.
    pub oldest_state: u64,
    /// Height of the last processed Bitcoin block.
    pub l1_height: u32,
    /// Its hash, as Bitcoin shows it.
    pub l1_hash: bitcoin::BlockHash,
    /// Whether the node's own records are in it: its Bitcoin transactions, wallets and publications.
    pub own_records: bool,
    /// The files.
    pub files: Vec<SnapshotFile>,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: sha256::Hash,
}

impl Manifest {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

/// Makes a snapshot in the folder `to`, which is created or empty; nothing of it is left there when that fails.
/// `progress` is told how many bytes have been read, and of how many.
///
/// # Errors
/// When `to` holds something, and when store or disk fail.
pub fn create(
    store: &Store,
    params: &Params,
    to: &Path,
    own_records: bool,
    progress: impl FnMut(u64, u64),
) -> anyhow::Result<Manifest> {
    ensure!(is_free(to)?, "{} is not empty; choose a new folder for the snapshot", to.display());
    let cannot = || format!("cannot find {}", to.display());
    let database = fs::canonicalize(store.path()).with_context(cannot)?;
    if let Some(above) =
        std::path::absolute(to).with_context(cannot)?.ancestors().find(|it| it.exists())
    {
        let within = fs::canonicalize(above).with_context(cannot)?.starts_with(&database);
        ensure!(!within, "{} is within the database; choose a folder elsewhere", to.display());
    }
    let made: Vec<&Path> = to
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let folder = to.join(STORE);
    let done = store.checkpoint(&folder).map_err(anyhow::Error::from).and_then(|()| {
        let done = complete(store, params, to, &folder, own_records, progress);
        if done.is_err() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        done
    });
    if done.is_err() {
        for folder in made {
            // One that somebody put something into stays.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
    done
}

/// Makes a snapshot of the copied database in `folder`.
fn complete(
    store: &Store,
    params: &Params,
    to: &Path,
    folder: &Path,
    own_records: bool,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Manifest> {
    if !own_records {
        let identity = identity_of(params)?;
        Store::open_existing(folder, &identity)?.remove_own_records()?;
        // The database's log and manifest still have keys of those rows: opening it begins both anew.
        drop(Store::open_existing(folder, &identity)?);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok().context("a file has no plain name")?;
        // The database's log for people, and its lock.
        if name != "LOCK" && !name.starts_with("LOG") {
            names.push(name);
        }
    }
    names.sort();
    let sizes = names.iter().map(|name| Ok(fs::metadata(folder.join(name))?.len()));
    let total = sizes.sum::<std::io::Result<u64>>()?;
    let mut done = 0;
    let mut files = Vec::new();
    for name in names {
        let mut count = |bytes: u64| {
            done += bytes;
            progress(done, total);
        };
        let (size, sha256) = copy(&folder.join(&name), None, &mut count)?;
        files.push(SnapshotFile { name, size, sha256 });
    }
    let identity = identity_of(params)?;
    let reader = store.reader();
    let latest = reader.latest()?.unwrap_or_default();
    let L1Ref { height, hash } = reader.l1_tip()?.unwrap_or_default();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA,
        network: params.network.name().to_owned(),
        params: identity.params,
        genesis: identity.genesis,
        latest: latest.0,
        latest_hash: reader.hash(latest)?.unwrap_or_default(),
        safe: reader.safe_at(height)?.min(latest).0,
        finalized: finalized(&reader)?.0,
        oldest_state: oldest_state(&reader)?.0,
        l1_height: height.0,
        l1_hash: bitcoin::BlockHash::from_byte_array(hash.0),
        own_records,
        files,
    };
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    write_new(&to.join(MANIFEST), text.as_bytes())
        .with_context(|| format!("cannot write the manifest into {}", to.display()))?;
    Ok(manifest)
}

/// Reads and checks the manifest of the snapshot `from`.
///
/// # Errors
/// When there is none, or it is of another network or another version of the program.
pub fn manifest(from: &Path, params: &Params) -> anyhow::Result<Manifest> {
    let path = from.join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{} is no finished snapshot: cannot read {MANIFEST}", from.display())
    })?;
    let manifest: Manifest = serde_json::from_str(&text)
        .with_context(|| format!("{} is no manifest of a snapshot", path.display()))?;
    ensure!(
        manifest.format == FORMAT && manifest.schema == SCHEMA,
        "the snapshot has format {} and schema {}, this version of kedge needs {FORMAT} and {SCHEMA}; use \
         the version that wrote it ({})",
        manifest.format,
        manifest.schema,
        manifest.version
    );
    ensure!(
        manifest.network == params.network.name(),
        "the snapshot is of the network {}, not of {}; name it with --network",
        manifest.network,
        params.network.name()
    );
    let identity = identity_of(params)?;
    ensure!(
        manifest.params == identity.params && manifest.genesis == identity.genesis,
        "the snapshot is of a chain with other parameters or another genesis ({}) than this version's ({})",
        manifest.genesis,
        identity.genesis
    );
    for file in &manifest.files {
        let plain = Path::new(&file.name).components().count() == 1
            && Path::new(&file.name).file_name().is_some();
        ensure!(plain, "the manifest names a file outside of the snapshot: {}", file.name);
    }
    Ok(manifest)
}

/// Makes a data directory from a snapshot. The directory is created or empty; when that fails, nothing is left of
/// it, or in it. `progress` is told how many bytes have been copied.
///
/// # Errors
/// When `datadir` holds something, a file is not as the manifest says, and when the disk fails.
pub fn restore(
    from: &Path,
    manifest: &Manifest,
    params: &Params,
    datadir: &Path,
    progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    ensure!(
        is_free(datadir)?,
        "{} is not empty; a snapshot is restored into a new --datadir only",
        datadir.display()
    );
    let was_there = datadir.exists();
    create_datadir(datadir)?;
    let partial = datadir.join("store.partial");
    let done = restore_into(&from.join(STORE), manifest, params, &partial, progress)
        .and_then(|()| Ok(fs::rename(&partial, datadir.join(STORE))?));
    if done.is_err() {
        let mut removed = if partial.exists() { fs::remove_dir_all(&partial) } else { Ok(()) };
        if !was_there {
            removed = removed.and_then(|()| fs::remove_dir(datadir));
        }
        if let Err(error) = removed {
            let left = || format!("and {} cannot be cleaned up: {error}", datadir.display());
            return done.with_context(left);
        }
    }
    done
}

fn restore_into(
    from: &Path,
    manifest: &Manifest,
    params: &Params,
    to: &Path,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut done = 0;
    for file in &manifest.files {
        let mut count = |bytes: u64| {
            done += bytes;
            progress(done);
        };
        let source = from.join(&file.name);
        ensure!(
            source.exists(),
            "{} of the snapshot is missing; get the snapshot again",
            file.name
        );
        let (size, sha256) = copy(&source, Some(to.join(&file.name)), &mut count)?;
        if size != file.size || sha256 != file.sha256 {
            bail!("{} of the snapshot is damaged; get the snapshot again", file.name);
        }
    }
    File::open(to)?.sync_all()?;
    let store = Store::open_existing(to, &identity_of(params)?)?;
    let found = store.hash(L2Number(manifest.latest))?;
    ensure!(
        store.latest()? == Some(L2Number(manifest.latest)) && found == Some(manifest.latest_hash),
        "the snapshot's files hold another chain than its manifest says"
    );
    Ok(())
}

/// Whether there is nothing at `path`, or an empty folder.
fn is_free(path: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Reads a file, and writes it to another. Gives its size and SHA-256.
fn copy(
    from: &Path,
    to: Option<PathBuf>,
    count: &mut impl FnMut(u64),
) -> anyhow::Result<(u64, sha256::Hash)> {
    let cannot = |what: &str, path: &Path| format!("cannot {what} {}", path.display());
    let mut source = File::open(from).with_context(|| cannot("read", from))?;
    let mut target = match &to {
        Some(path) => Some(File::create_new(path).with_context(|| cannot("create", path))?),
        None => None,
    };
    let mut engine = sha256::Hash::engine();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = source.read(&mut buffer).with_context(|| cannot("read", from))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        engine.input(bytes);
        if let (Some(target), Some(path)) = (&mut target, &to) {
            target.write_all(bytes).with_context(|| cannot("write", path))?;
        }
        size += bytes.len() as u64;
        count(bytes.len() as u64);
    }
    if let Some(target) = target {
        target.sync_all()?;
    }
    Ok((size, sha256::Hash::from_engine(engine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::{World, account, dump};
    use kedge_genesis::Network;
    use kedge_store::{Domain, Durability, Rows as _, StoreError, Table};
    use tempfile::TempDir;

    const OWN: &[u8] = b"key of a record of this node alone";

    fn world() -> World {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]).unwrap();
        world.store().put(Table::OwnTxs, OWN, vec![1], Durability::Synced).unwrap();
        world
    }

    fn snapshot(world: &World, to: &Path, own: bool) -> Manifest {
        let mut last = (0, 0);
        let manifest = create(world.store(), world.params, to, own, |done, total| {
            assert!(last.0 < done);
            last = (done, total);
        })
        .unwrap();
        assert_eq!(last, (manifest.size(), manifest.size()));
        manifest
    }

    #[test]
    fn a_restored_snapshot_has_every_row_and_only_without_own_records_not_these() {
        let world = world();
        for own in [true, false] {
            let dir = TempDir::new().unwrap();
            let (copy, datadir) = (dir.path().join("copy"), dir.path().join("data"));
            let made = snapshot(&world, &copy, own);
            assert_eq!(manifest(&copy, world.params).unwrap(), made);
            assert_eq!(made.latest_hash, world.engine.heads().latest.hash);
            restore(&copy, &made, world.params, &datadir, |_| {}).unwrap();
            let identity = identity_of(world.params).unwrap();
            let store = Store::open_existing(datadir.join(STORE), &identity).unwrap();
            for domain in [Domain::L1, Domain::L2] {
                assert_eq!(dump(&store, domain), dump(world.store(), domain));
            }
            let expected = own.then(|| vec![1].into());
            assert_eq!(store.get(Table::OwnTxs, OWN).unwrap(), expected);
            assert!(store.verify(&mut |_, _| {}).unwrap().is_sound());
            let found = fs::read_dir(copy.join(STORE)).unwrap().any(|file| {
                fs::read(file.unwrap().path()).unwrap().windows(OWN.len()).any(|bytes| bytes == OWN)
            });
            assert_eq!(found, own, "what is left out is not in the files either");
        }
    }

    #[test]
    fn a_snapshot_that_fails_leaves_nothing_of_it_and_what_is_somebody_else_s() {
        let (world, dir) = (world(), TempDir::new().unwrap());
        let made = |to: &Path, spoil: &dyn Fn()| {
            create(world.store(), world.params, to, true, |_, _| spoil()).unwrap_err()
        };
        let deep = dir.path().join("a/b/copy");
        let error = made(&deep, &|| {
            let _ = fs::remove_dir_all(deep.join(STORE));
            fs::create_dir_all(deep.join(STORE)).unwrap();
        });
        assert!(error.to_string().starts_with("cannot read"), "{error:#}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let copy = dir.path().join("copy");
        let error = made(&copy, &|| fs::write(copy.join(MANIFEST), b"precious").unwrap());
        assert!(error.to_string().starts_with("cannot write the manifest"), "{error:#}");
        let left: Vec<_> = fs::read_dir(&copy).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, [MANIFEST]);
        assert_eq!(fs::read(copy.join(MANIFEST)).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_or_data_directory_that_holds_something_is_left_alone() {
        let (world, dir) = (world(), TempDir::new().unwrap());
        let copy = dir.path().join("copy");
        let made = snapshot(&world, &copy, true);
        let error = create(world.store(), world.params, &copy, true, |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        let within = world.store().path().join("deep/copy");
        let error = create(world.store(), world.params, &within, true, |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("is within the database"), "{error}");
        assert!(!world.store().path().join("deep").exists());
        let datadir = dir.path().join("data");
        fs::create_dir(&datadir).unwrap();
        fs::write(datadir.join("precious"), b"1").unwrap();
        let error = restore(&copy, &made, world.params, &datadir, |_| {}).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(&datadir).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_or_unfinished_snapshot_is_refused_and_leaves_nothing() {
        let (world, dir) = (world(), TempDir::new().unwrap());
        let (copy, datadir) = (dir.path().join("copy"), dir.path().join("data"));
        let made = snapshot(&world, &copy, true);
        let victim = made.files.iter().find(|file| file.name.ends_with(".sst")).unwrap();
        let path = copy.join(STORE).join(&victim.name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        // The file is shared with the database that it was taken of.
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let error = restore(&copy, &made, world.params, &datadir, |_| {}).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert!(!datadir.exists());
        fs::create_dir(&datadir).unwrap();
        restore(&copy, &made, world.params, &datadir, |_| {}).unwrap_err();
        assert_eq!(fs::read_dir(&datadir).unwrap().count(), 0);
        fs::remove_file(&path).unwrap();
        let error = restore(&copy, &made, world.params, &datadir, |_| {}).unwrap_err();
        assert!(error.to_string().contains("is missing; get the snapshot again"), "{error}");
        fs::remove_file(copy.join(MANIFEST)).unwrap();
        let error = manifest(&copy, world.params).unwrap_err();
        assert!(error.to_string().contains("no finished snapshot"), "{error}");
    }

    #[test]
    fn a_snapshot_of_another_network_or_schema_is_refused() {
        let (world, dir) = (world(), TempDir::new().unwrap());
        let copy = dir.path().join("copy");
        let made = snapshot(&world, &copy, true);
        let error = manifest(&copy, Network::Regtest.params()).unwrap_err();
        assert!(error.to_string().contains("--network"), "{error}");
        let rewrite = |manifest: &Manifest| {
            fs::write(copy.join(MANIFEST), serde_json::to_string(manifest).unwrap()).unwrap();
        };
        rewrite(&Manifest { schema: SCHEMA - 1, ..made.clone() });
        let error = manifest(&copy, world.params).unwrap_err();
        assert!(error.to_string().contains("schema"), "{error}");
        let mut outside = made.clone();
        outside.files[0].name = "../evil".to_owned();
        rewrite(&outside);
        let error = manifest(&copy, world.params).unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
    }

    #[test]
    fn a_database_that_is_not_there_is_not_created() {
        let dir = TempDir::new().unwrap();
        let identity = identity_of(Network::Dev.params()).unwrap();
        let path = dir.path().join("none");
        let error = Store::open_existing(&path, &identity).unwrap_err();
        assert!(matches!(error, StoreError::NoDatabase { .. }), "{error}");
        assert!(!path.exists());
    }
}
