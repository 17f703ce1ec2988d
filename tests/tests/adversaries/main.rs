//! Everybody who wants a wrong state root to stand, or a right one to fall, on a simulated Bitcoin and on
//! Bitcoin Core: the same scenarios on both.

mod bonds;
mod challengers;
mod claims;
mod proofs;
mod segments;
mod state;
mod timing;

type Result<T = ()> = anyhow::Result<T>;

/// Runs each scenario on both Bitcoins.
macro_rules! adversaries {
    ($($theme:ident: $($scenario:ident)*;)*) => {
        #[expect(non_snake_case, reason = "kB is the unit")]
        mod sim {
            $($(#[tokio::test]
            async fn $scenario() -> crate::Result {
                crate::$theme::$scenario(kedge_tests::adversary::Ground::Simulated).await
            })*)*
        }
        #[expect(non_snake_case, reason = "kB is the unit")]
        mod bitcoind {
            $($(#[tokio::test]
            async fn $scenario() -> crate::Result {
                crate::$theme::$scenario(kedge_tests::adversary::Ground::Core).await
            })*)*
        }
    };
}

adversaries! {
    claims:
        wrong_root
        wrong_root_in_middle_segment
        right_roots_wrong_final
        wrong_block_number
        agreed_root_at_wrong_height
        wrong_l1_block
        skipped_deposit
        invented_deposit
        invented_withdrawal
        stale_parent
        fork_of_assertions
        assertion_flood;
    bonds:
        assertion_without_bond
        bond_spent_early
        bond_reused;
    proofs:
        proof_for_right_assertion
        proof_truncated
        proof_bit_flipped
        proof_with_extra_nodes
        proof_with_missing_node
        proof_over_size
        proof_decompression_bomb
        proof_for_other_chain
        chunk_with_copied_header
        dishonest_challenger_flood;
    timing:
        proof_copied_by_front_runner
        proof_in_last_block_of_window
        proof_one_block_after_window
        proof_reorged_out
        assertion_reorged_out;
    challengers:
        two_challengers
        challenger_crash_at_every_point;
    segments:
        segment_at_target_exactly
        batch_of_invalid_transactions_only
        million_empty_blocks;
    state:
        contract_of_24_kB
        self_destruct_and_recreate
        storage_heavy_segment
        precompile_heavy_segment
        blockhash_of_256_ancestors
        deep_trie_collision_keys;
}
