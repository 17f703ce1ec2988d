//! States as large as one likes, of which only the touched paths exist.
//!
//! A trie of [`Shape`] has all sixteen children in every branch of its top levels, as one of 16^levels
//! random keys has. Where no key of interest lies below a child, the child is a made-up hash that nobody
//! knows a preimage of; an execution that strays there fails. So what an execution reads, and what a proof
//! of it holds, is byte for byte as large as on the whole state, without there being one.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use kedge_genesis::{GenesisAccount, Params, predeploys};
use kedge_vm::trie::{account_key, prove_account, slot_key};
use kedge_vm::{Header, MemoryDb, Nibbles, StateSource, TrieNodes, WitnessError, genesis_block};
use std::collections::BTreeMap;

/// How a trie looks from its root down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// Levels of branches with sixteen children.
    pub(crate) full: usize,
    /// Levels of branches with two children below them on each path: what somebody gets who grinds keys
    /// that begin like another.
    pub(crate) thin: usize,
    /// Whether the other child of the last branch of two is a full branch that the state holds, so that
    /// removing a key loads it.
    pub(crate) neighbour: bool,
}

/// A state by hash, and the header of the block after which it is.
#[derive(Clone, Debug)]
pub(crate) struct BigState {
    nodes: BTreeMap<B256, Bytes>,
    codes: BTreeMap<B256, Bytes>,
    pub(crate) header: Header,
}

struct Leaf {
    key: Nibbles,
    /// None for a key that is not there, though its path is.
    value: Option<Vec<u8>>,
}

/// Accounts that execution touches though they are not there at first: the callers of system calls
/// (EIP-4788) and of deposits.
const TOUCHED: [Address; 3] =
    [alloy_eips::eip4788::SYSTEM_ADDRESS, predeploys::DEPOSITOR, predeploys::BRIDGE_DEPOSITOR];

impl BigState {
    /// The state of these accounts after block 0, in an account trie of one shape; the storage of those in
    /// `storages` in tries of theirs.
    pub(crate) fn new(
        params: &Params,
        accounts: &[GenesisAccount],
        shape: Shape,
        storages: &[(Address, Shape)],
    ) -> Self {
        let genesis = genesis_block(params, accounts).unwrap();
        let mut db = MemoryDb::new(&genesis);
        let nodes = db.nodes.values().map(|node| (keccak256(node), node.clone())).collect();
        let mut state = Self { nodes, codes: db.codes.clone(), header: genesis.header.clone() };
        let mut leaves = Vec::new();
        for account in accounts {
            let root = genesis.header.state_root;
            let proof = prove_account(root, account.address, &[], &mut db).unwrap();
            let mut value = proof.account;
            let (key, owner) = account_key(account.address);
            if let Some((_, shape)) = storages.iter().find(|(of, _)| *of == account.address) {
                let slots = account.storage.iter().filter(|(_, value)| !value.is_zero());
                let slots = slots
                    .map(|(slot, value)| Leaf {
                        key: slot_key(*slot),
                        value: Some(alloy_rlp::encode(value)),
                    })
                    .collect();
                value.storage_root = state.trie(owner, slots, *shape);
            }
            leaves.push(Leaf { key, value: Some(alloy_rlp::encode(value)) });
        }
        leaves.extend(TOUCHED.map(|address| Leaf { key: account_key(address).0, value: None }));
        state.header.state_root = state.trie(B256::ZERO, leaves, shape);
        state
    }

    /// Adds a trie of these leaves and gives its root.
    fn trie(&mut self, owner: B256, mut leaves: Vec<Leaf>, shape: Shape) -> B256 {
        leaves.sort_by_key(|leaf| leaf.key);
        if shape.full == 0 {
            leaves.retain(|leaf| leaf.value.is_some());
        }
        self.node(owner, &leaves, 0, shape).expect("a trie of something")
    }

    fn insert(&mut self, rlp: Vec<u8>) -> B256 {
        let hash = keccak256(&rlp);
        assert!(rlp.len() >= 32, "a node that its parent would embed");
        self.nodes.insert(hash, rlp.into());
        hash
    }

