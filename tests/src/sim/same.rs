//! That a node without history, and all those with one, come to the same.

use super::host::{Act, Host, Role};
use super::link::{Control, Link};
use super::world::World;
use anyhow::{Context, Result, ensure};
use kedge::clock::Clock;
use kedge::engine::{Engine, Heads};
use kedge_store::{AssertionRow, Domain, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

impl World {
    /// A node without history, and all those with one, hold the same.
    pub(super) async fn same_everywhere(&self) -> Result<()> {
        let control = Arc::new(Control::default());
        let link = Link::new("validator", self.bitcoin.clone(), control);
        let folder = self.dir.path().join("validator");
        let mut fresh = Host::new(
            "validator",
            Role::Validator,
            self.params,
            folder,
            link.clone(),
            Clock::system(),
        );
        fresh.open()?;
        let live = fresh.live.as_ref().context("it was opened")?;
        live.act(Act::Follow, &link, &[]).await?;
        let truth = Contents::of(&live.engine)?;
        for (name, engine) in self.engines() {
            let found = Contents::of(&engine)?;
            truth.same(&found).with_context(|| format!("{name} and a fresh validator"))?;
        }
        Ok(())
    }
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What a node holds.
struct Contents {
    heads: Heads,
    assertions: Vec<AssertionRow>,
    bitcoin: Rows,
    chain: Rows,
}

impl Contents {
    fn of(engine: &Engine) -> Result<Self> {
        let reader = engine.store().reader();
        let rows = |domain| -> Result<Rows> {
            let mut rows = Rows::new();
            for table in Table::ALL.iter().filter(|table| table.domain() == domain) {
                for row in reader.all(*table) {
                    let (key, value) = row?;
                    rows.insert((*table, key.to_vec()), value.to_vec());
                }
            }
            Ok(rows)
        };
        Ok(Self {
            heads: engine.heads(),
            assertions: reader.assertions()?,
            bitcoin: rows(Domain::L1)?,
            chain: rows(Domain::L2)?,
        })
    }

    fn same(&self, other: &Self) -> Result<()> {
        let (one, two) = (&self.heads, &other.heads);
        ensure!(one.l1_tip == two.l1_tip, "tips {:?} and {:?}", one.l1_tip, two.l1_tip);
        ensure!(one.safe == two.safe, "safe {:?} and {:?}", one.safe, two.safe);
        ensure!(
            one.finalized == two.finalized,
            "final {:?} and {:?}",
            one.finalized,
            two.finalized
        );
        ensure!(one.settled == two.settled, "settled {:?} and {:?}", one.settled, two.settled);
        ensure!(self.assertions == other.assertions, "the verdicts on assertions differ");
        difference(&self.bitcoin, &other.bitcoin)?;
        // The sequencer may have blocks that Bitcoin does not have yet.
        if one.latest == two.latest {
            difference(&self.chain, &other.chain)?;
        }
        Ok(())
    }
}

fn difference(one: &Rows, two: &Rows) -> Result<()> {
    for (key, value) in one {
        let (table, bytes) = key;
        ensure!(two.get(key) == Some(value), "row {bytes:?} of {} differs", table.name());
    }
    for (table, key) in two.keys() {
        ensure!(one.contains_key(&(*table, key.clone())), "{} has row {key:?} too", table.name());
    }
    Ok(())
}
