//! A Bitcoin Core node over its JSON-RPC.

use super::{Bitcoin, Broadcast, ChainInfo, L1Error, Unspent};
use crate::keys::read_small;
use async_trait::async_trait;
use base64::Engine as _;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{
    Amount, Block, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid, consensus,
};
use kedge_genesis::L1Height;
use parking_lot::RwLock;
use reqwest::{StatusCode, Url, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How often the tip is asked for.
const POLL: Duration = Duration::from_millis(250);
/// An answer later than this is none. A block of 4 MB on a busy disk takes a few seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bitcoin Core closes idle connections after 30 s; ours are gone before.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Requests at a time: Bitcoin Core has 4 to 16 threads for them and a queue of 64.
const CONCURRENCY: usize = 8;

/// Bitcoin Core's error codes that mean something to us.
mod code {
    pub(super) const MISC: i64 = -1;
    pub(super) const NOT_FOUND: i64 = -5;
    pub(super) const INVALID_PARAMETER: i64 = -8;
    pub(super) const VERIFY: i64 = -25;
    pub(super) const REJECTED: i64 = -26;
    pub(super) const ALREADY_CONFIRMED: i64 = -27;
    pub(super) const WARMUP: i64 = -28;
}

/// How to prove to a node that we may ask.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all; what the embedded chain's server wants.
    None,
    /// The file that `bitcoind` writes at every start; it is read again when the node refuses it.
    Cookie(PathBuf),
    /// `rpcauth` or `rpcuser` and `rpcpassword`.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
        }
    }
}

impl Auth {
    /// What the command line says: a cookie file, or a user with the file that holds its password, or
    /// nothing.
    ///
    /// # Errors
    /// [`L1Error::PasswordFile`] when the file cannot be read or is missing for a user.
    pub fn from_files(
        cookie: Option<&Path>,
        user: Option<&str>,
        password_file: Option<&Path>,
    ) -> Result<Self, L1Error> {
        match (cookie, user, password_file) {
            (Some(path), _, _) => Ok(Self::Cookie(path.to_owned())),
            (None, Some(user), Some(path)) => {
                let text = read_small(path).map_err(|error| L1Error::PasswordFile {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                let password = text.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Self::Password { user: user.to_owned(), password })
            }
            (None, None, None) => Ok(Self::None),
            (None, _, path) => Err(L1Error::PasswordFile {
                path: path.map(Path::to_owned).unwrap_or_default(),
                reason: "--l1-user and --l1-password-file belong together".into(),
            }),
        }
    }
}

/// A client of one node. It keeps connections open and limits how many requests run at a time.
pub struct RpcClient {
    url: Url,
    auth: Auth,
    header: RwLock<Option<String>>,
    http: reqwest::Client,
    slots: Semaphore,
    next_id: AtomicU64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct BlockchainInfo {
    chain: String,
    blocks: u32,
    headers: u32,
    bestblockhash: BlockHash,
    initialblockdownload: bool,
    pruneheight: Option<u32>,
}

#[derive(Deserialize)]
struct TxOutInfo {
    confirmations: u32,
    value: f64,
    #[serde(rename = "scriptPubKey")]
    script: ScriptInfo,
    coinbase: bool,
}

#[derive(Deserialize)]
struct ScriptInfo {
    hex: String,
}

#[derive(Deserialize)]
struct FeeEstimate {
    feerate: Option<f64>,
}

impl RpcClient {
    /// A client of the node at `url`, such as `http://127.0.0.1:8332`; credentials in the address count
    /// when `auth` is none. Nothing is asked yet.
    ///
    /// # Errors
    /// [`L1Error::BadUrl`], or [`L1Error::CookieFile`] when there is no cookie at `auth`'s path.
    pub fn new(url: &str, auth: Auth) -> Result<Self, L1Error> {
        let bad = |reason: String| L1Error::BadUrl { url: url.into(), reason };
        let mut parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(bad("only http is supported; use a tunnel for other machines".into()));
        }
        let auth = match (auth, parsed.password()) {
            (Auth::None, Some(password)) => {
                Auth::Password { user: parsed.username().into(), password: password.into() }
            }
            (auth, _) => auth,
        };
        // Neither fails on an http address; the credentials must not reach any message.
        let _ = parsed.set_username("");
        let _ = parsed.set_password(None);
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .no_proxy()
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let client = Self {
            url: parsed,
            auth,
            header: RwLock::new(None),
            http,
            slots: Semaphore::new(CONCURRENCY),
            next_id: AtomicU64::new(1),
        };
        client.authorise()?;
        Ok(client)
    }

