// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {BitcoinHeaders} from "./BitcoinHeaders.sol";
import {Predeploys} from "./Predeploys.sol";

/// @title L1Block
/// @notice What L2 knows of its L1 origin, a Bitcoin block. Interface and storage are those of the OP
///         Stack's contract of the same name, from whose slots the fee functions read.
contract L1Block {
    /// @notice Height of the L1 origin.
    uint64 public number;

    /// @notice Median time past of the L1 origin, Unix seconds.
    uint64 public timestamp;

    /// @notice Price of Bitcoin space in wei per virtual byte: the exponential average (7/8 old, 1/8
    ///         new) of the origins' fee rates.
    uint256 public basefee;

    /// @notice Hash of the L1 origin, internal byte order.
    bytes32 public hash;

    /// @notice How many L2 blocks of the same origin precede the one that set these values.
    uint64 public sequenceNumber;

    /// @notice Weight of `blobBaseFee` in the data fee, millionths. Zero.
    uint32 public blobBaseFeeScalar;

    /// @notice Weight of `basefee` in the data fee, millionths.
    uint32 public baseFeeScalar;

    /// @notice X-only public key that signs batches.
    bytes32 public batcherHash;

    /// @notice Of the OP Stack's Bedrock fork; zero.
    uint256 public l1FeeOverhead;

    /// @notice Of the OP Stack's Bedrock fork; zero.
    uint256 public l1FeeScalar;

    /// @notice Bitcoin has no blobs: one.
    uint256 public blobBaseFee;

    /// @notice Constant part of the operator fee, wei. Zero.
    uint64 public operatorFeeConstant;

    /// @notice Part of the operator fee per gas. Zero.
    uint32 public operatorFeeScalar;

    /// @notice Gas per byte of the data footprint. Zero: blocks are bounded by other meters.
    uint16 public daFootprintGasScalar;

    /// @dev Selector, the OP Stack's 174 bytes of the Jovian fork, and the merkle root.
    uint256 private constant CALLDATA_LENGTH = 4 + 174 + 32;

    error NotDepositor();
    error MalformedCalldata();

    /// @notice The account that sends the L1 attributes deposit.
    function DEPOSITOR_ACCOUNT() external pure returns (address) {
        return Predeploys.DEPOSITOR;
    }

    /// @notice The version of the interface.
    function version() external pure returns (string memory) {
        return "kedge-1";
    }

    /// @notice The native currency is bitcoin with 18 decimals.
    function isCustomGasToken() external pure returns (bool) {
        return false;
    }

    /// @notice Name of the native currency.
    function gasPayingTokenName() external pure returns (string memory) {
        return "Bitcoin";
    }

    /// @notice Symbol of the native currency.
    function gasPayingTokenSymbol() external pure returns (string memory) {
        return "BTC";
    }

    /// @notice Sets the values of a new L1 origin and records it in `BitcoinHeaders`. Only derivation's
    ///         L1 attributes deposit may call it.
    /// @dev    Arguments are packed behind the selector: baseFeeScalar u32, blobBaseFeeScalar u32,
    ///         sequenceNumber u64, timestamp u64, number u64, fee rate u256 (wei per virtual byte, not
    ///         smoothed), blobBaseFee u256, hash b256, batcherHash b256, operatorFeeScalar u32,
    ///         operatorFeeConstant u64, daFootprintGasScalar u16, merkle root b256. The average moves
    ///         and the block is recorded once per origin, however often the values are set.
    function setL1BlockValuesJovian() external {
        if (msg.sender != Predeploys.DEPOSITOR) revert NotDepositor();
        if (msg.data.length != CALLDATA_LENGTH) revert MalformedCalldata();

        uint64 newNumber = uint64(bytes8(msg.data[28:36]));
        bool newOrigin = newNumber > number || basefee == 0;

        baseFeeScalar = uint32(bytes4(msg.data[4:8]));
        blobBaseFeeScalar = uint32(bytes4(msg.data[8:12]));
        sequenceNumber = uint64(bytes8(msg.data[12:20]));
        timestamp = uint64(bytes8(msg.data[20:28]));
        number = newNumber;
        blobBaseFee = uint256(bytes32(msg.data[68:100]));
        hash = bytes32(msg.data[100:132]);
        batcherHash = bytes32(msg.data[132:164]);
        operatorFeeScalar = uint32(bytes4(msg.data[164:168]));
        operatorFeeConstant = uint64(bytes8(msg.data[168:176]));
        daFootprintGasScalar = uint16(bytes2(msg.data[176:178]));

        if (newOrigin) {
            uint256 feeRate = uint256(bytes32(msg.data[36:68]));
            uint256 average = basefee;
            basefee = average == 0 ? feeRate : (average * 7 + feeRate) / 8;
            BitcoinHeaders(Predeploys.BITCOIN_HEADERS).record(newNumber, hash, bytes32(msg.data[178:210]), timestamp);
        }
    }
}
