// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Predeploys} from "./Predeploys.sol";

/// @title BitcoinHeaders
/// @notice Bitcoin blocks by height, from the first L1 origin of the chain on: hash, merkle root and
///         median time past. Hashes are in internal byte order, the order in which Bitcoin serialises
///         them, reversed from how explorers display them.
/// @dev    Written by `L1Block` only, once per origin. A height that is not recorded reads as zero.
contract BitcoinHeaders {
    struct Block {
        bytes32 hash;
        bytes32 merkleRoot;
        uint64 medianTime;
    }

    mapping(uint256 height => Block) internal blocks;
    uint64 internal tipHeight;

    error OnlyL1Block();

    /// @notice Records a Bitcoin block. Only `L1Block` may call it.
    /// @param height     Height of the block.
    /// @param hash       Its hash.
    /// @param root       Merkle root of its transactions.
    /// @param medianTime Its median time past, Unix seconds.
    function record(uint64 height, bytes32 hash, bytes32 root, uint64 medianTime) external {
        if (msg.sender != Predeploys.L1_BLOCK) revert OnlyL1Block();
        blocks[height] = Block(hash, root, medianTime);
        tipHeight = height;
    }

    /// @notice The latest L1 origin.
    function tip() external view returns (uint64 height, bytes32 hash) {
        return (tipHeight, blocks[tipHeight].hash);
    }

    /// @notice Hash of the Bitcoin block at `height`, zero when it is not recorded.
    function blockHash(uint256 height) external view returns (bytes32) {
        return blocks[height].hash;
    }

    /// @notice Merkle root of the Bitcoin block at `height`, zero when it is not recorded.
    function merkleRoot(uint256 height) external view returns (bytes32) {
        return blocks[height].merkleRoot;
    }

    /// @notice Median time past of the Bitcoin block at `height`, zero when it is not recorded.
    function medianTimePast(uint256 height) external view returns (uint64) {
        return blocks[height].medianTime;
    }

    /// @notice Whether a transaction is in the Bitcoin block at `height`.
    /// @dev    Refuses 64-byte transactions, which cannot be told from an inner node of the tree
    ///         (CVE-2017-12842), and a right sibling equal to its left one, which only the padding of
    ///         an odd level makes (CVE-2012-2459). It does not prove the depth of the tree: a mined
    ///         64-byte transaction could pose as an inner node above a leaf that does not exist.
    ///         Bitcoin nodes do not relay such a transaction and finding one takes great work, but who
    ///         guards more than that work costs should also demand the coinbase with a proof of the
    ///         same length.
    /// @param rawTx       The transaction, serialised without witness.
    /// @param height      Height of the block.
    /// @param merkleProof Sibling hashes from the leaf to the root, internal byte order.
    /// @param index       Position of the transaction in the block.
    function verifyTransaction(bytes calldata rawTx, uint256 height, bytes32[] calldata merkleProof, uint256 index)
        external
        view
        returns (bool)
    {
        bytes32 root = blocks[height].merkleRoot;
        if (root == 0 || rawTx.length == 64) return false;

        bytes32 node = sha256(abi.encode(sha256(rawTx)));
        for (uint256 i = 0; i < merkleProof.length; i++) {
            bytes32 sibling = merkleProof[i];
            if (index & 1 == 0) {
                node = sha256(abi.encode(sha256(abi.encode(node, sibling))));
            } else {
                if (sibling == node) return false;
                node = sha256(abi.encode(sha256(abi.encode(sibling, node))));
            }
            index >>= 1;
        }
        return index == 0 && node == root;
    }
}
