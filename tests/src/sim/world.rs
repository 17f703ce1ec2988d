//! The world of one run: everybody, what they do, and what happens to them.

use super::checks::Checks;
use super::host::{Act, Host, Role};
use super::ledger::Ledger;
use super::liars::Liars;
use super::link::{Control, Fault, Link, Net, Trap};
use super::purse::Purse;
use super::start;
use super::story::Story;
use super::users::{GAS, User, Wish, fresh_address, fresh_script};
use crate::sim_bitcoin::SimBitcoin;
use alloy_primitives::Bytes;
use anyhow::{Context, Result, anyhow};
use bitcoin::{Amount, FeeRate, ScriptBuf, TxOut};
use kedge::clock::Clock;
use kedge::engine::Engine;
use kedge::mempool::PoolError;
use kedge::publisher::Part;
use kedge::signer::Peer;
use kedge_bridge::deposit::deposit_outputs;
use kedge_bridge::envelope::{Kind, split};
use kedge_bridge::forced::{encode, price_of};
use kedge_bridge::vault::vault_script;
use kedge_genesis::{L1Height, Params, Sats};
use kedge_store::L2Rows;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// The parties, in this order.
const PARTIES: [(&str, Role); 5] = [
    ("sequencer", Role::Sequencer),
    ("challenger", Role::Challenger),
    ("signer0", Role::Signer(0)),
    ("signer1", Role::Signer(1)),
    ("signer2", Role::Signer(2)),
];
const SEQUENCER: usize = 0;
/// Users with accounts on L2.
const USERS: u64 = 3;
/// The deepest reorganisation: one less than finality.
const MAX_REORG: u32 = 5;
/// Blocks between the ends of two reorganisations at least.
const REORG_PAUSE: u32 = 8;

/// Requests at which a process can end or that can be lost; the rest of them are `None`.
const ACTS: [Option<&str>; 6] =
    [Some("broadcast"), Some("broadcast"), Some("ask"), Some("tx_out"), Some("block"), None];

/// The world of one run.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) story: Story,
    pub(super) params: &'static Params,
    pub(super) bitcoin: Arc<SimBitcoin>,
    control: Arc<Control>,
    now: Arc<AtomicU64>,
    pub(super) hosts: Vec<Host>,
    /// Blocks mined since a party was last at Bitcoin's tip and did all that it does.
    idle: Vec<u32>,
    pub(super) users: Vec<User>,
    purse: Purse,
    liars: Liars,
    pub(super) ledger: Ledger,
    pub(super) checks: Checks,
    pub(super) wishes: Vec<Wish>,
    vault: ScriptBuf,
    /// The highest tip that there ever was.
    top: u32,
    /// Blocks since the last reorganisation.
    quiet: u32,
    /// Height of the block with the users' first deposits.
    funded: u32,
    fresh: u64,
    pub(super) dir: TempDir,
}

impl World {
    /// Everybody with empty stores.
    ///
    /// # Errors
    /// When this machine fails.
    pub(super) fn new(seed: u64, story: Story) -> Result<Self> {
        let params = start::params()?;
        let bitcoin = Arc::new(start::bitcoin()?);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("kedge-sim-").tempdir_in(parent)?;
        let control = Arc::new(Control::default());
        let now = Arc::new(AtomicU64::new(u64::from(params.l1_start_time)));
        let clock = {
            let now = now.clone();
            Clock::new(move || now.load(Ordering::Relaxed))
        };
        let mut hosts = Vec::new();
        for (name, role) in PARTIES {
            let link = Link::new(name, bitcoin.clone(), control.clone());
            let folder = dir.path().join(name);
            let mut host = Host::new(name, role, params, folder, link, clock.clone());
            host.open()?;
            hosts.push(host);
        }
        let vault = vault_script(params).context("the network has a vault")?;
        let top = bitcoin.tip().height.0;
        Ok(Self {
            rng: StdRng::seed_from_u64(seed),
            story,
            params,
            control,
            now,
            idle: vec![0; hosts.len()],
            hosts,
            users: (0..USERS).map(User::new).collect::<Result<_>>()?,
            purse: Purse::new("users", params, bitcoin.clone(), clock.clone())?,
            liars: Liars::new(params, &bitcoin, &clock)?,
            bitcoin,
            ledger: Ledger::new(params.l1_start.height, vault.clone()),
            checks: Checks::default(),
            wishes: Vec::new(),
            vault,
            top,
            quiet: REORG_PAUSE,
            funded: 0,
            fresh: 0,
            dir,
        })
    }

