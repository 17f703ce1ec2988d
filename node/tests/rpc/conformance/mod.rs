//! The node's answers against the execution-apis specification: every method's result against its OpenRPC
//! schema, and the recorded exchanges against what this node says to the same requests.
//!
//! The data lies outside of this repository: `KEDGE_VECTORS` names its folder, `../shared/vectors` is the
//! default. Without it the test says so and passes.

mod chain;
mod exchanges;
mod requests;
mod spec;

use chain::Facts;
use exchanges::Outcome;
use jsonrpsee::core::{
    client::{ClientT, Error},
    params::ArrayParams,
};
use serde_json::Value;
use spec::Spec;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Files of the folder that say nothing about this node, by the beginning of their path.
const UNUSED: &[(&str, &str)] = &[
    ("openrpc/engine/", "the engine API is for consensus clients: blocks come from Bitcoin here"),
    ("openrpc/testing/", "testing_buildBlockV1 builds blocks for test networks of Ethereum"),
    ("openrpc/error-groups/README.md", "prose"),
    ("exchanges/testing_buildBlockV1/", "see openrpc/testing/"),
    ("exchanges/chain.rlp", "a pre-merge Ethereum chain: a rollup's chain comes from Bitcoin"),
    ("exchanges/genesis.json", "see exchanges/chain.rlp"),
    ("exchanges/forkenv.json", "see exchanges/chain.rlp"),
    ("exchanges/headfcu.json", "an engine API request"),
];

/// Methods of the specification that this node does not serve.
const NOT_SERVED: &[(&str, &str)] = &[
    ("eth_sendTransaction", "the node holds no keys"),
    ("eth_sign", "the node holds no keys"),
    ("eth_signTransaction", "the node holds no keys"),
    ("eth_getBlockAccessList", "EIP-7928 is a rule of Amsterdam, which is not in force"),
    ("debug_getRawBlockAccessList", "EIP-7928 is a rule of Amsterdam, which is not in force"),
];

/// A folder of vectors that remembers which files were opened.
struct Vectors {
    root: PathBuf,
    opened: BTreeSet<PathBuf>,
}

impl Vectors {
    /// The JSON-RPC part, when it is there.
    fn find() -> Option<Self> {
        let folder = std::env::var_os("KEDGE_VECTORS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
            Into::into,
        );
        let root = folder.join("rpc");
        if root.is_dir() {
            return Some(Self { root, opened: BTreeSet::new() });
        }
        println!("skipped: no vectors at {} (set KEDGE_VECTORS)", root.display());
        None
    }

    /// Every file below `folder`, relative to the root, in order.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.root.join(folder)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&self.root).expect("below").to_owned());
                }
            }
        }
        files.sort();
        files
    }

    fn read(&mut self, file: &Path) -> String {
        self.opened.insert(file.to_owned());
        std::fs::read_to_string(self.root.join(file)).expect("text")
    }
}

/// Why a file of the vectors is not used, if it is not.
fn unused(file: &Path) -> Option<&'static str> {
    let file = file.to_str().expect("UTF-8");
    UNUSED.iter().find(|(prefix, _)| file.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// Asks with a list of parameters.
async fn ask(facts: &Facts, method: &str, params: &[Value]) -> Result<Value, Error> {
    let mut list = ArrayParams::new();
    for param in params {
        list.insert(param).expect("JSON");
    }
    facts.world.http.request(method, list).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_the_specification_says() -> anyhow::Result<()> {
    let Some(mut vectors) = Vectors::find() else { return Ok(()) };
    let spec = Spec::load(&mut vectors);
    let facts = Facts::new().await?;
    let document = ask(&facts, "rpc.discover", &[]).await?;
    let methods = document["methods"].as_array().expect("methods");
    let served: BTreeSet<String> =
        methods.iter().map(|method| method["name"].as_str().expect("a name").to_owned()).collect();
    let mut wrong = Vec::new();

    let mut requests: BTreeMap<&str, Vec<Vec<Value>>> = BTreeMap::new();
    for (method, params) in requests::all(&facts) {
        requests.entry(method).or_default().push(params);
    }
    let mut answers = 0;
    for method in spec.methods() {
        let excepted = NOT_SERVED.iter().any(|(name, _)| *name == method);
        match (excepted, served.contains(method)) {
            (true, false) => continue,
            (true, true) => wrong.push(format!("{method} is served: strike it from NOT_SERVED")),
            (false, false) => wrong.push(format!("{method} is not served")),
            (false, true) if !requests.contains_key(method) => {
                wrong.push(format!("{method} is asked nothing"));
            }
            (false, true) => {}
        }
    }
    for (method, params) in requests
        .iter()
        .filter(|(method, _)| served.contains(**method))
        .flat_map(|(method, all)| all.iter().map(move |params| (*method, params)))
    {
        answers += 1;
        match ask(&facts, method, params).await {
            Ok(answer) => {
                for error in spec.violations(method, &answer) {
                    wrong.push(format!("{method} {}: {error}", Value::from(params.clone())));
                }
            }
            Err(error) => wrong.push(format!("{method} {}: {error}", Value::from(params.clone()))),
        }
    }

    let mut exchanges = 0;
    for file in vectors.files("exchanges") {
        if unused(&file).is_some() {
            continue;
        }
        let text = vectors.read(&file);
        match exchanges::check(&facts, &spec, &served, &file, &text).await {
            Outcome::Equal(count) => exchanges += count,
            Outcome::Excepted(reason) => println!("excepted: {}: {reason}", file.display()),
            Outcome::Wrong(errors) => {
                wrong.extend(errors.into_iter().map(|error| format!("{}: {error}", file.display())))
            }
        }
    }
    for file in vectors.files("") {
        if !vectors.opened.contains(&file) && unused(&file).is_none() {
            wrong.push(format!("{} was never opened", file.display()));
        }
    }
    println!("{answers} answers and {exchanges} exchanges conform; {} files", vectors.opened.len());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(answers >= 60 && exchanges >= 80, "{answers} answers, {exchanges} exchanges");
    Ok(())
}
