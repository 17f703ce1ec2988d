//! The dishonest proposer of `kedge dev --dishonest-proposer`: it posts a wrong assertion now and then, so that
//! a person can watch the challenger win.

use super::{
    api::DevMethods,
    dishonest::Lie,
    disputes::{Dispute, Disputes},
};
use crate::{
    engine::Engine,
    keys,
    l1::{Bitcoin, Records},
    proposer,
    publisher::{FeePolicy, Publisher},
    wallet::{Wallet, WalletKeys},
};
use alloy_primitives::B256;
use anyhow::Context;
use bitcoin::secp256k1::SecretKey;
use kedge_bridge::bond::Bond;
use kedge_genesis::Params;
use kedge_store::BondRows;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// L1 blocks between the end of one dispute and the next wrong assertion.
const PAUSE: u32 = 2;

pub(super) struct DishonestProposer {
    params: &'static Params,
    engine: Arc<Engine>,
    publisher: Publisher,
    wallet: Arc<Wallet>,
    bond: Bond,
    methods: Arc<DevMethods>,
    disputes: Disputes,
}

impl DishonestProposer {
    pub(super) fn new(
        params: &'static Params,
        engine: Arc<Engine>,
        secret: &SecretKey,
        methods: Arc<DevMethods>,
        disputes: Disputes,
    ) -> anyhow::Result<Self> {
        let records: Arc<dyn Records> = engine.store().clone();
        let bitcoin: Arc<dyn Bitcoin> = methods.chain.clone();
        let seed = WalletKeys::from_seed(params.bitcoin, &secret.secret_bytes());
        let birthday = params.l1_start.height;
        let wallet =
            Arc::new(Wallet::open(records.clone(), "liar", &seed, params.bitcoin, birthday)?);
        let publisher = Publisher::open(
            "lie",
            records,
            wallet.clone(),
            bitcoin,
            keys::keypair(secret),
            FeePolicy::default(),
            params.finality_depth,
        )?;
        let bond = Bond::of(params, publisher.key()).context("dev names its signers")?;
        Ok(Self { params, engine, publisher, wallet, bond, methods, disputes })
    }

    pub(super) const fn wallet(&self) -> &Arc<Wallet> {
        &self.wallet
    }

    /// Lies until `stop`, one step for each L1 block.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut heads = self.engine.watch_heads();
        let mut done = None;
        loop {
            let tip = heads.borrow_and_update().l1_tip;
            if done != Some(tip)
                && let Err(error) = self.step().await
            {
                tracing::warn!("dishonest proposer: {error:#}");
            }
            done = Some(tip);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Posts the next wrong assertion if the dispute about the last one is over.
    async fn step(&self) -> anyhow::Result<()> {
        let publications = self.publisher.tick().await?;
        self.methods.provide(&self.wallet).await?;
        let mut waiting = publications.iter().filter(|publication| !publication.is_final);
        let tip = self.engine.heads().l1_tip.height;
        if waiting.any(|it| it.confirmed().is_none_or(|height| height > tip)) {
            return Ok(());
        }
        let (lie, body, segment) = {
            let own = B256::new(self.publisher.key().serialize());
            let reader = self.engine.store().reader();
            let mut rows = reader.assertions()?;
            rows.retain(|row| row.proposer == own);
            if let Some(last) = rows.last() {
                let over = match reader.bond_spend(&last.bond)? {
                    Some(spend) => spend.l1.height,
                    // The signers missed it.
                    None => last.deadline.plus(u32::from(self.params.bond_margin)),
                };
                if tip < over.plus(PAUSE) {
                    return Ok(());
                }
            }
            // The next kind, about another segment every time.
            let turn = rows.len();
            let lie = Lie::ALL.get(turn % Lie::ALL.len()).copied().unwrap_or(Lie::OutputRoot);
            match lie.assertion(self.params, &reader, turn + 1)? {
                Some((body, segment)) => (lie, body, segment),
                // Nothing new to lie about yet.
                None => return Ok(()),
            }
        };
        proposer::post(self.params, &self.publisher, &self.bond, &body).await?;
        self.disputes.tell(Dispute::Lying { height: tip, lie: lie.label(), segment });
        Ok(())
    }
}
