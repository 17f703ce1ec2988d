//! Putting envelopes on Bitcoin without asking any rule.

use super::Arena;
use alloy_primitives::B256;
use anyhow::{Context, Result};
use bitcoin::{
    Amount, OutPoint, Transaction, TxOut,
    key::{Keypair, Secp256k1},
};
use kedge::publisher::Part;
use kedge_bridge::{
    assertion::{AssertionBody, assertion_id},
    bond::Bond,
    commit::{Commit, CommitOutput, reveal},
    envelope::{Kind, leaf_script, split},
};
use kedge_genesis::Sats;

/// Fee of each transaction per virtual byte, satoshis.
const RATE: u64 = 2;
/// What every reveal has left, satoshis: its last output.
const CHANGE: Amount = Amount::from_sat(1_000);

/// The publisher's key of somebody, made from the name.
pub fn key(name: &str) -> Keypair {
    let secret: [u8; 32] = *alloy_primitives::keccak256(name);
    Keypair::from_seckey_slice(&Secp256k1::new(), &secret)
        .expect("a hash is a key but for a chance of 2^-127")
}

/// Commit outputs and what reveals them, signed by one key.
#[derive(Clone, Debug)]
pub struct Hand {
    /// Pays the commit outputs.
    pub commit: Transaction,
    /// One reveal per envelope, in order.
    pub reveals: Vec<Transaction>,
}

impl Hand {
    /// All of it in the order in which a block can have it.
    pub fn all(&self) -> Vec<Transaction> {
        std::iter::once(&self.commit).chain(&self.reveals).cloned().collect()
    }
}

impl Arena {
    /// Envelopes with a reveal each.
    ///
    /// # Errors
    /// When an envelope cannot be built or the purse is empty.
    pub fn envelopes(&mut self, by: &Keypair, kind: Kind, parts: &[Part]) -> Result<Hand> {
        let groups: Vec<_> = parts.iter().map(std::slice::from_ref).collect();
        self.grouped(by, kind, &groups)
    }

    /// Envelopes with a reveal per group: the outputs of a group's envelopes are at the indices of their
    /// inputs if all have one.
    ///
    /// # Errors
    /// When an envelope cannot be built or the purse is empty.
    pub fn grouped(&mut self, by: &Keypair, kind: Kind, groups: &[&[Part]]) -> Result<Hand> {
        let publisher = by.x_only_public_key().0;
        let mut outputs = Vec::new();
        let mut commits = Vec::new();
        for group in groups {
            let mut of_group = Vec::new();
            for part in *group {
                let leaf = leaf_script(&publisher, kind, &part.header, &part.body)?;
                // The witness and the rest of an input and an output.
                let fee = Amount::from_sat(RATE * (leaf.len() as u64 / 4 + 200));
                let held = part.output.as_ref().map_or(Amount::ZERO, |output| output.value);
                let commit =
                    Commit::new(publisher, leaf).context("a key that cannot be tweaked")?;
                outputs.push(TxOut {
                    value: held + fee + CHANGE,
                    script_pubkey: commit.script_pubkey(),
                });
                of_group.push(commit);
            }
            commits.push(of_group);
        }
        let fee = Amount::from_sat(RATE * (43 * outputs.len() as u64 + 400));
        let commit = self.purse.pay(outputs, fee)?;
        let txid = commit.compute_txid();
        let mut placed = commit.output.iter().zip(0u32..);
        let mut reveals = Vec::new();
        for (group, commits) in groups.iter().zip(commits) {
            let inputs: Vec<CommitOutput> = commits
                .into_iter()
                .zip(&mut placed)
                .map(|(commit, (output, vout))| CommitOutput {
                    outpoint: OutPoint { txid, vout },
                    value: output.value,
                    commit,
                })
                .collect();
            let mut outputs: Vec<TxOut> =
                group.iter().filter_map(|part| part.output.clone()).collect();
            outputs.push(TxOut { value: CHANGE, script_pubkey: self.purse.script() });
            reveals.push(reveal(&inputs, outputs, by)?);
        }
        Ok(Hand { commit, reveals })
    }

    /// An assertion with a bond of so much, and its id.
    ///
    /// # Errors
    /// When it is too long or the purse is empty.
    pub fn assertion_with(
        &mut self,
        by: &Keypair,
        body: &AssertionBody,
        bond: Option<TxOut>,
    ) -> Result<(B256, Hand)> {
        let part = self.assertion_part(body, bond)?;
        let hand = self.envelopes(by, Kind::Assertion, &[part])?;
        let reveal = hand.reveals.first().context("one envelope has one reveal")?;
        Ok((assertion_id(&OutPoint::new(reveal.compute_txid(), 0)), hand))
    }

    /// An assertion with the bond that the rules want, and its id.
    ///
    /// # Errors
    /// When it is too long or the purse is empty.
    pub fn assertion(&mut self, by: &Keypair, body: &AssertionBody) -> Result<(B256, Hand)> {
        let bond = self.bond(by, self.params.proposer_bond)?;
        self.assertion_with(by, body, Some(bond))
    }

    /// The envelope of an assertion.
    ///
    /// # Errors
    /// When it is too long.
    pub fn assertion_part(&self, body: &AssertionBody, output: Option<TxOut>) -> Result<Part> {
        let parts = split(
            Kind::Assertion,
            self.params.chain_id,
            0,
            B256::ZERO,
            &body.encode(),
            self.params,
        )?;
        let part = parts.into_iter().next().context("a body is not empty")?;
        Ok(Part { output, ..Part::from(part) })
    }

    /// Somebody's bond.
    ///
    /// # Errors
    /// When the network has no signers.
    pub fn bond(&self, of: &Keypair, value: Sats) -> Result<TxOut> {
        let bond = Bond::of(self.params, of.x_only_public_key().0);
        Ok(bond.context("the network has no signers")?.tx_out(value))
    }

    /// Any bytes as a proof, each chunk with a reveal of its own.
    ///
    /// # Errors
    /// When it is too long or the purse is empty.
    pub fn proof(&mut self, by: &Keypair, proof: &[u8]) -> Result<Hand> {
        let parts: Vec<Part> =
            split(Kind::Proof, self.params.chain_id, 0, B256::ZERO, proof, self.params)?
                .into_iter()
                .map(Part::from)
                .collect();
        self.envelopes(by, Kind::Proof, &parts)
    }
}
