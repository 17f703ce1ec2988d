//! The one list of tables. Each is a RocksDB column family; its number is part of undo records.

/// Whose history a table follows, hence which undo record restores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A function of the L2 chain up to `latest`; undone block by block.
    L2,
    /// A function of the Bitcoin chain up to the processed tip; undone block by block.
    L1,
    /// Neither: contents addressed by their hash, this node's own records, undo records themselves.
    Free,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal $domain:ident,)*) => {
        /// A table. Keys are big-endian where order matters; rows are described at the accessors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($(#[$doc])* $name = $number,)*
        }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the column family.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whose history it follows.
            pub const fn domain(self) -> Domain {
                match self { $(Self::$name => Domain::$domain,)* }
            }

            /// Position in [`Table::ALL`].
            pub(crate) const fn index(self) -> usize {
                enum Position { $($name,)* }
                match self { $(Self::$name => Position::$name as usize,)* }
            }

            /// The table of that number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

tables! {
    /// Schema version, identity of the chain, finalized head.
    0 Meta "meta" Free,
    /// Code hash to code. Never undone: a code is what its hash says.
    1 Codes "codes" Free,
    /// L2 number to what restores the tables of domain L2.
    2 UndoL2 "undo_l2" Free,
    /// L1 height to what restores the tables of domain L1.
    3 UndoL1 "undo_l1" Free,
    /// Bitcoin transactions that this node signed.
    4 OwnTxs "own_txs" Free,
    /// Changesets of the operator's Bitcoin wallet.
    5 Wallet "wallet" Free,
    /// Channels being published to Bitcoin.
    6 Publications "publications" Free,
    /// Transactions waiting to be included.
    7 Mempool "mempool" Free,
    /// What the other roles of this node have to remember.
    8 Roles "roles" Free,
    /// L2 number to the sequencer's signature of that block. Goes with the block, and once it is final.
    9 Signatures "signatures" Free,

    /// L2 number to header.
    16 Headers "headers" L2,
    /// L2 number to hash.
    17 Hashes "hashes" L2,
    /// L2 hash to number.
    18 Numbers "numbers" L2,
    /// L2 number to payload: the block's body together with what was skipped.
    19 Payloads "payloads" L2,
    /// L2 number to receipts.
    20 Receipts "receipts" L2,
    /// L2 number to what execution and derivation know beyond the header.
    21 Blocks "blocks" L2,
    /// Transaction hash to L2 number and index in the block.
    22 Transactions "transactions" L2,
    /// Address to account, latest.
    23 Accounts "accounts" L2,
    /// Address and slot to value, latest.
    24 Storage "storage" L2,
    /// Address and L2 number to the account before that block, absent as empty value.
    25 AccountHistory "account_history" L2,
    /// Address, slot and L2 number to the value before that block, zero as empty value.
    26 StorageHistory "storage_history" L2,
    /// Owner, nibble path and L2 number, newest first, to the trie node after that block, gone as empty value.
    27 Tries "tries" L2,
    /// Withdrawal index to queued withdrawal.
    29 Withdrawals "withdrawals" L2,
    /// Latest number and running sums of the L2 chain.
    30 L2Meta "l2_meta" L2,
    /// Address and L2 number of each block that loaded the account and left it as it was, or changed it
    /// and was pruned; and of block 0 for each account that it has.
    32 AccountReads "account_reads" L2,
    /// Address, or position and topic, of a log and L2 number, without value.
    33 LogIndex "log_index" L2,

    /// L1 height to block, as Bitcoin serialises it.
    48 L1Blocks "l1_blocks" L1,
    /// L1 hash to height.
    49 L1Heights "l1_heights" L1,
    /// L1 height to hash, safe head and counts.
    50 L1Rows "l1_rows" L1,
    /// L1 height to derive state.
    51 DeriveStates "derive_states" L1,
    /// L1 height to the claims at its segments' ends.
    52 Claims "claims" L1,
    /// L1 height and position to deposit.
    53 Deposits "deposits" L1,
    /// Outpoint to L1 height and position of the deposit.
    54 DepositOutpoints "deposit_outpoints" L1,
    /// Outpoint to vault output without recipient.
    55 Unattributed "unattributed" L1,
    /// Withdrawal index to its payout.
    56 Payouts "payouts" L1,
    /// Outpoint to unspent vault output.
    57 VaultUtxos "vault_utxos" L1,
    /// Batch index to batch.
    58 Batches "batches" L1,
    /// L1 height to the notes on skipped messages.
    59 Notes "notes" L1,
    /// Assertion id to assertion, settled and rejected ones included.
    60 Assertions "assertions" L1,
    /// Tip, assertion tracker, sums of the L1 chain.
    61 L1Meta "l1_meta" L1,
    /// Outpoint to unspent bond of an assertion.
    62 Bonds "bonds" L1,
    /// Outpoint to how the bond there was spent.
    63 BondSpends "bond_spends" L1,
}

impl Table {
    /// Number in undo records, below 64.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (index, table) in Table::ALL.iter().enumerate() {
            assert_eq!(table.index(), index);
            assert_eq!(Table::from_number(table.number()), Some(*table));
            assert_eq!(Table::ALL.iter().filter(|other| other.name() == table.name()).count(), 1);
        }
    }
}
