//! What Rust needs to know of the predeployed contracts: calls, events, and the packed call data of
//! the L1 attributes deposit.

use crate::params::Params;
use alloc::vec::Vec;
use alloy_primitives::{B256, Bytes, U256};

pub use bridge::BitcoinBridge;
pub use headers::BitcoinHeaders;
pub use l1_block::L1Block;
pub use oracle::GasPriceOracle;
pub use passer::L2ToL1MessagePasser;
pub use vault::FeeVault;

/// Generates one contract's types in a module of their own, where `sol!` may leave undocumented what
/// the Solidity source documents.
macro_rules! contract {
    ($module:ident, $($body:tt)*) => {
        #[allow(missing_docs, clippy::too_many_arguments, reason = "generated code")]
        mod $module {
            alloy_sol_types::sol! { $($body)* }
        }
    };
}

contract! { bridge,
    /// The predeploy at [`crate::predeploys::BITCOIN_BRIDGE`]; `contracts/BitcoinBridge.sol`
    /// documents it.
    #[derive(Debug, PartialEq, Eq)]
    contract BitcoinBridge {
        event WithdrawalQueued(uint64 indexed index, address indexed sender, bytes scriptPubKey, uint64 amountSats, uint64 feeSats);
        event DepositCredited(address indexed recipient, uint256 amount);
        event DepositHeld(address indexed recipient, uint256 amount);
        event DepositClaimed(address indexed recipient, address indexed to, uint256 amount);
        event VaultScriptAdded(bytes scriptPubKey);

        error OnlySystem();
        error NotWholeSats();
        error UnsupportedScript();
        error VaultScript();
        error BelowMinimum(uint256 amountSats, uint256 minimumSats);
        error TooMuch();
        error NothingToClaim();
        error RecipientRefused();

        function credit(address recipient) external payable;
        function claim(address to) external;
        function withdraw(bytes scriptPubKey) external payable returns (uint64 index);
        function withdrawAtLeast(bytes scriptPubKey, uint64 leastSats) external payable returns (uint64 index);
        function addVaultScript(bytes scriptPubKey) external;
        function payoutFeeSats(uint256 scriptLength) external view returns (uint256);
        function nextWithdrawalIndex() external view returns (uint64);
        function withdrawals(uint64 index) external view returns (uint64 amountSats, uint64 feeSats, bytes scriptPubKey);
        function claimable(address recipient) external view returns (uint256);
        function minWithdrawalSats() external view returns (uint64);
        function isVaultScript(bytes32 scriptHash) external view returns (bool);
    }
}

contract! { headers,
    /// The predeploy at [`crate::predeploys::BITCOIN_HEADERS`]; `contracts/BitcoinHeaders.sol`
    /// documents it.
    #[derive(Debug, PartialEq, Eq)]
    contract BitcoinHeaders {
        error OnlyL1Block();

        function record(uint64 height, bytes32 hash, bytes32 root, uint64 medianTime) external;
        function tip() external view returns (uint64 height, bytes32 hash);
        function blockHash(uint256 height) external view returns (bytes32);
        function merkleRoot(uint256 height) external view returns (bytes32);
        function medianTimePast(uint256 height) external view returns (uint64);
        function verifyTransaction(bytes rawTx, uint256 height, bytes32[] merkleProof, uint256 index) external view returns (bool);
    }
}

contract! { l1_block,
    /// The predeploy at [`crate::predeploys::L1_BLOCK`]; `contracts/L1Block.sol` documents it.
    #[derive(Debug, PartialEq, Eq)]
    contract L1Block {
        error NotDepositor();
        error MalformedCalldata();

        function setL1BlockValuesJovian() external;
        function number() external view returns (uint64);
        function timestamp() external view returns (uint64);
        function basefee() external view returns (uint256);
        function hash() external view returns (bytes32);
        function sequenceNumber() external view returns (uint64);
        function batcherHash() external view returns (bytes32);
        function baseFeeScalar() external view returns (uint32);
        function blobBaseFeeScalar() external view returns (uint32);
        function blobBaseFee() external view returns (uint256);
        function operatorFeeScalar() external view returns (uint32);
        function operatorFeeConstant() external view returns (uint64);
        function daFootprintGasScalar() external view returns (uint16);
    }
}

contract! { oracle,
    /// The predeploy at [`crate::predeploys::GAS_PRICE_ORACLE`]; `contracts/GasPriceOracle.sol`
    /// documents it.
    #[derive(Debug, PartialEq, Eq)]
    contract GasPriceOracle {
        function getL1Fee(bytes unsignedTx) external view returns (uint256);
        function getL1FeeUpperBound(uint256 unsignedTxSize) external view returns (uint256);
        function getL1GasUsed(bytes unsignedTx) external view returns (uint256);
        function getOperatorFee(uint256 gasUsed) external view returns (uint256);
        function l1BaseFee() external view returns (uint256);
        function baseFeeScalar() external view returns (uint32);
        function blobBaseFee() external view returns (uint256);
        function blobBaseFeeScalar() external view returns (uint32);
        function gasPrice() external view returns (uint256);
        function baseFee() external view returns (uint256);
        function decimals() external pure returns (uint256);
    }
}

