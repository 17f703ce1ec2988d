//! A Bitcoin whose blocks the test makes, a node on it, and parties that propose and prove by hand.

use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::{
    OutPoint, ScriptBuf, Transaction,
    hashes::{Hash, sha256},
    key::Keypair,
    secp256k1::SecretKey,
};
use kedge::{
    dev::dishonest::Lie,
    engine::{Engine, EngineOptions, open_store},
    follow::follow_to_tip,
    keys::keypair,
    l1::{Bitcoin, Embedded, Records},
    proposer::{Proposer, post},
    publisher::{FeePolicy, Part, Publisher},
    signer::{Peer, Signer},
    wallet::{Wallet, WalletKeys},
};
use kedge_bridge::{
    assertion::AssertionBody,
    bond::Bond,
    envelope::{Kind, split},
};
use kedge_fraud_proof::{AssertionNode, OwnChain as _};
use kedge_genesis::{L1Height, L1Ref, Network, Params, params::dev_secrets};
use kedge_store::{BondEnd, BondRows, OwnClaims};
use std::sync::Arc;

/// Somebody with a key and a wallet.
pub(crate) struct Party {
    pub(crate) key: Keypair,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) proposer: Proposer,
}

pub(crate) struct World {
    pub(crate) params: &'static Params,
    pub(crate) chain: Arc<Embedded>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) parties: Vec<Party>,
    pub(crate) signers: Vec<Arc<Signer>>,
    _dir: tempfile::TempDir,
}

pub(crate) fn secret(name: usize) -> SecretKey {
    let hash = sha256::Hash::hash(format!("party {name}").as_bytes());
    SecretKey::from_slice(hash.as_byte_array()).expect("a hash is a key")
}

/// Where blocks pay that nobody in the test owns.
pub(crate) fn nobody() -> ScriptBuf {
    ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").expect("valid")
}

impl World {
    /// A chain on which each party has coins.
    pub(crate) async fn new(parties: usize) -> Result<Self> {
        Self::with(parties, *Network::Dev.params()).await
    }