    pub(super) fn tip(&self) -> L1Height {
        self.bitcoin.tip().height
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// The node of somebody whose process runs.
    fn any_engine(&mut self) -> Option<Arc<Engine>> {
        let engines: Vec<_> =
            self.hosts.iter().filter_map(|host| Some(host.live.as_ref()?.engine.clone())).collect();
        engines.choose(&mut self.rng).cloned()
    }

    // ---- what the parties do ----

    /// One act of one party.
    pub(super) async fn act(&mut self, index: usize, act: Act) -> Result<bool> {
        let peers: Vec<Peer> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .filter_map(|(_, host)| Some(Peer::Local(host.live.as_ref()?.signer.clone()?)))
            .collect();
        let host = &self.hosts[index];
        let name = host.name;
        let Some(live) = &host.live else { return Ok(false) };
        let before = live.engine.heads();
        let stepped = self.control.step(name, live.act(act, &host.link, &peers)).await;
        drop(peers);
        let heads = live.engine.heads();
        if heads != before {
            self.story.tell(format!(
                "{name}: {act:?}: L1 {}, L2 {} {} {} {} {}",
                heads.l1_tip.height,
                heads.latest.number,
                heads.safe.number,
                heads.finalized.number,
                heads.settled.number,
                heads.latest.hash
            ));
        }
        let done = match stepped.outcome {
            Some(Ok(told)) => {
                for event in told {
                    self.story.tell(format!("{name}: {event}"));
                }
                true
            }
            Some(Err(error)) => {
                self.story.tell(format!("{name}: {act:?}: {error:#}"));
                self.fatal(&error)?;
                false
            }
            None => false,
        };
        for event in stepped.sprung {
            self.story.tell(event);
        }
        for host in &mut self.hosts {
            if stepped.dead.contains(&host.name) {
                self.story.tell(format!("{} is gone", host.name));
                host.live = None;
            }
        }
        self.check(index)?;
        Ok(done)
    }

    /// Errors that no waiting mends.
    fn fatal(&self, error: &anyhow::Error) -> Result<()> {
        use kedge::engine::EngineError;
        use kedge::follow::FollowError;
        let engine = error.chain().find_map(|cause| {
            cause.downcast_ref::<EngineError>().or_else(|| {
                match cause.downcast_ref::<FollowError>()? {
                    FollowError::Engine(error) => Some(error),
                    _ => None,
                }
            })
        });
        match engine {
            Some(found) => Err(anyhow!("a node failed: {found}")),
            None => Ok(()),
        }
    }

    /// Everything that a party does, in order.
    pub(super) async fn act_all(&mut self, index: usize) -> Result<()> {
        let mut done = true;
        for act in self.hosts[index].role.acts() {
            done &= self.act(index, *act).await?;
        }
        let host = &self.hosts[index];
        if done && host.link.is_up() && host.live.is_some() {
            self.idle[index] = 0;
        }
        Ok(())
    }

    fn check(&mut self, index: usize) -> Result<()> {
        let host = &self.hosts[index];
        let at_tip =
            host.live.as_ref().is_some_and(|live| live.engine.heads().l1_tip == self.bitcoin.tip());
        let checked = self.checks.host(host, &self.ledger, at_tip);
        for news in self.checks.news.drain(..) {
            self.story.tell(format!("{}: {news}", host.name));
        }
        checked.with_context(|| format!("at {}", host.name))
    }

    /// Starts the process of a party again.
    pub(super) fn reopen(&mut self, index: usize) -> Result<()> {
        let host = &mut self.hosts[index];
        if host.live.is_none() {
            host.open()?;
            self.story.tell(format!("{} starts again", host.name));
            self.check(index)?;
        }
        Ok(())
    }

    /// Brings a party back to where it can do everything.
    pub(super) fn mend(&mut self, index: usize) -> Result<()> {
        let host = &self.hosts[index];
        if !host.link.is_up() {
            self.story.tell(format!("{} reaches Bitcoin again", host.name));
            host.link.set(Net::Up);
        }
        self.control.clear(host.name);
        self.reopen(index)
    }

    // ---- Bitcoin ----

    /// Mines a block of what waits, or an empty one.
    pub(super) fn mine(&mut self, empty: bool) -> Result<()> {
        let script = start::miner();
        let block = if empty {
            self.bitcoin.mine_exactly_now(&script, &[])?
        } else {
            self.bitcoin.mine_now(&script)?
        };
        self.story.tell(format!(
            "block {}: {} transactions, {}",
            self.tip(),
            block.txdata.len() - 1,
            block.block_hash()
        ));
        self.ledger.read(&self.bitcoin);
        self.checks.bitcoin(&self.ledger)?;
        self.top = self.top.max(self.tip().0);
        self.quiet += 1;
        let time = u64::from(block.header.time);
        self.now.fetch_max(time, Ordering::Relaxed);
        for idle in &mut self.idle {
            *idle += 1;
        }
        Ok(())
    }

    /// How many blocks in a row a party may miss.
    const fn patience(role: Role) -> u32 {
        match role {
            // Longer than the sequencing window.
            Role::Sequencer => 18,
            Role::Challenger => 2,
            Role::Signer(_) | Role::Validator => 3,
        }
    }

    /// Mends those that have missed as many blocks as they may, so that what has deadlines is done in time.
    async fn rouse(&mut self) -> Result<()> {
        for index in 0..self.hosts.len() {
            let patience = Self::patience(self.hosts[index].role);
            if self.idle[index] >= patience {
                self.mend(index)?;
                self.act_all(index).await?;
            }
        }
        Ok(())
    }

    /// Replaces the last blocks by more.
    async fn reorg(&mut self) -> Result<()> {
        let tip = self.tip().0;
        let lowest = self.top.saturating_sub(MAX_REORG).max(self.funded);
        let most = tip.saturating_sub(lowest).min(MAX_REORG);
        if most == 0 || self.quiet < REORG_PAUSE {
            return Ok(());
        }
        let depth = self.rng.random_range(1..=most);
        self.story.tell(format!("the last {depth} blocks are replaced"));
        self.bitcoin.take_back_now(depth)?;
        if self.rng.random_bool(0.3) {
            self.evict(true);
        }
        for _ in 0..=depth {
            let empty = self.rng.random_bool(0.5);
            self.mine(empty)?;
            self.purse.tick().await?;
        }
        self.quiet = 0;
        Ok(())
    }

    /// The mempool loses a transaction, or all of them.
    fn evict(&mut self, all: bool) {
        let waiting = self.bitcoin.waiting();
        let lost = if all {
            waiting
        } else {
            waiting.choose(&mut self.rng).cloned().into_iter().collect()
        };
        for tx in lost {
            let txid = tx.compute_txid();
            self.story.tell(format!("the mempool loses {txid}"));
            self.bitcoin.evict(&txid);
        }
    }

    fn change_fees(&mut self) {
        let rate = self.rng.random_bool(0.9).then(|| self.rng.random_range(1..60));
        self.story.tell(format!("fee estimate: {rate:?} sat/vB"));
        self.bitcoin.set_fee_rate(rate.map(FeeRate::from_sat_per_vb_u32));
    }

    fn change_net(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let host = &self.hosts[index];
        let net = if !host.link.is_up() {
            Net::Up
        } else if self.rng.random_bool(0.5) {
            Net::Down
        } else {
            let tip = self.bitcoin.tip().height.0;
            let hashes = (0..=tip).filter_map(|height| self.bitcoin.block_at(L1Height(height)));
            Net::Stuck(Arc::new(hashes.map(|block| block.block_hash()).collect()))
        };
        let what = match net {
            Net::Up => "reaches Bitcoin again",
            Net::Down => "cannot reach Bitcoin",
            Net::Stuck(_) => "sees no new blocks",
        };
        self.story.tell(format!("{} {what}", host.name));
        host.link.set(net);
    }

    fn set_trap(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let party = self.hosts[index].name;
        let act = ACTS.choose(&mut self.rng).copied().flatten();
        let fault = *Fault::ALL.choose(&mut self.rng).expect("there are faults");
        let skip = self.rng.random_range(0..4);
        self.control.set(Trap { party, act, skip, fault });
    }

    fn kill(&mut self) {
        let index = self.rng.random_range(0..self.hosts.len());
        let host = &mut self.hosts[index];
        if host.live.take().is_some() {
            self.story.tell(format!("{} is killed", host.name));
        }
    }

    // ---- users ----

    /// A user hands a transaction to the sequencer.
    fn submit(&mut self, who: usize, nonce: usize) -> &'static str {
        let live = self.hosts[SEQUENCER].live.as_ref();
        let Some(sequencing) = live.and_then(|live| live.sequencing.as_ref()) else {
            return "nobody answers";
        };
        let user = &mut self.users[who];
        match sequencing.mempool.add(user.signed[nonce].clone()) {
            Ok(_) | Err(PoolError::AlreadyKnown) => {
                user.taken.insert(nonce);
                "taken"
            }
            Err(_) => "refused",
        }
    }

