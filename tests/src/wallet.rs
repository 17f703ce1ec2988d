//! A Bitcoin wallet of one key, for what users do on Bitcoin.

use anyhow::{Context, Result};
use bitcoin::{
    Address, Amount, Block, CompressedPublicKey, KnownHrp, Network, OutPoint, PrivateKey,
    ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    key::Secp256k1,
    secp256k1::{All, Message, SecretKey, rand::thread_rng},
    sighash::{EcdsaSighashType, SighashCache},
    transaction::Version,
};
use std::collections::VecDeque;

/// A P2WPKH key and the outputs that it knows of.
#[derive(Debug)]
pub struct Wallet {
    secp: Secp256k1<All>,
    key: PrivateKey,
    public: CompressedPublicKey,
    coins: VecDeque<(OutPoint, TxOut)>,
}

impl Default for Wallet {
    fn default() -> Self {
        Self::new()
    }
}

impl Wallet {
    /// A wallet with a new key and no coins.
    pub fn new() -> Self {
        let (secret, _) = Secp256k1::new().generate_keypair(&mut thread_rng());
        Self::of(secret)
    }

    /// The wallet of a secret key, with no coins.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self> {
        Ok(Self::of(SecretKey::from_slice(secret)?))
    }

    fn of(secret: SecretKey) -> Self {
        let secp = Secp256k1::new();
        let key = PrivateKey::new(secret, Network::Regtest);
        let public = CompressedPublicKey::from_private_key(&secp, &key)
            .expect("a new private key is for a compressed public key");
        Self { secp, key, public, coins: VecDeque::new() }
    }

    /// Where it is paid.
    pub fn address(&self) -> Address {
        Address::p2wpkh(&self.public, KnownHrp::Regtest)
    }

    /// The script of [`Self::address`].
    pub fn script(&self) -> ScriptBuf {
        self.address().script_pubkey()
    }

    /// Takes the coinbase outputs of a block that pay this wallet.
    pub fn add_coinbase(&mut self, block: &Block) {
        let owned: Vec<_> = block.txdata.iter().take(1).flat_map(|tx| self.owned(tx)).collect();
        self.coins.extend(owned);
    }

    /// A signed transaction from the oldest coins to these outputs, in this order, with the change last.
    /// The change can be spent by the next one.
    ///
    /// # Errors
    /// When the coins do not suffice.
    pub fn pay(&mut self, mut outputs: Vec<TxOut>, fee: Amount) -> Result<Transaction> {
        let needed = outputs.iter().map(|output| output.value).sum::<Amount>() + fee;
        let mut spent: Vec<(OutPoint, TxOut)> = Vec::new();
        let change = loop {
            let held: Amount = spent.iter().map(|(_, coin)| coin.value).sum();
            match held.checked_sub(needed) {
                Some(change) if !spent.is_empty() => break change,
                _ => spent.push(self.coins.pop_front().context("too few coins left")?),
            }
        };
        outputs.push(TxOut { value: change, script_pubkey: self.script() });
        let input = spent
            .iter()
            .map(|(outpoint, _)| TxIn {
                previous_output: *outpoint,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect();
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output: outputs,
        };
        let kind = EcdsaSighashType::All;
        let mut cache = SighashCache::new(&mut tx);
        for (index, (_, coin)) in spent.iter().enumerate() {
            let hash = cache.p2wpkh_signature_hash(index, &coin.script_pubkey, coin.value, kind)?;
            let signature = bitcoin::ecdsa::Signature {
                signature: self.secp.sign_ecdsa(&Message::from(hash), &self.key.inner),
                sighash_type: kind,
            };
            *cache.witness_mut(index).context("the input is there")? =
                Witness::p2wpkh(&signature, &self.public.0);
        }
        let owned: Vec<_> = self.owned(&tx).collect();
        self.coins.extend(owned);
        Ok(tx)
    }

    fn owned(&self, tx: &Transaction) -> impl Iterator<Item = (OutPoint, TxOut)> + use<> {
        let (script, txid) = (self.script(), tx.compute_txid());
        let outputs = tx.output.clone();
        outputs.into_iter().enumerate().filter_map(move |(index, output)| {
            let vout = u32::try_from(index).ok()?;
            (output.script_pubkey == script).then_some((OutPoint { txid, vout }, output))
        })
    }
}