    /// The node over leaves that share their first `depth` nibbles; none if none of them is there.
    fn node(&mut self, owner: B256, leaves: &[Leaf], depth: usize, shape: Shape) -> Option<B256> {
        let path = leaves[0].key.slice(..depth);
        let thin = shape.full + shape.thin;
        if depth >= shape.full && leaves.iter().any(|leaf| leaf.value.is_none()) {
            assert_eq!(leaves.len(), 1, "a key that is not there is alone in its place");
            return None;
        }
        if leaves.len() == 1 && depth >= thin {
            let rest = leaves[0].key.slice(depth..);
            let key = alloy_trie::nodes::encode_path_leaf(&rest, true);
            let value = leaves[0].value.as_deref()?;
            return Some(self.insert(list(&[string(&key), string(value)])));
        }
        if depth >= thin {
            let last = leaves[leaves.len() - 1].key;
            let common = leaves[0].key.common_prefix_length(&last) - depth;
            if common > 0 {
                let child = self.node(owner, leaves, depth + common, shape)?;
                let stretch = leaves[0].key.slice(depth..depth + common);
                let key = alloy_trie::nodes::encode_path_leaf(&stretch, false);
                return Some(self.insert(list(&[string(&key), string(child.as_slice())])));
            }
        }
        let made_up = |nibble: u8| {
            let place = [owner.as_slice(), &path.iter().collect::<Vec<u8>>(), &[nibble]].concat();
            keccak256(place)
        };
        let mut children: [Option<B256>; 16] = [None; 16];
        for nibble in 0..16u8 {
            let begin = leaves.partition_point(|leaf| leaf.key.get(depth) < Some(nibble));
            let end = leaves.partition_point(|leaf| leaf.key.get(depth) <= Some(nibble));
            let below = &leaves[begin..end];
            children[usize::from(nibble)] = if !below.is_empty() {
                self.node(owner, below, depth + 1, shape)
            } else if depth < shape.full {
                Some(made_up(nibble))
            } else {
                None
            };
        }
        if children.iter().flatten().count() == 1 {
            let nibble = leaves[0].key.get(depth).unwrap() ^ 1;
            let hash = if shape.neighbour && depth + 1 == thin {
                let full =
                    (0..16).map(|n| Some(keccak256([made_up(nibble).as_slice(), &[n]].concat())));
                self.insert(branch(full))
            } else {
                made_up(nibble)
            };
            children[usize::from(nibble)] = Some(hash);
        }
        Some(self.insert(branch(children.into_iter())))
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    alloy_rlp::encode(bytes)
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    let mut rlp = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut rlp);
    rlp.extend(payload);
    rlp
}

fn branch(children: impl Iterator<Item = Option<B256>>) -> Vec<u8> {
    let mut items: Vec<Vec<u8>> = children
        .map(|child| child.map_or_else(|| vec![0x80], |hash| string(hash.as_slice())))
        .collect();
    items.push(vec![0x80]);
    list(&items)
}

impl TrieNodes for &BigState {
    type Error = WitnessError;

    fn trie_node(
        &mut self,
        _: Option<B256>,
        _: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, WitnessError> {
        self.nodes.get(&hash).cloned().ok_or(WitnessError::MissingNode(hash))
    }
}

impl StateSource for &BigState {
    fn code(&mut self, hash: B256) -> Result<Bytes, WitnessError> {
        self.codes.get(&hash).cloned().ok_or(WitnessError::MissingCode(hash))
    }

    fn header(&mut self, number: u64) -> Result<Header, WitnessError> {
        Err(WitnessError::MissingHeader(number))
    }
}

/// An account of a state.
pub(crate) fn contract(
    address: Address,
    code: Vec<u8>,
    storage: Vec<(U256, U256)>,
) -> GenesisAccount {
    GenesisAccount { address, nonce: 1, balance: U256::from(1), code: code.into(), storage }
}

/// An account without code.
pub(crate) fn plain(address: Address, balance: U256) -> GenesisAccount {
    GenesisAccount { address, nonce: 0, balance, code: Bytes::new(), storage: vec![] }
}

#[test]
fn a_state_of_no_full_levels_is_the_ordinary_one() {
    let params = crate::world::params();
    let mut accounts = kedge_genesis::alloc(&params, &[0x51]);
    let slots = (1..200u64).map(|n| (U256::from(n), U256::MAX)).collect();
    let at = Address::repeat_byte(9);
    accounts.push(contract(at, vec![0], slots));
    let genesis = genesis_block(&params, &accounts).unwrap();
    let shape = Shape::default();
    let state = BigState::new(&params, &accounts, shape, &[(at, shape)]);
    assert_eq!(state.header, genesis.header);
}