    pub(crate) async fn with(parties: usize, params: Params) -> Result<Self> {
        let params: &'static Params = Box::leak(Box::new(params));
        let dir = tempfile::tempdir()?;
        let chain = Embedded::open(&dir.path().join("bitcoin"))?;
        let seed = |name| WalletKeys::from_seed(params.bitcoin, &secret(name).secret_bytes());
        for name in 0..parties {
            let address = seed(name).first_address(params.bitcoin)?;
            chain.mine(1, &address.script_pubkey())?;
        }
        chain.mine(100, &nobody())?;
        let store = open_store(dir.path().join("store"), params)?;
        let engine = Arc::new(Engine::open(store.clone(), params, EngineOptions::default())?);
        follow_to_tip(&*chain, &engine).await?;
        let bitcoin: Arc<dyn Bitcoin> = chain.clone();
        let mut all = Vec::new();
        for name in 0..parties {
            let (records, key): (Arc<dyn Records>, _) = (store.clone(), keypair(&secret(name)));
            let label = name.to_string();
            let birthday = L1Height(0);
            let wallet = Arc::new(Wallet::open(
                records.clone(),
                &label,
                &seed(name),
                params.bitcoin,
                birthday,
            )?);
            let publisher = Arc::new(Publisher::open(
                &label,
                records,
                wallet.clone(),
                bitcoin.clone(),
                key,
                FeePolicy::default(),
                params.finality_depth,
            )?);
            let proposer = Proposer::new(
                params,
                engine.clone(),
                bitcoin.clone(),
                publisher.clone(),
                wallet.clone(),
                key,
                1,
            )?;
            all.push(Party { key, wallet, publisher, proposer });
        }
        let signers = dev_secrets::SIGNERS
            .iter()
            .map(|secret| {
                let key = keypair(&SecretKey::from_slice(secret)?);
                Ok(Arc::new(Signer::new(params, key, engine.clone(), bitcoin.clone())?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { params, chain, engine, parties: all, signers, _dir: dir })
    }

    /// One block of what waits.
    pub(crate) async fn mine(&self) -> Result<L1Height> {
        self.chain.mine(1, &nobody())?;
        Ok(follow_to_tip(&*self.chain, &self.engine).await?.height)
    }

    /// One block without transactions.
    pub(crate) async fn mine_empty(&self) -> Result<L1Height> {
        self.chain.mine_on(self.chain.tip().1, 1, &nobody())?;
        Ok(follow_to_tip(&*self.chain, &self.engine).await?.height)
    }

    pub(crate) async fn mine_to(&self, height: L1Height) -> Result<()> {
        while self.mine().await? < height {}
        Ok(())
    }

    pub(crate) fn nodes(&self) -> Result<Vec<AssertionNode>> {
        Ok(self.engine.tracker()?.nodes().to_vec())
    }

    pub(crate) fn node(&self, id: B256) -> Result<AssertionNode> {
        self.engine.tracker()?.get(&id).cloned().context("the assertion does not count")
    }

    /// What the party's proposer posts now, in the next block.
    pub(crate) async fn propose(&self, party: usize) -> Result<AssertionNode> {
        let before = self.nodes()?;
        self.parties[party].proposer.step().await?.context("nothing is due")?;
        self.only_new(&before).await
    }

    /// The one assertion that the next block adds.
    pub(crate) async fn only_new(&self, before: &[AssertionNode]) -> Result<AssertionNode> {
        self.mine().await?;
        let mut new = self.nodes()?;
        new.retain(|node| before.iter().all(|other| other.id != node.id));
        ensure!(new.len() == 1, "{} new assertions", new.len());
        new.pop().context("one")
    }

    pub(crate) async fn post(&self, party: usize, body: &AssertionBody) -> Result<()> {
        let publisher = &self.parties[party].publisher;
        publisher.tick().await?;
        let bond = Bond::of(self.params, publisher.key()).context("signers")?;
        post(self.params, publisher, &bond, body).await?;
        Ok(())
    }

    /// A wrong assertion of this party, in the next block.
    pub(crate) async fn lie(&self, party: usize) -> Result<AssertionNode> {
        let reader = self.engine.store().reader();
        let lie = Lie::OutputRoot.assertion(self.params, &reader, 1)?;
        drop(reader);
        let before = self.nodes()?;
        self.post(party, &lie.context("nothing to lie about")?.0).await?;
        let node = self.only_new(&before).await?;
        ensure!(!node.agrees, "the lie is true");
        Ok(node)
    }

    /// An assertion about one L1 block more that continues this one with the truth, in the next block.
    pub(crate) async fn continue_wrong(
        &self,
        party: usize,
        parent: &AssertionNode,
    ) -> Result<AssertionNode> {
        let reader = self.engine.store().reader();
        let height = parent.l1.height.next();
        let own = OwnClaims(&reader).own_block(height)?;
        let own = own.context("the chain is too short")?;
        drop(reader);
        let body = AssertionBody {
            parent: parent.id,
            params_hash: self.params.hash(),
            l1: L1Ref { height, hash: own.hash },
            claims: own.claims,
        };
        let before = self.nodes()?;
        self.post(party, &body).await?;
        self.only_new(&before).await
    }

    /// This party's proof rejects an assertion.
    pub(crate) async fn prove(&self, party: usize, id: B256) -> Result<()> {
        let proof = self.engine.build_proof(id)?.context("it is right")?.encode();
        let (network, params) = (self.params.chain_id, self.params);
        let chunks = split(Kind::Proof, network, 0, B256::ZERO, &proof, params)?;
        let publisher = &self.parties[party].publisher;
        publisher.tick().await?;
        publisher.publish(Kind::Proof, chunks.into_iter().map(Part::from).collect()).await?;
        self.mine().await?;
        publisher.tick().await?;
        self.mine().await?;
        ensure!(self.node(id)?.is_rejected(), "the proof has no effect");
        Ok(())
    }

    /// Every signer takes its step at this block; whose turn it is acts. Answers the transactions.
    pub(crate) async fn sign(&self) -> Result<Vec<Transaction>> {
        let mut sent = Vec::new();
        for signer in &self.signers {
            let others = self.signers.iter().filter(|other| other.place() != signer.place());
            let peers: Vec<_> = others.cloned().map(Peer::Local).collect();
            for txid in signer.step(&peers).await? {
                let entry = self.chain.pool_entry(&txid).context("not in the mempool")?;
                sent.push(Transaction::clone(&entry.tx));
            }
        }
        Ok(sent)
    }

    pub(crate) fn end_of(&self, bond: &OutPoint) -> Result<Option<BondEnd>> {
        Ok(self.engine.store().reader().bond_spend(bond)?.map(|spend| spend.end))
    }

    /// Takes the proposer's step and a block until its bond is spent, up to this height.
    pub(crate) async fn returned_by(
        &self,
        party: usize,
        bond: &OutPoint,
        last: L1Height,
    ) -> Result<L1Height> {
        loop {
            self.parties[party].proposer.step().await?;
            let height = self.mine().await?;
            match self.end_of(bond)? {
                Some(end) => {
                    ensure!(end == BondEnd::Returned, "{end:?}");
                    return Ok(height);
                }
                None => ensure!(height < last, "not returned by {last}"),
            }
        }
    }
}