    /// The node's address, without credentials.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Reads the credentials. True when they are others than before.
    fn authorise(&self) -> Result<bool, L1Error> {
        let pair = match &self.auth {
            Auth::None => return Ok(false),
            Auth::Password { user, password } => format!("{user}:{password}"),
            Auth::Cookie(path) => {
                let bad = |reason| L1Error::CookieFile { path: path.clone(), reason };
                let cookie = read_small(path).map_err(|e| bad(e.to_string()))?;
                let cookie = cookie.trim();
                if !cookie.contains(':') || cookie.lines().count() != 1 {
                    return Err(bad("it is not one line of user:password".into()));
                }
                cookie.to_owned()
            }
        };
        let fresh = Some(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair)));
        let mut header = self.header.write();
        let changed = *header != fresh;
        *header = fresh;
        Ok(changed)
    }

    fn unreachable(&self, error: &reqwest::Error) -> L1Error {
        let mut reason =
            if error.is_timeout() { "no answer in time".into() } else { String::new() };
        // The innermost cause says it: connection refused, no route, …
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        if reason.is_empty() {
            reason = cause.to_string();
        }
        L1Error::Unreachable { url: self.url().into(), reason }
    }

    async fn post(&self, body: &Value) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
        let authorization = self.header.read().clone();
        let mut request = self.http.post(self.url.clone()).json(body);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.bytes().await?.to_vec()))
    }

    /// Calls a method and reads its result.
    ///
    /// # Errors
    /// When the node does not answer, or answers an error.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, L1Error> {
        let _slot = self.slots.acquire().await.map_err(|_| L1Error::Unreachable {
            url: self.url().into(),
            reason: "this client is closed".into(),
        })?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "1.0", "id": id, "method": method, "params": params });
        let mut answer = self.post(&body).await;
        // A connection that the node closed as we wrote to it; every call here may be repeated.
        if answer.as_ref().is_err_and(|error| !error.is_timeout() && !error.is_connect()) {
            answer = self.post(&body).await;
        }
        if answer.as_ref().is_ok_and(|(status, _)| *status == StatusCode::UNAUTHORIZED)
            && self.authorise()?
        {
            answer = self.post(&body).await;
        }
        let (status, bytes) = answer.map_err(|error| self.unreachable(&error))?;
        let url = || self.url().to_owned();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(L1Error::Unauthorized { url: url(), status: status.as_u16() });
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let reason = String::from_utf8_lossy(&bytes).trim().to_owned();
                return Err(L1Error::Unreachable { url: url(), reason });
            }
            _ => {}
        }
        let malformed = |reason: String| L1Error::Malformed { method, reason };
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(format!("HTTP {status}, {error}")))?;
        if let Some(RpcError { code, message }) = answer.error {
            return Err(match code {
                code::WARMUP => L1Error::WarmingUp { message },
                _ => L1Error::Rpc { method, code, message },
            });
        }
        serde_json::from_value(answer.result).map_err(|error| malformed(error.to_string()))
    }

    async fn decode<T: consensus::Decodable>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, L1Error> {
        let hex: String = self.call(method, params).await?;
        deserialize_hex(&hex)
            .map_err(|error| L1Error::Malformed { method, reason: error.to_string() })
    }
}

/// What a block method's error means.
fn block_error(error: L1Error, hash: &BlockHash) -> L1Error {
    match error {
        L1Error::Rpc { code: code::NOT_FOUND, .. } => L1Error::BlockNotFound { hash: *hash },
        L1Error::Rpc { code: code::MISC, message, .. } if message.contains("pruned") => {
            L1Error::BlockPruned { hash: *hash }
        }
        // A header without its block yet.
        L1Error::Rpc { code: code::MISC, message, .. } if message.contains("not ") => {
            L1Error::BlockNotFound { hash: *hash }
        }
        other => other,
    }
}

#[async_trait]
impl Bitcoin for RpcClient {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        let info: BlockchainInfo = self.call("getblockchaininfo", json!([])).await?;
        Ok(ChainInfo {
            chain: info.chain,
            height: L1Height(info.blocks),
            headers: L1Height(info.headers),
            best: info.bestblockhash,
            ibd: info.initialblockdownload,
            pruned_below: info.pruneheight.filter(|height| *height > 0).map(L1Height),
        })
    }

    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        match self.call("getblockhash", json!([height.0])).await {
            Ok(hash) => Ok(Some(hash)),
            Err(L1Error::Rpc { code: code::INVALID_PARAMETER, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.decode("getblock", json!([hash, 0])).await.map_err(|error| block_error(error, hash))
    }

    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.decode("getblockheader", json!([hash, false]))
            .await
            .map_err(|error| block_error(error, hash))
    }

    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        // What we pay is limited where the transaction is made, so the node sets no limit: 0.
        let params = json!([consensus::encode::serialize_hex(tx), 0]);
        match self.call::<Txid>("sendrawtransaction", params).await {
            Ok(_) => Ok(Broadcast::Accepted),
            Err(L1Error::Rpc { code: code::ALREADY_CONFIRMED, .. }) => Ok(Broadcast::AlreadyKnown),
            Err(L1Error::Rpc { code: code::REJECTED, message, .. })
                if message.starts_with("txn-already-") =>
            {
                Ok(Broadcast::AlreadyKnown)
            }
            Err(L1Error::Rpc { code: code @ (code::VERIFY | code::REJECTED), message, .. }) => {
                Ok(Broadcast::Rejected { code, reason: message })
            }
            Err(error) => Err(error),
        }
    }

    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        let method = "gettxout";
        let params = json!([outpoint.txid, outpoint.vout, mempool]);
        let Some(info) = self.call::<Option<TxOutInfo>>(method, params).await? else {
            return Ok(None);
        };
        let malformed = |reason: String| L1Error::Malformed { method, reason };
        let value = Amount::from_btc(info.value).map_err(|e| malformed(e.to_string()))?;
        let script_pubkey =
            ScriptBuf::from_hex(&info.script.hex).map_err(|e| malformed(e.to_string()))?;
        Ok(Some(Unspent {
            output: TxOut { value, script_pubkey },
            confirmations: info.confirmations,
            coinbase: info.coinbase,
        }))
    }

    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, L1Error> {
        let method = "estimatesmartfee";
        let estimate: FeeEstimate = self.call(method, json!([target_blocks.max(1)])).await?;
        let Some(rate) = estimate.feerate.filter(|rate| *rate > 0.0) else { return Ok(None) };
        let per_kvb = Amount::from_btc(rate)
            .map_err(|error| L1Error::Malformed { method, reason: error.to_string() })?;
        Ok(Some(FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4))))
    }

    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error> {
        match self.call::<Value>("getmempoolentry", json!([txid])).await {
            Ok(_) => Ok(true),
            Err(L1Error::Rpc { code: code::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
        loop {
            let best: BlockHash = self.call("getbestblockhash", json!([])).await?;
            if best != known {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
