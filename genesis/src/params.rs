//! The consensus parameters of each named network.

use crate::units::{L1Height, L1Ref, Sats};
use alloy_primitives::{Address, address, b256, hex};

/// The named networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// One process with its own Bitcoin, for development. Its keys are public.
    Dev,
    /// On somebody's `bitcoind -regtest`, for tests with separate processes. Its keys are public.
    Regtest,
    /// On Bitcoin's signet.
    Signet,
    /// On Bitcoin's main network.
    Mainnet,
}

impl Network {
    /// All networks, in the order in which help lists them.
    pub const ALL: [Self; 4] = [Self::Dev, Self::Regtest, Self::Signet, Self::Mainnet];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Regtest => "regtest",
            Self::Signet => "signet",
            Self::Mainnet => "mainnet",
        }
    }

    /// The network of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// The parameters of this network.
    pub const fn params(self) -> &'static Params {
        match self {
            Self::Dev => &DEV,
            Self::Regtest => &REGTEST,
            Self::Signet => &SIGNET,
            Self::Mainnet => &MAINNET,
        }
    }
}

/// The Bitcoin network that a Kedge network is anchored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BitcoinNetwork {
    /// `regtest`
    Regtest,
    /// `signet`, the default one
    Signet,
    /// `main`
    Main,
}

impl BitcoinNetwork {
    /// The name that Bitcoin Core's `getblockchaininfo` answers as `chain`.
    pub const fn core_name(self) -> &'static str {
        match self {
            Self::Regtest => "regtest",
            Self::Signet => "signet",
            Self::Main => "main",
        }
    }
}

/// Public keys that a network's rules name. All are x-only (BIP-340).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Signs batches and unsafe blocks.
    pub sequencer: [u8; 32],
    /// The vault's signers, in the order in which `multi_a` lists them.
    pub signers: &'static [[u8; 32]],
    /// How many signers it takes to spend the vault.
    pub threshold: u8,
    /// May spend the vault when nobody has moved it for `recovery_delay` blocks.
    pub recovery: [u8; 32],
}

/// How L2 gas is priced (EIP-1559 as the OP Stack's Holocene and Jovian forks put it in `extraData`)
/// and how the cost of Bitcoin space is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeParams {
    /// EIP-1559 base fee change denominator.
    pub denominator: u32,
    /// EIP-1559 elasticity multiplier: gas limit over gas target.
    pub elasticity: u32,
    /// Lowest base fee, wei per gas. 1 gwei would be 2,100 sat a transfer, so it is far below.
    pub min_base_fee: u64,
    /// Base fee of block 0, wei per gas.
    pub initial_base_fee: u64,
    /// `baseFeeScalar` of the OP Stack's Fjord cost function, in millionths. A byte of a batch is a
    /// quarter of a virtual byte and Fjord multiplies by 16, so 10^6 / 64 = 15,625 passes on the cost.
    pub l1_fee_scalar: u32,
    /// Lowest fee rate that derivation reports for an L1 block, sat per 1,000 virtual bytes.
    pub min_l1_fee_rate: u64,
    /// Highest fee rate that derivation reports for an L1 block, sat per 1,000 virtual bytes.
    pub max_l1_fee_rate: u64,
}