    /// Users send again what the sequencer never acknowledged and what is not in the chain yet.
    pub(super) fn resubmit(&mut self) -> Result<()> {
        for who in 0..self.users.len() {
            let Some(live) = &self.hosts[SEQUENCER].live else { return Ok(()) };
            let user = &self.users[who];
            let account = live.engine.store().account(user.address())?;
            let next = usize::try_from(account.map_or(0, |account| account.nonce))?;
            let waiting: Vec<usize> =
                (next..user.signed.len()).filter(|nonce| !user.taken.contains(nonce)).collect();
            for nonce in waiting {
                self.submit(who, nonce);
            }
        }
        Ok(())
    }

    /// Every user gets more than he will ever spend, so that no reorganisation of later deposits makes what he
    /// signs invalid.
    pub(super) async fn fund(&mut self) -> Result<()> {
        let deposits: Vec<_> =
            self.users.iter().map(|user| (user.address(), Sats(200_000_000))).collect();
        let outputs = deposit_outputs(&self.vault, &deposits);
        self.purse.pay(&outputs).await?.context("the users have coins")?;
        self.mine(false)?;
        self.funded = self.tip().0;
        Ok(())
    }

    async fn deposit(&mut self) -> Result<()> {
        let sats = self.rng.random_range(20_000_000..100_000_000);
        let address = if self.rng.random_bool(0.3) {
            let number = self.fresh();
            fresh_address(number)
        } else {
            self.users.choose(&mut self.rng).context("there are users")?.address()
        };
        let outputs = deposit_outputs(&self.vault, &[(address, Sats(sats))]);
        let Some(tx) = self.purse.pay(&outputs).await? else { return Ok(()) };
        let txid = tx.compute_txid();
        self.story.tell(format!("a deposit of {sats} sat to {address}: {txid}"));
        if self.users.iter().all(|user| user.address() != address) {
            self.checks.deposits.push((address, sats));
        }
        Ok(())
    }

