//! Witnesses: everything that an execution reads, and execution on nothing but that.

use crate::{
    EvmConfig, ExecuteError, ExecutedBlock, Header, Payload, TrieNodes,
    exec::execute,
    trie::{Nibbles, Trie, TrieAccount, TrieError, account_key, read_account, read_slot, slot_key},
};
use alloc::{collections::BTreeMap, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header as RlpHeader};
use core::error::Error;
use revm::{
    database_interface::DBErrorMarker,
    state::{AccountInfo, Bytecode},
};

/// A source of everything that a [`TrieDb`] reads: trie nodes, codes, ancestor headers.
pub trait StateSource: TrieNodes<Error: Error + Send + Sync + 'static> {
    /// The code with that hash.
    ///
    /// # Errors
    /// When it cannot be given.
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error>;

    /// The header of an ancestor by number. Asked for only where [`EvmConfig::history_from_state`] is
    /// off.
    ///
    /// # Errors
    /// When it cannot be given.
    fn header(&mut self, number: u64) -> Result<Header, Self::Error>;
}

/// What executions read: preimages by their keccak-256, and ancestor headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// RLP of trie nodes by hash.
    pub nodes: BTreeMap<B256, Bytes>,
    /// Codes by hash.
    pub codes: BTreeMap<B256, Bytes>,
    /// Ancestor headers that `BLOCKHASH` needed; none on Kedge's networks.
    pub headers: Vec<Header>,
}

/// Why a witness does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// A trie node is not in the witness.
    #[error("trie node {0} is not in the witness")]
    MissingNode(B256),
    /// A code is not in the witness.
    #[error("code {0} is not in the witness")]
    MissingCode(B256),
    /// An ancestor's header is not in the witness.
    #[error("header of block {0} is not in the witness")]
    MissingHeader(u64),
}

/// Why a [`TrieDb`] cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TrieDbError<E: Error> {
    /// Its source failed.
    #[error(transparent)]
    Source(E),
    /// A node, a code or a header is not what its reference says.
    #[error("what the source gave is not what its hash says")]
    Corrupt,
}

impl<E: Error + Send + Sync + 'static> DBErrorMarker for TrieDbError<E> {}

/// The state after a block, read by walking its tries from the root: every answer is proven by the
/// root. Executing on it appends to it, so a run of blocks needs only what the source had before the
/// first of them.
#[derive(Debug)]
pub struct TrieDb<N> {
    nodes: Layered<N>,
    /// What was read so far of the head's tries.
    accounts: Trie,
    storages: BTreeMap<B256, Trie>,
    head: Header,
    head_hash: B256,
}

/// A source with what executed blocks added to it.
#[derive(Debug)]
struct Layered<N> {
    source: N,
    /// Nodes that are known to have these hashes: the source's, and those of executed blocks.
    nodes: BTreeMap<B256, Bytes>,
    codes: BTreeMap<B256, Bytes>,
    headers: BTreeMap<u64, Header>,
}

impl<N: StateSource> TrieNodes for Layered<N> {
    type Error = TrieDbError<N::Error>;
    const CHECKED: bool = true;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        if let Some(node) = self.nodes.get(&hash) {
            return Ok(node.clone());
        }
        // Reading and changing the tries, in every block of a run, asks for a node again and again; it is
        // hashed once.
        let node = self.source.trie_node(owner, path, hash).map_err(TrieDbError::Source)?;
        if !N::CHECKED && keccak256(&node) != hash {
            return Err(TrieDbError::Corrupt);
        }
        self.nodes.insert(hash, node.clone());
        Ok(node)
    }
}

impl<N: StateSource> TrieDb<N> {
    /// The state after the block with that header.
    pub fn new(source: N, head: Header) -> Self {
        let head_hash = head.hash_slow();
        let nodes = Layered {
            source,
            nodes: BTreeMap::new(),
            codes: BTreeMap::new(),
            headers: BTreeMap::new(),
        };
        let accounts = Trie::of::<Layered<N>>(head.state_root);
        Self { nodes, accounts, storages: BTreeMap::new(), head, head_hash }
    }

    /// The header of the block whose state this is, and its hash.
    pub fn head(&self) -> (&Header, B256) {
        (&self.head, self.head_hash)
    }