/// Every consensus parameter of one network. A hash of this is part of every assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Which network this is.
    pub network: Network,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The Bitcoin network underneath.
    pub bitcoin: BitcoinNetwork,
    /// L1 origin of L2 block 0; derivation reads the blocks above it.
    pub l1_start: L1Ref,
    /// Header time of `l1_start`, which is the timestamp of L2 block 0. Unix seconds.
    pub l1_start_time: u32,
    /// L1 confirmations of a batch after which its blocks are `finalized`. 1 means: in the tip.
    pub finality_depth: u32,
    /// If no valid batch covers epoch `h` by L1 block `h + sequencing_window`, derivation makes it.
    pub sequencing_window: u32,
    /// L1 blocks after its first chunk within which a channel must be complete.
    pub channel_timeout: u32,
    /// L1 blocks within which a fraud proof against an assertion must be confirmed.
    pub challenge_window: u32,
    /// The most L1 blocks that one assertion may span.
    pub max_assertion_span: u32,
    /// A segment ends at the first L2 block at which its meter reaches this much gas.
    pub segment_target_gas: u64,
    /// Gas limit of every L2 block: EIP-7825's cap of one transaction, so any transaction fits.
    pub block_gas_limit: u64,
    /// Witness bytes of one L2 block; a transaction that would exceed it is skipped.
    pub block_witness_limit: u64,
    /// Gas that the meter charges for any block, full or empty, so that empty blocks are not free.
    pub block_overhead_gas: u64,
    /// Gas of one deposit's call of `BitcoinBridge.credit`.
    pub deposit_gas: u64,
    /// Gas of the L1 attributes deposit.
    pub attributes_gas: u64,
    /// Deposits' share of one L2 block's gas; the rest of an epoch's deposits go to further blocks. Whatever
    /// their recipients load leaves forced transactions 0.6 MB of `block_witness_limit`.
    pub deposits_gas_per_block: u64,
    /// Forced transactions' share of one epoch, in declared gas; the rest queues.
    pub forced_gas_per_epoch: u64,
    /// What a forced message pays into the vault, sat per 100 declared gas.
    pub forced_sats_per_100_gas: u64,
    /// L1 blocks after which a depositor may take an unswept plain-address payment back.
    pub refund_delay: u16,
    /// Bond of an assertion: pays for publishing the largest proof at the proof fee ceiling.
    pub proposer_bond: Sats,
    /// The proof fee ceiling, sat per 1,000 virtual bytes: up to this fee rate on Bitcoin the bond pays for
    /// any proof.
    pub proof_fee_rate: u64,
    /// L1 blocks beyond the challenge window for which a bond stays slashable.
    pub bond_margin: u16,
    /// Smaller deposits are not credited (they are listed as unattributed).
    pub min_deposit: Sats,
    /// Smaller withdrawals are refused by `BitcoinBridge`.
    pub min_withdrawal: Sats,
    /// L1 blocks for which a rotated-out vault script still credits deposits.
    pub rotation_grace: u32,
    /// L1 blocks without a spend after which the recovery key may spend the vault (BIP-68 limit 65,535).
    pub recovery_delay: u16,
    /// Largest decoded batch body, bytes.
    pub max_batch_bytes: u32,
    /// Most blocks of one batch: each costs every node an execution, however little it holds.
    pub max_batch_blocks: u32,
    /// Largest chunk of an envelope, bytes, so that a reveal stays a standard transaction.
    pub max_chunk_bytes: u32,
    /// Most chunks of one channel: their hashes fit one 520-byte push together with the header.
    pub max_chunks: u16,
    /// How far an L2 timestamp may be ahead of its origin's median time past, seconds.
    pub max_time_drift: u64,
    /// Where the fee vaults pay out on L2. Zero on a network that has not been launched: there the
    /// vaults keep what they have.
    pub fee_recipient: Address,
    /// Pricing.
    pub fees: FeeParams,
    /// The named keys; none on a network that has not been launched.
    pub keys: Option<Keys>,
}

/// What a chunk of a proof takes on Bitcoin besides its bytes, at most, virtual bytes: header and pushes of
/// its envelope, the reveal around it, its commit output and a share of the transaction that pays for it.
const CHUNK_OVERHEAD_VBYTES: u64 = 1_000;

/// The most L1 blocks whose forced messages one epoch takes, so that deriving an epoch reads a bounded
/// number of Bitcoin blocks however long the queue was held up. Above 1, so that the queue catches up.
pub const FORCED_BLOCKS_PER_EPOCH: u32 = 4;

/// A batch begins no epoch once the batches of the same L1 block have had so many Bitcoin blocks read for
/// their epochs' deposits and forced messages. An epoch takes one unless the forced queue is held up.
pub const BATCH_EPOCH_READS: u32 = 6;

