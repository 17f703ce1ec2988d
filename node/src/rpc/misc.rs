//! `net_*` and `web3_*`.

use alloy_primitives::{B256, Bytes, keccak256};
use jsonrpsee::{core::RpcResult, proc_macros::rpc};

/// `net_*`.
#[rpc(server, namespace = "net")]
pub trait NetApi {
    /// The chain id, in decimal.
    #[method(name = "version")]
    fn version(&self) -> RpcResult<String>;

    /// True: the node listens for Bitcoin blocks, not for peers.
    #[method(name = "listening")]
    fn listening(&self) -> RpcResult<bool>;

    /// Zero: blocks come from Bitcoin.
    #[method(name = "peerCount")]
    fn peer_count(&self) -> RpcResult<alloy_primitives::U64>;
}

/// `web3_*`.
#[rpc(server, namespace = "web3")]
pub trait Web3Api {
    /// Name, version and platform of this program.
    #[method(name = "clientVersion")]
    fn client_version(&self) -> RpcResult<String>;

    /// keccak-256 of the bytes.
    #[method(name = "sha3")]
    fn sha3(&self, data: Bytes) -> RpcResult<B256>;
}

/// Implements both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Misc {
    pub(super) chain_id: u64,
}

impl NetApiServer for Misc {
    fn version(&self) -> RpcResult<String> {
        Ok(self.chain_id.to_string())
    }

    fn listening(&self) -> RpcResult<bool> {
        Ok(true)
    }

    fn peer_count(&self) -> RpcResult<alloy_primitives::U64> {
        Ok(alloy_primitives::U64::ZERO)
    }
}

impl Web3ApiServer for Misc {
    fn client_version(&self) -> RpcResult<String> {
        Ok(format!(
            "kedge/v{}/{}-{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        ))
    }

    fn sha3(&self, data: Bytes) -> RpcResult<B256> {
        Ok(keccak256(data))
    }
}
