//! Addresses of the contracts that exist from block 0, and of the system accounts that only
//! derivation can send from.

use alloy_primitives::{Address, address};

/// `L1Block`: what L2 knows of its L1 origin. Same address and storage as in the OP Stack.
pub const L1_BLOCK: Address = address!("4200000000000000000000000000000000000015");
/// `GasPriceOracle`: what a transaction pays for its bytes on Bitcoin.
pub const GAS_PRICE_ORACLE: Address = address!("420000000000000000000000000000000000000F");
/// `L2ToL1MessagePasser`: its storage root is the header's withdrawals root.
pub const L2_TO_L1_MESSAGE_PASSER: Address = address!("4200000000000000000000000000000000000016");
/// Receives the priority fees; the beneficiary of every block.
pub const SEQUENCER_FEE_VAULT: Address = address!("4200000000000000000000000000000000000011");
/// Receives the base fees.
pub const BASE_FEE_VAULT: Address = address!("4200000000000000000000000000000000000019");
/// Receives the L1 data fees.
pub const L1_FEE_VAULT: Address = address!("420000000000000000000000000000000000001A");
/// Receives the operator fees, which are zero.
pub const OPERATOR_FEE_VAULT: Address = address!("420000000000000000000000000000000000001B");
/// `BitcoinBridge`: credits deposits, queues withdrawals.
pub const BITCOIN_BRIDGE: Address = address!("4200000000000000000000000000000000000B01");
/// `BitcoinHeaders`: Bitcoin block hashes and merkle roots by height.
pub const BITCOIN_HEADERS: Address = address!("4200000000000000000000000000000000000B02");

/// Multicall3, at the address that it has on every chain.
pub const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// The deterministic deployment proxy (`CREATE2` factory), at the address that it has everywhere.
pub const DETERMINISTIC_DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
/// EIP-2935's history of block hashes.
pub const HISTORY_STORAGE: Address = alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS;
/// EIP-4788's ring of parent beacon block roots (always zero here).
pub const BEACON_ROOTS: Address = alloy_eips::eip4788::BEACON_ROOTS_ADDRESS;

/// Sends the L1 attributes deposit. Nobody has its key.
pub const DEPOSITOR: Address = address!("DeaDDEaDDeAdDeAdDEAdDEaddeAddEAdDEAd0001");
/// Sends bridge deposits and vault rotations to [`BITCOIN_BRIDGE`]. Nobody has its key.
pub const BRIDGE_DEPOSITOR: Address = address!("deaddeaddeaddeaddeaddeaddeaddeaddead0b17");

/// Precompile: BIP-340 Schnorr verification.
pub const SCHNORR: Address = address!("0000000000000000000000000000000000000340");