/// How many signatures of batches are checked in one L1 block. Anybody can fill a block with envelopes whose
/// signatures have to be checked before they are ignored.
pub const BATCH_SIGNATURES: u32 = 500;

/// The most Bitcoin blocks that a verdict on one segment reads: that which it is derived from; those for the
/// epochs of its batches, of which the last may begin one short of the limit and meet a queue that is held up;
/// and one in which a chunk of a batch should be and is not. An epoch whose window ends needs fewer, and only
/// where no batch begins one.
pub const MAX_L1_READS: u32 = 1 + (BATCH_EPOCH_READS + FORCED_BLOCKS_PER_EPOCH) + 1;

impl Params {
    /// A segment ends at the first L2 block at which its witness meter reaches this many bytes, so that
    /// what a fraud proof carries is bounded: this, and one block's witness.
    pub const fn segment_witness_target(&self) -> u64 {
        self.block_witness_limit / 4
    }

    /// The most L2 blocks of one segment: the meter charges each `block_overhead_gas` at least.
    pub const fn max_segment_blocks(&self) -> u64 {
        match self.block_overhead_gas {
            0 => u64::MAX,
            overhead => self.segment_target_gas.div_ceil(overhead),
        }
    }

    /// Virtual size of the largest proof that a channel carries: chunks of witness bytes, four to a virtual
    /// byte, and the transactions around them.
    pub const fn max_proof_vbytes(&self) -> u64 {
        let chunks = self.max_chunks as u64;
        let witness = chunks.saturating_mul(self.max_chunk_bytes as u64);
        witness.div_ceil(4).saturating_add(chunks.saturating_mul(CHUNK_OVERHEAD_VBYTES))
    }

    /// What publishing the largest proof costs at the proof fee ceiling.
    pub const fn max_proof_fee(&self) -> Sats {
        Sats(self.max_proof_vbytes().saturating_mul(self.proof_fee_rate).div_ceil(1_000))
    }
}

const MAINNET: Params = Params {
    network: Network::Mainnet,
    chain_id: 21_333,
    bitcoin: BitcoinNetwork::Main,
    l1_start: L1Ref {
        height: L1Height(0),
        hash: b256!("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"),
    },
    l1_start_time: 1_231_006_505,
    finality_depth: 6,
    sequencing_window: 144,
    channel_timeout: 12,
    challenge_window: 1008,
    max_assertion_span: 144,
    segment_target_gas: 2_000_000,
    block_gas_limit: 16_777_216,
    block_witness_limit: 2_000_000,
    block_overhead_gas: 50_000,
    deposit_gas: 100_000,
    attributes_gas: 1_000_000,
    deposits_gas_per_block: 1_500_000,
    forced_gas_per_epoch: 8_388_608,
    forced_sats_per_100_gas: 1,
    refund_delay: 1008,
    proposer_bond: Sats(100_000_000),
    proof_fee_rate: 80_000,
    bond_margin: 144,
    min_deposit: Sats(10_000),
    min_withdrawal: Sats(10_000),
    rotation_grace: 4_032,
    recovery_delay: 65_535,
    max_batch_bytes: 16 * 1024 * 1024,
    max_batch_blocks: 10_000,
    max_chunk_bytes: 390_000,
    max_chunks: 12,
    max_time_drift: 4 * 3600,
    fee_recipient: Address::ZERO,
    fees: FeeParams {
        denominator: 50,
        elasticity: 2,
        min_base_fee: 1_000_000,
        initial_base_fee: 1_000_000,
        l1_fee_scalar: 15_625,
        min_l1_fee_rate: 1_000,
        max_l1_fee_rate: 2_000_000,
    },
    keys: None,
};

const SIGNET: Params = Params {
    network: Network::Signet,
    chain_id: 21_334,
    bitcoin: BitcoinNetwork::Signet,
    l1_start: L1Ref {
        height: L1Height(0),
        hash: b256!("f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000"),
    },
    l1_start_time: 1_598_918_400,
    ..MAINNET
};