    /// A payment to the vault that is no deposit.
    async fn bad_deposit(&mut self) -> Result<()> {
        let number = self.fresh();
        let address = fresh_address(number);
        let mut outputs = deposit_outputs(&self.vault, &[(address, Sats(50_000))]);
        match self.rng.random_range(0..3) {
            0 => outputs.truncate(1),
            1 => outputs.insert(
                0,
                TxOut { value: Amount::from_sat(40_000), script_pubkey: self.vault.clone() },
            ),
            _ => outputs = deposit_outputs(&self.vault, &[(address, Sats(9_999))]),
        }
        if let Some(tx) = self.purse.pay(&outputs).await? {
            self.story.tell(format!("a payment to the vault for nobody: {}", tx.compute_txid()));
        }
        Ok(())
    }

    async fn use_l2(&mut self) -> Result<()> {
        let who = self.rng.random_range(0..self.users.len());
        let number = self.fresh();
        if self.top < self.funded + MAX_REORG {
            return self.deposit().await;
        }
        let (tx, what) = if self.rng.random_bool(0.4) {
            let sats = self.rng.random_range(300_000..1_000_000);
            let wish = Wish { script: fresh_script(number), sats };
            let tx = self.users[who].withdraw(self.params, &wish)?;
            self.checks.scripts.push(wish.script.clone());
            self.wishes.push(wish);
            (tx, format!("withdraws {sats} sat"))
        } else {
            let sats = self.rng.random_range(1..10_000);
            let tx = self.users[who].transfer(self.params, fresh_address(number), sats)?;
            (tx, format!("pays {sats} sat"))
        };
        if self.rng.random_bool(0.2) {
            self.force(who, what, vec![tx]).await
        } else {
            let answer = self.submit(who, self.users[who].signed.len() - 1);
            self.story.tell(format!("user {who} {what}: {answer}"));
            Ok(())
        }
    }

