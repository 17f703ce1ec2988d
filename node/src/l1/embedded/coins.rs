//! The unspent outputs of the embedded chain, kept in memory and fed from blocks.

use bitcoin::{Block, OutPoint, Transaction, TxOut};
use std::collections::HashMap;

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Itself.
    pub output: TxOut,
    /// Height of the block that made it.
    pub height: u32,
    /// Whether a coinbase transaction made it: not to be spent for 100 blocks.
    pub coinbase: bool,
}

/// All unspent outputs as of the tip.
#[derive(Debug, Default)]
pub struct Coins(HashMap<OutPoint, Coin>);

impl Coins {
    /// An unspent output.
    pub fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.0.get(outpoint)
    }

    /// Takes a block in. The genesis block's output never existed, by rule.
    pub fn connect(&mut self, block: &Block, height: u32) {
        if height == 0 {
            return;
        }
        for tx in &block.txdata {
            self.apply(tx, height);
        }
    }

    /// Takes one transaction of the block at `height` in.
    pub fn apply(&mut self, tx: &Transaction, height: u32) {
        let coinbase = tx.is_coinbase();
        if !coinbase {
            for input in &tx.input {
                self.0.remove(&input.previous_output);
            }
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            if !output.script_pubkey.is_op_return() {
                let coin = Coin { output: output.clone(), height, coinbase };
                self.0.insert(OutPoint { txid, vout }, coin);
            }
        }
    }

    /// Takes a block back out. `spent` are the coins that it spent, by transaction after the coinbase
    /// and input.
    pub fn disconnect(&mut self, block: &Block, spent: Vec<Vec<Coin>>) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for vout in 0..u32::try_from(tx.output.len()).expect("a block bounds its outputs") {
                self.0.remove(&OutPoint { txid, vout });
            }
        }
        let made: std::collections::HashSet<_> =
            block.txdata.iter().map(|tx| tx.compute_txid()).collect();
        for (tx, coins) in block.txdata.iter().skip(1).zip(spent) {
            for (input, coin) in tx.input.iter().zip(coins) {
                if !made.contains(&input.previous_output.txid) {
                    self.0.insert(input.previous_output, coin);
                }
            }
        }
    }
}
