//! Getting envelopes into Bitcoin: a commit transaction from the wallet, reveals signed with the
//! publisher's key, and seeing to them until they are final.
//!
//! Everything that is signed is stored first, so a crash at any instant leaves nothing that only others
//! know. [`Publisher::tick`] makes one step for each publication from what the wallet and the node say;
//! it may be called at any time and any number of times.

mod abandon;
mod fees;
mod record;
mod step;

pub use fees::{FeePolicy, Urgency};
pub use record::{PublicationId, PublicationStatus, RevealStatus};

use crate::l1::records::RecordWrite;
use crate::l1::{Bitcoin, L1Error, RecordTable, Records};
use crate::wallet::{Wallet, WalletError};
use bitcoin::key::Keypair;
use bitcoin::{ScriptBuf, TxOut, XOnlyPublicKey};
use kedge_bridge::commit::{Commit, RevealError, reveal_vsize};
use kedge_bridge::envelope::{EnvelopeError, EnvelopeHeader, Kind, leaf_script};
use kedge_genesis::L1Height;
use record::{Group, Publication};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest reveal we make, virtual bytes: Bitcoin Core relays up to 100,000.
const MAX_REVEAL_VSIZE: u64 = 99_500;
/// Unconfirmed transactions that spend each other may have 101,000 virtual bytes together; this leaves
/// room for one more.
const MAX_FAMILY_VSIZE: u64 = 100_500;

/// Blocks for which the status of a final publication is kept.
const KEEP_FINAL: u32 = 100;

/// One envelope to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its header.
    pub header: EnvelopeHeader,
    /// Its chunk of the body.
    pub body: Vec<u8>,
    /// What its reveal pays at the output whose index is that of the envelope's input: an assertion's
    /// bond, a forced message's payment.
    pub output: Option<TxOut>,
}

impl From<(EnvelopeHeader, Vec<u8>)> for Part {
    fn from((header, body): (EnvelopeHeader, Vec<u8>)) -> Self {
        Self { header, body, output: None }
    }
}