const REGTEST: Params = Params {
    network: Network::Regtest,
    chain_id: 21_335,
    bitcoin: BitcoinNetwork::Regtest,
    l1_start: L1Ref {
        height: L1Height(0),
        hash: b256!("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"),
    },
    l1_start_time: 1_296_688_602,
    finality_depth: 2,
    sequencing_window: 12,
    channel_timeout: 6,
    challenge_window: 6,
    refund_delay: 20,
    bond_margin: 6,
    rotation_grace: 20,
    fee_recipient: address!("8d42B8A791518c91AD28457158C86Eda75E76FfC"),
    keys: Some(DEV_KEYS),
    ..MAINNET
};

const DEV: Params = Params { network: Network::Dev, chain_id: 21_336, ..REGTEST };

/// The public keys of [`dev_secrets`].
const DEV_KEYS: Keys = Keys {
    sequencer: hex!("745c50b925d316af866089b85eee5acc456f9cd8b2ef4198d53e2e7bb38b2ebd"),
    signers: &[
        hex!("0cf2d4c322f092f2df2affeed18fcba5dd57dcbd2b181e28e6e6ca31b854dc89"),
        hex!("db38ad8b2729cda7055a97e1716edec6429c9ea824a3e4717b9c48b2ea87dbce"),
        hex!("5f265793ffe725749fafdace78fab1aa0b77203ca7f7642d0d3e352027ec7c99"),
    ],
    threshold: 2,
    recovery: hex!("9ca63cdf04eee7d43ff5c4674374ae98061d2a39eecadf2386b6e006763a4c73"),
};

/// The secret keys of the `dev` and `regtest` networks. They are public: anybody can spend what they
/// hold, which is worthless coins.
pub mod dev_secrets {
    use alloy_primitives::hex;

    /// Of `sha256("kedge dev sequencer")`.
    pub const SEQUENCER: [u8; 32] =
        hex!("2cd7638191a509aa48b24de2ad4918063ddf3dcfd8ead9ef46dd40b3b1a820fe");
    /// Of `sha256("kedge dev signer N")`, N from 0.
    pub const SIGNERS: [[u8; 32]; 3] = [
        hex!("07045c0b3a56b2c2753391662b47d1e0af6691a5682b88dd14183b647ac3944b"),
        hex!("27bbc99fe73fb8bf367689ff78f1b82131a303afd97b678a05419906ad3d8b5c"),
        hex!("f04490cb8788c24df1be4fff4f3e8491a9e76deb7aaec2f75cd33d5b597433d5"),
    ];
    /// Of `sha256("kedge dev recovery")`.
    pub const RECOVERY: [u8; 32] =
        hex!("dac5c8dd3229c80684b64a7aac61c5f5058331dd6d4f9a3904ba77c873b7ce3b");
    /// Of `sha256("kedge dev fees")`: the EVM account that the fee vaults pay.
    pub const FEES: [u8; 32] =
        hex!("b1e1d097bcb95bf811092377ecb60d1c2d9217920b8521336daa5b07535a755b");
    /// The mnemonic of the ten funded accounts, the one that development tools share.
    pub const MNEMONIC: &str = "test test test test test test test test test test test junk";
}

/// The most RISC-V steps of one verdict: what a dispute can search.
pub const MAX_DISPUTE_STEPS: u64 = 1 << 36;
/// The most gas of one segment.
pub const MAX_SEGMENT_GAS: u64 = 19_000_000;
/// RISC-V steps for each gas, at most: of the loop over the costliest thing (`docs/riscv.md`).
pub const STEPS_PER_GAS: u64 = 1_750;
/// RISC-V steps for each full Bitcoin block that a verdict reads, at most.
pub const STEPS_PER_L1_READ: u64 = 2_100_000_000;
/// RISC-V steps of a verdict besides: for the batches of its L1 block, and what comes with a proof.
pub const OTHER_STEPS: u64 = 8_000_000_000;

