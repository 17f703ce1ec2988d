//! The committed artifacts are what the sources compile to, and the ABI in Rust is theirs.

use alloy_primitives::{hex, keccak256};
use serde_json::Value;
use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folder for the compiler, outside the checkout, of its own for every set of pinned versions.
fn compiler_folder(lock: &[u8]) -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("KEDGE_CACHE").unwrap_or_else(|| {
        variable("XDG_CACHE_HOME")
            .or_else(|| Some(variable("HOME")?.join(".cache")))
            .expect("one of KEDGE_CACHE, XDG_CACHE_HOME and HOME is set")
            .join("kedge")
    });
    cache.join("solc").join(&hex::encode(keccak256(lock))[..16])
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; Node.js with npm is needed"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Installs the pinned compiler unless it is there. Installed aside and renamed into place, so that
/// an interrupted installation is never taken for a whole one.
fn install_compiler(contracts: &Path) -> PathBuf {
    let folder = compiler_folder(&fs::read(contracts.join("package-lock.json")).unwrap());
    if folder.exists() {
        return folder;
    }
    let parent = folder.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    let aside = tempfile::tempdir_in(parent).unwrap();
    for name in ["package.json", "package-lock.json"] {
        fs::copy(contracts.join(name), aside.path().join(name)).unwrap();
    }
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(aside.path()));
    if let Err(error) = fs::rename(aside.keep(), &folder) {
        // Another run may have been first.
        assert!(folder.exists(), "{}: {error}", folder.display());
    }
    folder
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn sources_compile_to_the_committed_artifacts_byte_for_byte() {
    let contracts = root().join("contracts");
    let compiler = install_compiler(&contracts);
    let out = tempfile::tempdir().unwrap();
    run(Command::new("node")
        .arg(contracts.join("build.mjs"))
        .args([OsStr::new("--out"), out.path().as_os_str()])
        .args([OsStr::new("--solc"), compiler.as_os_str()]));

    let (compiled, committed) = (files(out.path()), files(&root().join("artifacts")));
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&compiled), names(&committed));
    assert!(!compiled.is_empty());
    for ((name, compiled), (_, committed)) in compiled.iter().zip(&committed) {
        assert!(compiled == committed, "{name} differs; run `node build.mjs` in genesis/contracts");
    }
}

/// Type of a parameter as it stands in a signature.
fn canonical(parameter: &Value) -> String {
    let kind = parameter["type"].as_str().unwrap();
    match kind.strip_prefix("tuple") {
        Some(suffix) => format!("({}){suffix}", parameters(&parameter["components"])),
        None => kind.into(),
    }
}

fn parameters(list: &Value) -> String {
    list.as_array().unwrap().iter().map(canonical).collect::<Vec<_>>().join(",")
}

#[test]
fn calls_events_and_errors_in_rust_are_those_of_the_compiled_contracts() {
    use kedge_genesis::abi::*;
    /// The signatures that `sol!` generated, by artifact.
    macro_rules! table {
        ($($contract:ident: $($kind:ident),*;)*) => {{
            vec![$((stringify!($contract), {
                let mut all: Vec<&str> = Vec::new();
                $(all.extend($contract::$kind::SIGNATURES.iter().copied());)*
                all
            }),)*]
        }};
    }
    let table = table! {
        BitcoinBridge: BitcoinBridgeCalls, BitcoinBridgeEvents, BitcoinBridgeErrors;
        BitcoinHeaders: BitcoinHeadersCalls, BitcoinHeadersErrors;
        L1Block: L1BlockCalls, L1BlockErrors;
        GasPriceOracle: GasPriceOracleCalls;
        L2ToL1MessagePasser: L2ToL1MessagePasserCalls, L2ToL1MessagePasserEvents, L2ToL1MessagePasserErrors;
        FeeVault: FeeVaultCalls, FeeVaultEvents, FeeVaultErrors;
    };
    for (contract, declared) in table {
        let text = fs::read(root().join(format!("artifacts/{contract}.json"))).unwrap();
        let artifact: Value = serde_json::from_slice(&text).unwrap();
        let compiled: Vec<String> = artifact["abi"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["name"].is_string())
            .map(|item| {
                format!("{}({})", item["name"].as_str().unwrap(), parameters(&item["inputs"]))
            })
            .collect();
        assert!(!declared.is_empty());
        for signature in declared {
            assert!(compiled.iter().any(|found| found == signature), "{contract}.{signature}");
        }
    }
}
