//! Every method's result against its OpenRPC schema, and the recorded exchanges against what this node says
//! to the same requests.

use crate::{chain::Facts, exchanges, requests, spec::Spec, world::World};
use jsonrpsee::core::{
    client::{ClientT, Error},
    params::ArrayParams,
};
use kedge_vectors::{Tally, Vectors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Files of the folder that say nothing about this node, by the beginning of their path.
const UNUSED: &[(&str, &str)] = &[
    ("openrpc/engine/", "the engine API is for consensus clients: blocks come from Bitcoin here"),
    ("openrpc/testing/", "testing_buildBlockV1 builds blocks for test networks of Ethereum"),
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

/// Asks with a list of parameters.
pub(crate) async fn ask(world: &World, method: &str, params: &[Value]) -> Result<Value, Error> {
    let mut list = ArrayParams::new();
    for param in params {
        list.insert(param).expect("JSON");
    }
    world.http.request(method, list).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_the_specification_says() -> anyhow::Result<()> {
    let Some(vectors) = Vectors::find("rpc", UNUSED) else { return Ok(()) };
    let spec = Spec::load(&vectors);
    let facts = Facts::new().await?;
    let document = ask(&facts.world, "rpc.discover", &[]).await?;
    let methods = document["methods"].as_array().expect("methods");
    let served: BTreeSet<String> =
        methods.iter().map(|method| method["name"].as_str().expect("a name").to_owned()).collect();
    let mut tally = Tally::default();

    let mut requests: BTreeMap<&str, Vec<Vec<Value>>> = BTreeMap::new();
    for (method, params) in requests::all(&facts) {
        requests.entry(method).or_default().push(params);
    }
    for method in spec.methods() {
        let exception = NOT_SERVED.iter().find(|(name, _)| *name == method);
        let outcome = if !served.contains(method) {
            Err("not served".to_owned())
        } else if requests.contains_key(method) {
            Ok(())
        } else {
            Err("asked nothing".to_owned())
        };
        tally.case(|| method.to_owned(), exception.map(|(_, reason)| *reason), outcome);
    }
    for (method, params) in requests
        .iter()
        .filter(|(method, _)| served.contains(**method))
        .flat_map(|(method, all)| all.iter().map(move |params| (*method, params)))
    {
        let outcome = match ask(&facts.world, method, params).await {
            Ok(answer) => joined(spec.violations(method, &answer)),
            Err(error) => Err(error.to_string()),
        };
        tally.case(|| format!("{method} {}", Value::from(params.clone())), None, outcome);
    }

    for file in vectors.files().iter().filter(|file| file.starts_with("exchanges/")) {
        let text = String::from_utf8(vectors.read(file)).expect("UTF-8");
        let wrong = exchanges::differences(&facts, &spec, &served, file, &text).await;
        tally.case(|| file.clone(), exchanges::exception(file), joined(wrong));
    }
    vectors.finish(tally);
    Ok(())
}

fn joined(wrong: Vec<String>) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}