// One verdict can be searched, whatever anybody made it of. Tests measure that no figure is exceeded.
const _: () = assert!(
    MAX_SEGMENT_GAS * STEPS_PER_GAS + MAX_L1_READS as u64 * STEPS_PER_L1_READ + OTHER_STEPS
        < MAX_DISPUTE_STEPS
);

// A segment ends at the first block that reaches the target, so it overshoots by one block at most.
const _: () = {
    let mut networks: &[Network] = &Network::ALL;
    while let [network, rest @ ..] = networks {
        let params = network.params();
        assert!(params.segment_target_gas + params.block_gas_limit <= MAX_SEGMENT_GAS);
        // Whoever proves an assertion wrong gets the bond, which has to be worth it.
        assert!(params.max_proof_fee().0 <= params.proposer_bond.0);
        // One deposit at least fits the deposits' share, so an epoch's deposits always progress.
        assert!(params.deposit_gas <= params.deposits_gas_per_block);
        assert!(
            params.attributes_gas
                + params.deposits_gas_per_block
                + params.forced_gas_per_epoch
                + params.block_overhead_gas
                <= params.block_gas_limit
        );
        networks = rest;
    }
};

#[cfg(test)]
mod tests {
    use super::{dev_secrets, *};
    use alloy_primitives::keccak256;
    use k256::{elliptic_curve::sec1::ToEncodedPoint, schnorr::SigningKey};
    use sha2::{Digest, Sha256};

    #[test]
    fn public_keys_belong_to_the_published_secrets() {
        let public = |secret: &[u8; 32]| -> [u8; 32] {
            SigningKey::from_bytes(secret).unwrap().verifying_key().to_bytes().into()
        };
        for network in [Network::Dev, Network::Regtest] {
            let keys = network.params().keys.unwrap();
            assert_eq!(keys.sequencer, public(&dev_secrets::SEQUENCER));
            assert_eq!(keys.signers, dev_secrets::SIGNERS.each_ref().map(public));
            assert_eq!(keys.recovery, public(&dev_secrets::RECOVERY));
        }
    }

    #[test]
    fn published_secrets_are_hashes_of_their_names() {
        let secret = |name: &str| -> [u8; 32] { Sha256::digest(name).into() };
        assert_eq!(dev_secrets::SEQUENCER, secret("kedge dev sequencer"));
        assert_eq!(dev_secrets::RECOVERY, secret("kedge dev recovery"));
        assert_eq!(dev_secrets::FEES, secret("kedge dev fees"));
        for (name, found) in ["kedge dev signer 0", "kedge dev signer 1", "kedge dev signer 2"]
            .iter()
            .zip(dev_secrets::SIGNERS)
        {
            assert_eq!(found, secret(name));
        }
    }

    #[test]
    fn fees_of_the_development_networks_go_to_the_published_secret() {
        let key = k256::SecretKey::from_slice(&dev_secrets::FEES).unwrap();
        let point = key.public_key().to_encoded_point(false);
        let address = Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
        assert_eq!(Network::Dev.params().fee_recipient, address);
        assert_eq!(Network::Regtest.params().fee_recipient, address);
    }

    #[test]
    fn networks_differ_in_chain_id_and_are_found_by_name() {
        for (position, network) in Network::ALL.into_iter().enumerate() {
            assert_eq!(Network::from_name(network.name()), Some(network));
            assert_eq!(network.params().network, network);
            for other in &Network::ALL[..position] {
                assert_ne!(other.params().chain_id, network.params().chain_id);
            }
        }
        assert_eq!(Network::from_name("testnet"), None);
    }

    #[test]
    fn thresholds_are_majorities_of_the_signers() {
        for keys in Network::ALL.into_iter().filter_map(|network| network.params().keys) {
            let signers = keys.signers.len();
            assert!(
                usize::from(keys.threshold) <= signers && usize::from(keys.threshold) * 2 > signers
            );
        }
    }
}