    /// Executes the next block and moves on to the state after it.
    ///
    /// # Errors
    /// [`execute`]'s; the head stays where it was.
    pub fn execute(
        &mut self,
        config: &EvmConfig,
        payload: &Payload,
    ) -> Result<ExecutedBlock, ExecuteError<TrieDbError<N::Error>>> {
        let (head, head_hash) = (self.head.clone(), self.head_hash);
        let block = execute(config, &head, head_hash, payload, self)?;
        self.advance(&block);
        Ok(block)
    }

    /// Moves on to the state after `block`, which was executed on this one.
    pub fn advance(&mut self, block: &ExecutedBlock) {
        for node in block.trie.nodes.values().flatten() {
            self.nodes.nodes.insert(keccak256(node), node.clone());
        }
        for (hash, code) in &block.state.codes {
            self.nodes.codes.insert(*hash, code.clone());
        }
        let before = core::mem::replace(&mut self.head, block.header.clone());
        self.nodes.headers.insert(before.number, before);
        self.head_hash = block.hash;
        self.accounts = Trie::of::<Layered<N>>(self.head.state_root);
        self.storages.clear();
    }

    /// What it reads from.
    pub fn into_source(self) -> N {
        self.nodes.source
    }

    fn account(
        &mut self,
        address: Address,
    ) -> Result<(B256, Option<TrieAccount>), TrieDbError<N::Error>> {
        let (key, owner) = account_key(address);
        let account = read_account(&mut self.accounts, &key, &mut self.nodes).map_err(flat)?;
        Ok((owner, account))
    }
}

fn flat<E: Error>(error: TrieError<TrieDbError<E>>) -> TrieDbError<E> {
    match error {
        TrieError::Load(error) => error,
        TrieError::Corrupt(_) => TrieDbError::Corrupt,
    }
}

impl<N: StateSource> TrieNodes for TrieDb<N> {
    type Error = TrieDbError<N::Error>;
    const CHECKED: bool = true;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.nodes.trie_node(owner, path, hash)
    }
}

impl<N: StateSource> revm::Database for TrieDb<N> {
    type Error = TrieDbError<N::Error>;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let (_, account) = self.account(address)?;
        Ok(account.map(|account| {
            crate::AccountInfo {
                nonce: account.nonce,
                balance: account.balance,
                code_hash: account.code_hash,
            }
            .into()
        }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        let code = match self.nodes.codes.get(&code_hash) {
            Some(code) => code.clone(),
            None => {
                let code = self.nodes.source.code(code_hash).map_err(TrieDbError::Source)?;
                if keccak256(&code) != code_hash {
                    return Err(TrieDbError::Corrupt);
                }
                code
            }
        };
        Bytecode::new_raw_checked(code).map_err(|_| TrieDbError::Corrupt)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        let (owner, account) = self.account(address)?;
        let Some(account) = account else { return Ok(U256::ZERO) };
        let storage = self
            .storages
            .entry(owner)
            .or_insert_with(|| Trie::of::<Layered<N>>(account.storage_root));
        read_slot(storage, owner, &slot_key(slot), &mut self.nodes).map_err(flat)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        if number == self.head.number {
            return Ok(self.head_hash);
        }
        // Walks back from the head, each header proven by the hash that its child holds.
        let (mut child, mut hash) = (self.head.number, self.head.parent_hash);
        while child > number.saturating_add(1) {
            child = child.saturating_sub(1);
            let header = match self.nodes.headers.get(&child) {
                Some(header) => header.clone(),
                None => self.nodes.source.header(child).map_err(TrieDbError::Source)?,
            };
            if header.hash_slow() != hash {
                return Err(TrieDbError::Corrupt);
            }
            hash = header.parent_hash;
        }
        Ok(hash)
    }
}

/// A source that remembers everything it gave.
#[derive(Debug)]
pub struct Recorder<N> {
    source: N,
    witness: Witness,
}

impl<N: StateSource> Recorder<N> {
    /// Records what is read from `source`.
    pub fn new(source: N) -> Self {
        Self { source, witness: Witness::default() }
    }