    async fn force(&mut self, who: usize, what: String, txs: Vec<Bytes>) -> Result<()> {
        let gas = GAS * txs.len() as u64;
        let body = encode(&txs);
        let chain = self.params.chain_id;
        let parts = split(Kind::Forced, chain, 0, Default::default(), &body, self.params)?;
        let pays = TxOut {
            value: Amount::from_sat(price_of(gas, self.params).0.max(1_000)),
            script_pubkey: self.vault.clone(),
        };
        let parts = parts
            .into_iter()
            .map(|part| Part { output: Some(pays.clone()), ..Part::from(part) })
            .collect();
        self.purse.publish(Kind::Forced, parts).await?;
        self.story.tell(format!("user {who} {what}, through Bitcoin"));
        Ok(())
    }

    // ---- dishonest people ----

    async fn mischief(&mut self) -> Result<()> {
        let Some(engine) = self.any_engine() else { return Ok(()) };
        let told = match self.rng.random_range(0..12) {
            0..=4 => self.liars.lie(&mut self.rng, &engine).await?,
            5..=8 => self.liars.bluff(&mut self.rng, &engine).await?,
            9 | 10 => self.liars.garbage(&mut self.rng, &engine).await?,
            _ => {
                let vault =
                    TxOut { value: Amount::from_sat(1_000), script_pubkey: self.vault.clone() };
                Some(self.liars.malformed(&mut self.rng, &vault).await?)
            }
        };
        if let Some(told) = told {
            self.story.tell(told);
        }
        Ok(())
    }

    async fn copy(&mut self) -> Result<()> {
        for copied in self.liars.copy().await? {
            self.story.tell(copied);
        }
        Ok(())
    }

    /// Everybody who has no process sees to what he has paid and published.
    pub(super) async fn tick_purses(&mut self) -> Result<()> {
        self.purse.tick().await?;
        self.liars.tick().await?;
        self.copy().await
    }

    // ---- time ----

    /// One thing happens.
    pub(super) async fn tick(&mut self) -> Result<()> {
        let seconds = self.rng.random_range(0..20);
        self.now.fetch_add(seconds, Ordering::Relaxed);
        match self.rng.random_range(0..100) {
            0..=39 => {
                let index = self.rng.random_range(0..self.hosts.len());
                if self.rng.random_bool(0.6) {
                    self.act_all(index).await?;
                } else {
                    let acts = self.hosts[index].role.acts();
                    let act = *acts.choose(&mut self.rng).context("everybody does something")?;
                    self.act(index, act).await?;
                }
            }
            40..=55 => {
                self.rouse().await?;
                self.copy().await?;
                let empty = self.rng.random_bool(0.1);
                self.mine(empty)?;
                self.tick_purses().await?;
            }
            56 | 57 => self.reorg().await?,
            58..=60 => self.change_net(),
            61..=66 => self.set_trap(),
            67 => self.kill(),
            68..=72 => {
                let index = self.rng.random_range(0..self.hosts.len());
                self.reopen(index)?;
            }
            73..=82 => self.use_l2().await?,
            83 | 84 => self.deposit().await?,
            85 => self.bad_deposit().await?,
            86..=88 => self.resubmit()?,
            89..=93 => self.mischief().await?,
            94 | 95 => self.copy().await?,
            96 => self.evict(false),
            97 => self.change_fees(),
            _ => self.tick_purses().await?,
        }
        Ok(())
    }

    /// Ends all trouble.
    pub(super) fn calm(&mut self) -> Result<()> {
        self.story.tell("the calm begins");
        self.bitcoin.set_fee_rate(Some(FeeRate::from_sat_per_vb_u32(5)));
        for index in 0..self.hosts.len() {
            self.mend(index)?;
        }
        Ok(())
    }

    /// Everybody does everything, then a block comes.
    pub(super) async fn round(&mut self) -> Result<()> {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.resubmit()?;
        for index in 0..self.hosts.len() {
            self.act(index, Act::Follow).await?;
        }
        for index in 0..self.hosts.len() {
            self.act_all(index).await?;
        }
        self.tick_purses().await?;
        self.mine(false)
    }

    /// The nodes by name.
    pub(super) fn engines(&self) -> BTreeMap<&'static str, Arc<Engine>> {
        self.hosts
            .iter()
            .filter_map(|host| Some((host.name, host.live.as_ref()?.engine.clone())))
            .collect()
    }
}
