//! `rpc.discover`: the OpenRPC document of what this node serves.

use anyhow::{Context as _, ensure};
use jsonrpsee::RpcModule;
use serde_json::Value;
use std::collections::BTreeSet;

/// Every method that any node of this program serves.
const DOCUMENT: &str = include_str!("openrpc.json");
const DISCOVER: &str = "rpc.discover";

/// Adds `rpc.discover`, with exactly the methods that `module` has.
///
/// # Errors
/// When a method of the module is not described.
pub(super) fn add(module: &mut RpcModule<()>) -> anyhow::Result<()> {
    let mut served: BTreeSet<&str> = module.method_names().collect();
    served.insert(DISCOVER);
    let mut document: Value = serde_json::from_str(DOCUMENT).context("OpenRPC document")?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let methods = document["methods"].as_array_mut().context("OpenRPC document: no methods")?;
    methods.retain(|method| method["name"].as_str().is_some_and(|name| served.contains(name)));
    for method in methods.iter() {
        served.remove(method["name"].as_str().unwrap_or_default());
    }
    ensure!(served.is_empty(), "methods without description: {served:?}");
    module.register_method(DISCOVER, move |_, _, _| document.clone())?;
    Ok(())
}