contract! { passer,
    /// The predeploy at [`crate::predeploys::L2_TO_L1_MESSAGE_PASSER`];
    /// `contracts/L2ToL1MessagePasser.sol` documents it.
    #[derive(Debug, PartialEq, Eq)]
    contract L2ToL1MessagePasser {
        error ValueNotAccepted();

        event MessagePassed(uint256 indexed nonce, address indexed sender, address indexed target, uint256 value, uint256 gasLimit, bytes data, bytes32 withdrawalHash);

        function initiateWithdrawal(address target, uint256 gasLimit, bytes data) external payable;
        function messageNonce() external view returns (uint256);
        function sentMessages(bytes32 withdrawalHash) external view returns (bool);
    }
}

contract! { vault,
    /// The predeploys that collect fees; `contracts/FeeVault.sol` documents them.
    #[derive(Debug, PartialEq, Eq)]
    contract FeeVault {
        event Withdrawal(uint256 value, address to, address from);

        error NoRecipient();
        error RecipientRefused();

        function withdraw() external returns (uint256 value);
        function recipient() external view returns (address);
        function totalProcessed() external view returns (uint256);
    }
}

/// Selector of `setL1BlockValuesJovian()`, the first bytes of [`attributes_calldata`].
pub const SET_L1_BLOCK_VALUES_JOVIAN: [u8; 4] = [0x3d, 0xb6, 0xbe, 0x2b];

/// Length of [`attributes_calldata`]: the OP Stack's 178 bytes of the Jovian fork and one more word.
pub const ATTRIBUTES_CALLDATA_LEN: usize = 178 + 32;

/// What the L1 attributes deposit tells L2 of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1Attributes {
    /// Height of the origin.
    pub number: u64,
    /// Hash of the origin, internal byte order.
    pub hash: B256,
    /// Merkle root of the origin's transactions, internal byte order.
    pub merkle_root: B256,
    /// Median time past of the origin (median of its header time and its ten ancestors'), Unix
    /// seconds.
    pub median_time: u64,
    /// Fee rate of the origin alone, not smoothed, sat per 1,000 virtual bytes.
    pub fee_rate: u64,
    /// How many L2 blocks of the same origin precede this one.
    pub sequence_number: u64,
}

/// Wei per virtual byte at `fee_rate` sat per 1,000 virtual bytes: 10^10 / 1,000 per unit.
pub fn wei_per_vbyte(fee_rate: u64) -> U256 {
    U256::from(u128::from(fee_rate).saturating_mul(10_000_000))
}

/// The call data of the L1 attributes deposit: the OP Stack's packed layout of the Jovian fork, then
/// the origin's merkle root as one more word.
///
/// `batcherHash` is the sequencer's x-only key. `blobBaseFee` is 1, its scalar and the operator fee are
/// 0: Bitcoin has no blobs and the data fee alone covers the operator. The DA footprint scalar is 0
/// because blocks are bounded by the meters of the parameters instead.
pub fn attributes_calldata(params: &Params, at: &L1Attributes) -> Bytes {
    let batcher = params.keys.map_or(B256::ZERO, |keys| B256::from(keys.sequencer));
    let mut data = Vec::with_capacity(ATTRIBUTES_CALLDATA_LEN);
    data.extend_from_slice(&SET_L1_BLOCK_VALUES_JOVIAN);
    data.extend_from_slice(&params.fees.l1_fee_scalar.to_be_bytes());
    data.extend_from_slice(&0u32.to_be_bytes());
    data.extend_from_slice(&at.sequence_number.to_be_bytes());
    data.extend_from_slice(&at.median_time.to_be_bytes());
    data.extend_from_slice(&at.number.to_be_bytes());
    data.extend_from_slice(&wei_per_vbyte(at.fee_rate).to_be_bytes::<32>());
    data.extend_from_slice(&U256::ONE.to_be_bytes::<32>());
    data.extend_from_slice(at.hash.as_slice());
    data.extend_from_slice(batcher.as_slice());
    data.extend_from_slice(&0u32.to_be_bytes());
    data.extend_from_slice(&0u64.to_be_bytes());
    data.extend_from_slice(&0u16.to_be_bytes());
    data.extend_from_slice(at.merkle_root.as_slice());
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use alloy_primitives::hex;
    use alloy_sol_types::SolCall;

    #[test]
    fn attributes_are_packed_as_in_the_op_stack_with_the_merkle_root_behind() {
        assert_eq!(L1Block::setL1BlockValuesJovianCall::SELECTOR, SET_L1_BLOCK_VALUES_JOVIAN);
        let at = L1Attributes {
            number: 0x0102,
            hash: B256::repeat_byte(0xaa),
            merkle_root: B256::repeat_byte(0xbb),
            median_time: 0x0304,
            fee_rate: 1_000,
            sequence_number: 5,
        };
        let expected = hex!(
            "3db6be2b00003d09000000000000000000000005000000000000030400000000000001020000000000000000"
            "0000000000000000000000000000000000000002540be400"
            "0000000000000000000000000000000000000000000000000000000000000001"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "745c50b925d316af866089b85eee5acc456f9cd8b2ef4198d53e2e7bb38b2ebd"
            "0000000000000000000000000000"
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
        );
        assert_eq!(attributes_calldata(Network::Dev.params(), &at).as_ref(), expected);
        assert_eq!(expected.len(), ATTRIBUTES_CALLDATA_LEN);
    }

    #[test]
    fn one_sat_per_virtual_byte_is_ten_to_the_ten_wei() {
        assert_eq!(wei_per_vbyte(1_000), U256::from(10_000_000_000u64));
        assert_eq!(wei_per_vbyte(u64::MAX), U256::from(u64::MAX) * U256::from(10_000_000));
    }
}