/// Why something cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The wallet cannot.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The node did not answer.
    #[error(transparent)]
    Bitcoin(#[from] L1Error),
    /// The storage failed.
    #[error("the publisher's records: {0}")]
    Records(#[source] anyhow::Error),
    /// A record does not read back.
    #[error("the publisher's record of publication {id} is damaged: {reason}")]
    Damaged {
        /// Which publication.
        id: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no envelope to publish.
    #[error("a publication has at least one envelope")]
    Empty,
    /// The envelope cannot be built.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope is longer than a transaction may be.
    #[error("a reveal of {vsize} virtual bytes is not relayed; the largest has {MAX_REVEAL_VSIZE}")]
    TooLarge {
        /// The reveal's size.
        vsize: u64,
    },
    /// There is no such publication, or it has long been final.
    #[error("there is no publication {id} that is not final")]
    Unknown {
        /// Which.
        id: u64,
    },
    /// The publisher's key makes no Taproot output.
    #[error("the publisher's key cannot be used")]
    Key,
    /// The reveal cannot be signed.
    #[error(transparent)]
    Reveal(#[from] RevealError),
}

/// Publishes envelopes. Share it as an `Arc`; calls wait for each other.
pub struct Publisher {
    name: String,
    records: Arc<dyn Records>,
    wallet: Arc<Wallet>,
    bitcoin: Arc<dyn Bitcoin>,
    key: Keypair,
    fees: FeePolicy,
    /// Confirmations after which a reveal needs no watching.
    final_depth: u32,
    open: tokio::sync::Mutex<BTreeMap<PublicationId, Publication>>,
}

impl Publisher {
    /// Opens the publisher `name` of these records, with what it has not finished. `records` must be
    /// the wallet's, so that both are written in one step; `key` signs the reveals and authorises
    /// nothing else.
    ///
    /// # Errors
    /// [`PublishError::Damaged`], or when the storage fails.
    pub fn open(
        name: &str,
        records: Arc<dyn Records>,
        wallet: Arc<Wallet>,
        bitcoin: Arc<dyn Bitcoin>,
        key: Keypair,
        fees: FeePolicy,
        final_depth: u32,
    ) -> Result<Self, PublishError> {
        let prefix = format!("publish/{name}/").into_bytes();
        let rows = records.load(RecordTable::OwnTx, &prefix).map_err(PublishError::Records)?;
        let mut open = BTreeMap::new();
        for (key, value) in rows {
            let publication: Publication = serde_json::from_slice(&value).map_err(|error| {
                let id = key.last_chunk().map_or(0, |id| u64::from_be_bytes(*id));
                PublishError::Damaged { id, reason: error.to_string() }
            })?;
            open.insert(publication.id, publication);
        }
        let open = tokio::sync::Mutex::new(open);
        let name = name.into();
        Ok(Self { name, records, wallet, bitcoin, key, fees, final_depth, open })
    }

    /// Stores envelopes of one message for publication, then takes the first steps. They are published
    /// in this order; what cannot be done now (too little money, a refusal) is tried again at every
    /// [`Self::tick`] and shows in [`Self::status`].
    ///
    /// # Errors
    /// When the envelopes cannot be built, or the storage fails. Nothing is published then.
    pub async fn publish(
        &self,
        kind: Kind,
        parts: Vec<Part>,
    ) -> Result<PublicationId, PublishError> {
        self.begin(kind, parts, None, Urgency::Usual).await
    }

    /// As [`Self::publish`], under a name of the caller's and with a deadline. Idempotent: of publications
    /// under one name only the first is made, so that a caller that notes the name before may call this
    /// again after a crash.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn publish_once(
        &self,
        reference: &str,
        kind: Kind,
        parts: Vec<Part>,
        urgency: Urgency,
    ) -> Result<PublicationId, PublishError> {
        self.begin(kind, parts, Some(reference), urgency).await
    }

    async fn begin(
        &self,
        kind: Kind,
        parts: Vec<Part>,
        reference: Option<&str>,
        urgency: Urgency,
    ) -> Result<PublicationId, PublishError> {
        let groups = self.groups(kind, parts)?;
        let mut open = self.open.lock().await;
        let known =
            open.values().find(|of| reference.is_some() && of.reference.as_deref() == reference);
        if let Some(known) = known {
            return Ok(known.id);
        }
        let last = open.keys().next_back().map_or(0, |id| id.0);
        let id = PublicationId(last + 1);
        let mut publication = Publication {
            id,
            kind: kind.wire(),
            reference: reference.map(ToOwned::to_owned),
            urgency,
            groups,
            commits: Vec::new(),
            committed: None,
            abandoned: false,
            taken_back: Vec::new(),
            done: None,
            problem: None,
            short: false,
        };
        self.store(&publication)?;
        self.advance(&mut publication).await;
        open.insert(id, publication);
        Ok(id)
    }

    /// Changes how soon a publication has to be confirmed; acts on it at the next [`Self::tick`].
    ///
    /// # Errors
    /// [`PublishError::Unknown`], or when the storage fails.
    pub async fn urge(&self, id: PublicationId, urgency: Urgency) -> Result<(), PublishError> {
        let mut open = self.open.lock().await;
        let publication = open.get_mut(&id).ok_or(PublishError::Unknown { id: id.0 })?;
        if publication.urgency != urgency {
            publication.urgency = urgency;
            self.store(publication)?;
        }
        Ok(())
    }

    /// Gives a publication up: nothing more is revealed or raised, and what its commit outputs hold goes
    /// back to the wallet. What is revealed already stays on its way. For good; idempotent.
    ///
    /// # Errors
    /// [`PublishError::Unknown`], or when the storage fails.
    pub async fn abandon(&self, id: PublicationId) -> Result<(), PublishError> {
        let mut open = self.open.lock().await;
        let publication = open.get_mut(&id).ok_or(PublishError::Unknown { id: id.0 })?;
        if !publication.abandoned {
            publication.abandoned = true;
            self.store(publication)?;
        }
        self.advance(publication).await;
        Ok(())
    }

    /// Follows the chain and says where every publication is, without taking a step.
    ///
    /// # Errors
    /// When the wallet cannot follow the chain.
    pub async fn look(&self) -> Result<Vec<PublicationStatus>, PublishError> {
        self.wallet.sync(&*self.bitcoin).await?;
        let mut open = self.open.lock().await;
        for publication in open.values_mut().filter(|of| of.done.is_none()) {
            self.note_confirmations(publication);
        }
        Ok(open.values().map(Publication::status).collect())
    }

    /// Takes the next step of every publication: pays, broadcasts, broadcasts again what was dropped,
    /// raises fees, notices confirmations and reorgs. To be called at every new block and now and then.
    ///
    /// # Errors
    /// When the wallet cannot follow the chain. What goes wrong with one publication is in its status.
    pub async fn tick(&self) -> Result<Vec<PublicationStatus>, PublishError> {
        let tip = self.wallet.sync(&*self.bitcoin).await?;
        self.wallet.rebroadcast(&*self.bitcoin).await?;
        let mut open = self.open.lock().await;
        for publication in open.values_mut() {
            self.advance(publication).await;
        }
        self.prune(&mut open, tip)?;
        Ok(open.values().map(Publication::status).collect())
    }

    /// Forgets what has been final for long; the last one stays, because numbers count from it.
    fn prune(
        &self,
        open: &mut BTreeMap<PublicationId, Publication>,
        tip: L1Height,
    ) -> Result<(), PublishError> {
        let last = open.keys().next_back().copied();
        let old: Vec<_> = open
            .values()
            .filter(|of| of.done.is_some_and(|height| tip.since(L1Height(height)) > KEEP_FINAL))
            .map(|of| of.id)
            .filter(|id| Some(*id) != last)
            .collect();
        let writes =
            old.iter().map(|id| (RecordTable::OwnTx, self.record_key(*id), None)).collect();
        if !old.is_empty() {
            self.records.write(writes).map_err(PublishError::Records)?;
            open.retain(|id, _| !old.contains(id));
        }
        Ok(())
    }

    /// How far a publication is, none when there is none of this id or it has long been final.
    pub async fn status(&self, id: PublicationId) -> Option<PublicationStatus> {
        self.open.lock().await.get(&id).map(Publication::status)
    }

    /// All publications that are not final.
    pub async fn pending(&self) -> Vec<PublicationStatus> {
        let open = self.open.lock().await;
        open.values().filter(|of| of.done.is_none()).map(Publication::status).collect()
    }

    /// Where it keeps what it must not forget; its owner may keep what belongs to it in the same place.
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// The public key that the envelopes name.
    pub fn key(&self) -> XOnlyPublicKey {
        self.key.x_only_public_key().0
    }

    /// Distributes the envelopes over reveal transactions: as many as fit into each, and one of its own
    /// for each that needs an output.
    fn groups(&self, kind: Kind, parts: Vec<Part>) -> Result<Vec<Group>, PublishError> {
        let mut groups: Vec<Group> = Vec::new();
        for part in parts {
            let leaf = leaf_script(&self.key(), kind, &part.header, &part.body)?;
            let alone = Group {
                leaves: vec![leaf.clone()],
                output: part.output.clone(),
                ..Group::default()
            };
            let vsize = self.vsize(&alone)?;
            if vsize > MAX_REVEAL_VSIZE {
                return Err(PublishError::TooLarge { vsize });
            }
            if part.output.is_none()
                && let Some(last) = groups.last_mut().filter(|last| last.output.is_none())
            {
                last.leaves.push(leaf);
                if self.vsize(last)? <= MAX_REVEAL_VSIZE {
                    continue;
                }
                last.leaves.pop();
            }
            groups.push(alone);
        }
        if groups.is_empty() { Err(PublishError::Empty) } else { Ok(groups) }
    }

    /// Virtual size of a group's reveal, with its output and change.
    fn vsize(&self, group: &Group) -> Result<u64, PublishError> {
        let commits = self.commits(&group.leaves)?;
        let change = TxOut { value: bitcoin::Amount::ZERO, script_pubkey: taproot_sized() };
        let outputs: Vec<_> = group.output.iter().cloned().chain([change]).collect();
        Ok(reveal_vsize(&commits, &outputs))
    }

    fn commits(&self, leaves: &[ScriptBuf]) -> Result<Vec<Commit>, PublishError> {
        leaves
            .iter()
            .map(|leaf| Commit::new(self.key(), leaf.clone()).ok_or(PublishError::Key))
            .collect()
    }

    fn record_key(&self, id: PublicationId) -> Vec<u8> {
        let mut key = format!("publish/{}/", self.name).into_bytes();
        key.extend_from_slice(&id.0.to_be_bytes());
        key
    }

    fn record(&self, publication: &Publication) -> RecordWrite {
        let value = serde_json::to_vec(publication).expect("a publication has string keys only");
        (RecordTable::OwnTx, self.record_key(publication.id), Some(value))
    }

    fn store(&self, publication: &Publication) -> Result<(), PublishError> {
        self.records.write(vec![self.record(publication)]).map_err(PublishError::Records)
    }
}

/// A script as long as a Taproot output's.
fn taproot_sized() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0; 34])
}
