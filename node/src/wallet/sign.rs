//! Helping a transaction that is built elsewhere: adding a coin for its fee, signing that input.

use super::{Wallet, WalletError};
use bdk_wallet::SignOptions;
use bitcoin::{Amount, OutPoint, Psbt, Transaction, TxOut};

impl Wallet {
    /// The smallest confirmed coin of at least `needed`, else the largest one, none when there is none.
    pub fn coin(&self, needed: Amount, not: &[OutPoint]) -> Option<(OutPoint, TxOut)> {
        let inner = self.inner.lock();
        let tip = inner.bdk.latest_checkpoint().height();
        let mut coins: Vec<_> = inner
            .bdk
            .list_unspent()
            .filter(|coin| {
                let mature = match inner.bdk.get_tx(coin.outpoint.txid) {
                    Some(tx) if tx.tx_node.tx.is_coinbase() => 100,
                    _ => 1,
                };
                let depth = coin
                    .chain_position
                    .confirmation_height_upper_bound()
                    .map_or(0, |height| tip.saturating_sub(height) + 1);
                depth >= mature && !not.contains(&coin.outpoint)
            })
            .map(|coin| (coin.outpoint, coin.txout))
            .collect();
        coins.sort_by_key(|(outpoint, output)| (output.value, *outpoint));
        let enough = coins.iter().position(|(_, output)| output.value >= needed);
        match enough {
            Some(at) => Some(coins.swap_remove(at)),
            None => coins.pop(),
        }
    }

    /// Fills in the witnesses of the inputs that are this wallet's. `prevouts` are those of all inputs,
    /// in order.
    ///
    /// # Errors
    /// [`WalletError::Sign`].
    #[expect(deprecated, reason = "the private keys are in the descriptors, which BDK signs with")]
    pub fn sign_inputs(&self, tx: &mut Transaction, prevouts: &[TxOut]) -> Result<(), WalletError> {
        let failed = |reason: String| WalletError::Sign { reason };
        let inner = self.inner.lock();
        let mut bare = tx.clone();
        for input in &mut bare.input {
            input.witness.clear();
        }
        let mut psbt = Psbt::from_unsigned_tx(bare).map_err(|error| failed(error.to_string()))?;
        let mut ours = Vec::new();
        for (index, (input, prevout)) in psbt.inputs.iter_mut().zip(prevouts).enumerate() {
            let outpoint = tx.input.get(index).map(|input| input.previous_output);
            input.witness_utxo = Some(prevout.clone());
            if let Some(coin) = outpoint.and_then(|outpoint| inner.bdk.get_utxo(outpoint)) {
                *input = inner
                    .bdk
                    .get_psbt_input(coin, None, true)
                    .map_err(|error| failed(error.to_string()))?;
                ours.push(index);
            }
        }
        let options = SignOptions { trust_witness_utxo: true, ..SignOptions::default() };
        inner.bdk.sign(&mut psbt, options).map_err(|error| failed(error.to_string()))?;
        for index in ours {
            let witness =
                psbt.inputs.get(index).and_then(|input| input.final_script_witness.clone());
            let witness = witness.ok_or_else(|| failed(format!("input {index} stays unsigned")))?;
            if let Some(input) = tx.input.get_mut(index) {
                input.witness = witness;
            }
        }
        Ok(())
    }
}
