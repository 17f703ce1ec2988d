//! The world of one run: everybody, what they do, and what happens to them.

use super::checks::Checks;
use super::host::{Act, Host, Role};
use super::ledger::Ledger;
use super::liars::Liars;
use super::link::{Control, Link, MAX_REQUESTS, Net};
use super::purse::Purse;
use super::start;
use super::story::Story;
use super::trouble::REORG_PAUSE;
use super::users::{User, Wish};
use super::watch::{Sight, Watch};
use crate::sim_bitcoin::SimBitcoin;
use anyhow::{Context, Result, bail, ensure};
use bitcoin::{FeeRate, ScriptBuf};
use kedge::clock::Clock;
use kedge::engine::Engine;
use kedge::signer::Peer;
use kedge_bridge::vault::vault_script;
use kedge_genesis::{L1Height, Params};
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
pub(super) const SEQUENCER: usize = 0;
/// Users with accounts on L2.
const USERS: u64 = 3;
/// The world of one run.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) story: Story,
    pub(super) params: &'static Params,
    pub(super) bitcoin: Arc<SimBitcoin>,
    pub(super) control: Arc<Control>,
    pub(super) now: Arc<AtomicU64>,
    pub(super) hosts: Vec<Host>,
    /// Blocks mined since a party was last at Bitcoin's tip and did all that it does.
    pub(super) idle: Vec<u32>,
    pub(super) users: Vec<User>,
    pub(super) purse: Purse,
    pub(super) liars: Liars,
    pub(super) ledger: Ledger,
    pub(super) checks: Checks,
    watch: Watch,
    pub(super) wishes: Vec<Wish>,
    pub(super) vault: ScriptBuf,
    /// The highest tip that there ever was.
    pub(super) top: u32,
    /// Blocks since the last reorganisation.
    pub(super) quiet: u32,
    /// Height of the block with the users' first deposits.
    pub(super) funded: u32,
    pub(super) fresh: u64,
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
            checks: Checks::new(params),
            watch: Watch::default(),
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
        let engine = live.engine.clone();
        let before = engine.heads();
        let stepped = self.control.step(name, live.act(act, &host.link, &peers)).await;
        drop(peers);
        let heads = engine.heads();
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
        ensure!(
            !stepped.endless,
            "{name}: {act:?} does not end: it has asked Bitcoin {MAX_REQUESTS} times"
        );
        self.check(index)?;
        let sight = Sight {
            params: self.params,
            bitcoin: &self.bitcoin,
            ledger: &self.ledger,
            assertions: &self.checks.assertions,
            engine: &engine,
            host: &self.hosts[index],
        };
        self.watch.look(&sight).with_context(|| format!("{name}: {act:?}"))?;
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
        if let Some(found) = engine {
            bail!("a node failed: {found}");
        }
        let panicked = error.chain().any(|cause| {
            cause.downcast_ref::<tokio::task::JoinError>().is_some_and(|error| error.is_panic())
        });
        ensure!(!panicked, "a node panicked: {error:#}");
        Ok(())
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

    /// Everybody does everything, then two blocks come: no party needs to be there at each of them, and half
    /// the work lets the same time pass.
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
        self.mine(false)?;
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