    /// What was read.
    pub fn into_witness(self) -> Witness {
        self.witness
    }
}

impl<N: StateSource> TrieNodes for Recorder<N> {
    type Error = N::Error;
    const CHECKED: bool = N::CHECKED;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        if let Some(node) = self.witness.nodes.get(&hash) {
            return Ok(node.clone());
        }
        let node = self.source.trie_node(owner, path, hash)?;
        self.witness.nodes.insert(hash, node.clone());
        Ok(node)
    }
}

impl<N: StateSource> StateSource for Recorder<N> {
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error> {
        let code = self.source.code(hash)?;
        self.witness.codes.insert(hash, code.clone());
        Ok(code)
    }

    fn header(&mut self, number: u64) -> Result<Header, Self::Error> {
        let header = self.source.header(number)?;
        if self.witness.headers.iter().all(|known| known.number != number) {
            self.witness.headers.push(header.clone());
        }
        Ok(header)
    }
}

impl TrieNodes for &Witness {
    type Error = WitnessError;

    fn trie_node(
        &mut self,
        _owner: Option<B256>,
        _path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.nodes.get(&hash).cloned().ok_or(WitnessError::MissingNode(hash))
    }
}

impl StateSource for &Witness {
    fn code(&mut self, hash: B256) -> Result<Bytes, Self::Error> {
        self.codes.get(&hash).cloned().ok_or(WitnessError::MissingCode(hash))
    }

    fn header(&mut self, number: u64) -> Result<Header, Self::Error> {
        let header = self.headers.iter().find(|header| header.number == number);
        header.cloned().ok_or(WitnessError::MissingHeader(number))
    }
}

/// `[[node, …], [code, …], [header, …]]`, nodes and codes ascending by hash.
impl Encodable for Witness {
    fn encode(&self, out: &mut dyn BufMut) {
        let nodes: Vec<&Bytes> = self.nodes.values().collect();
        let codes: Vec<&Bytes> = self.codes.values().collect();
        let payload_length =
            nodes.length().saturating_add(codes.length()).saturating_add(self.headers.length());
        RlpHeader { list: true, payload_length }.encode(out);
        nodes.encode(out);
        codes.encode(out);
        self.headers.encode(out);
    }
}

/// Hashes are not transmitted but taken from the bytes, so a decoded witness holds true preimages
/// whoever made it. One whose nodes or codes do not ascend is refused: a witness has one encoding.
impl Decodable for Witness {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut list = RlpHeader::decode_bytes(buf, true)?;
        let nodes = preimages(&mut list)?;
        let codes = preimages(&mut list)?;
        let headers = Vec::decode(&mut list)?;
        if !list.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        Ok(Self { nodes, codes, headers })
    }
}

fn preimages(buf: &mut &[u8]) -> alloy_rlp::Result<BTreeMap<B256, Bytes>> {
    let mut list = RlpHeader::decode_bytes(buf, true)?;
    let mut map = BTreeMap::new();
    while !list.is_empty() {
        let bytes = Bytes::decode(&mut list)?;
        let hash = keccak256(&bytes);
        if map.last_key_value().is_some_and(|(last, _)| *last >= hash) {
            return Err(alloy_rlp::Error::Custom("preimages do not ascend by hash"));
        }
        map.insert(hash, bytes);
    }
    Ok(map)
}

/// Executes `payload` on the state after `parent`, reading through the tries only, and records what it
/// read. For a run of blocks use a [`TrieDb`] over a [`Recorder`].
///
/// # Errors
/// [`execute`]'s.
pub fn record_witness<N: StateSource>(
    config: &EvmConfig,
    parent: &Header,
    payload: &Payload,
    source: N,
) -> Result<(ExecutedBlock, Witness), ExecuteError<TrieDbError<N::Error>>> {
    let mut db = TrieDb::new(Recorder::new(source), parent.clone());
    let block = db.execute(config, payload)?;
    Ok((block, db.into_source().into_witness()))
}

/// Executes `payload` on the state after `parent` with nothing but `witness`. An error of any kind
/// means that the witness does not fit. For a run of blocks use a [`TrieDb`] over `&witness`.
///
/// # Errors
/// [`execute`]'s.
pub fn execute_on_witness(
    config: &EvmConfig,
    parent: &Header,
    payload: &Payload,
    witness: &Witness,
) -> Result<ExecutedBlock, ExecuteError<TrieDbError<WitnessError>>> {
    TrieDb::new(witness, parent.clone()).execute(config, payload)
}
