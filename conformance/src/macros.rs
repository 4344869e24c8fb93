//! The list of all cases, and the macro that makes tests of them.

/// Makes a module with one test of each store case.
///
/// `store_tests!(module, harness)`, where the expression makes a [`Harness`](crate::Harness) for each test. What the
/// harness cannot give is said at the end: `without reopen`, `without clock`, or `without reopen, clock`. The cases that
/// need it are ignored, visibly, and a test checks that the harness really cannot.
#[macro_export]
macro_rules! store_tests {
    ($module:ident, $harness:expr) => {
        $crate::__store_module!($module, $harness, [] [], true, true);
    };
    ($module:ident, $harness:expr, without reopen) => {
        $crate::__store_module!(
            $module,
            $harness,
            [#[ignore = "without reopen: the harness cannot open a store again"]] [],
            false,
            true
        );
    };
    ($module:ident, $harness:expr, without clock) => {
        $crate::__store_module!(
            $module,
            $harness,
            [] [#[ignore = "without clock: the harness cannot move the store's clock"]],
            true,
            false
        );
    };
    ($module:ident, $harness:expr, without reopen, clock) => {
        $crate::__store_module!(
            $module,
            $harness,
            [#[ignore = "without reopen: the harness cannot open a store again"]]
            [#[ignore = "without clock: the harness cannot move the store's clock"]],
            false,
            false
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_module {
    ($module:ident, $harness:expr, [$($reopen:tt)*] [$($clock:tt)*], $can_reopen:literal, $has_clock:literal) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may name anything in scope outside")]
            use super::*;

            fn harness() -> impl $crate::Harness {
                $harness
            }

            #[test]
            fn harness_gives_what_it_says() {
                $crate::run($crate::__check_harness(harness(), $can_reopen, $has_clock));
            }

            $crate::__each_store_case!([$crate::__store_test_list!] [$($reopen)*] [$($clock)*]);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_test_list {
    (
        [$($reopen:tt)*] [$($clock:tt)*]
        plain: [$($a:ident::$plain:ident)*]
        reopen: [$($b:ident::$needs_reopen:ident)*]
        clock: [$($c:ident::$needs_clock:ident)*]
    ) => {
        $crate::__store_tests_of!([] $($a::$plain)*);
        $crate::__store_tests_of!([$($reopen)*] $($b::$needs_reopen)*);
        $crate::__store_tests_of!([$($clock)*] $($c::$needs_clock)*);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests_of {
    ($attributes:tt $($module:ident::$case:ident)*) => {
        $($crate::__store_test!($attributes $module::$case);)*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_test {
    ([$($attribute:tt)*] $module:ident::$case:ident) => {
        #[test]
        $($attribute)*
        fn $case() {
            let harness = harness();
            $crate::run($crate::store_cases::$module::$case(&harness));
        }
    };
}

/// Calls a macro with the list of all cases, after the arguments given.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_store_case {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)* {
            $($arguments)*
            plain: [
                sessions::expired_session_is_not_renewed
                sessions::session_cannot_come_back
                sessions::renewed_session_lives_on
                sessions::ended_session_frees_its_leases
                sessions::force_ends_the_holders_session
                sessions::unknown_session_is_fenced
                sessions::expired_session_gets_no_lease
                sessions::expired_holder_is_named_until_the_next_grant
                open::open_without_create_finds_nothing
                open::new_database_is_empty
                open::concurrent_creates_make_one
                open::each_grant_raises_the_epoch
                open::held_lease_is_refused
                open::epoch_end_is_kept
                open::open_with_known_txid
                open::long_tail_is_truncated
                head::head_brings_what_is_new
                head::released_epoch_cannot_write
                head::warm_pages_come_with_the_open
                head::warm_pages_come_with_a_checkpoint
                head::open_is_one_moment
                head::any_name_can_be_used
                watch::watch_tells_of_commits
                watch::watch_ends_with_the_database
                fencing::every_write_is_fenced
                fencing::fence_needs_no_clock
                fencing::deleted_database_is_unreadable
                fencing::checkpoints_and_takeovers_do_not_mix
                fencing::databases_do_not_mix
                commit::commit_needs_the_expected_txid
                commit::commit_needs_the_commit_before_it
                commit::acknowledged_commit_is_seen_by_all
                commit::commit_can_release
                commit::commit_is_idempotent_by_id
                commit::staged_commit_is_idempotent_by_id
                commit::independent_commits_fail_alone
                commit::atomic_commit_is_all_or_none
                commit::naming_a_database_twice_is_invalid
                commit::one_of_many_commits_wins
                reads::newest_row_wins
                reads::rows_come_in_order_of_page
                reads::bytes_come_back_as_they_were
                reads::delta_brings_its_base
                reads::lineage_falls_through
                log::log_falls_through_the_lineage
                reads::unknown_database_is_not_found
                log::log_has_no_gap
                log::large_records_come_one_by_one
                reads::scan_finds_every_row
                staging::staged_rows_are_visible_above_the_head_only
                staging::restaging_replaces
                staging::late_stage_is_refused
                staging::stage_requests_keep_their_order
                staging::lost_chunk_blocks_the_next
                staging::lost_chunk_blocks_the_commit
                staging::late_discard_is_refused
                staging::discard_raises_the_generation
                staging::foreign_staging_blocks_commit
                staging::flip_and_discard_exclude_each_other
                staging::staging_survives_other_writes
                checkpoint::checkpoint_moves_forward_only
                checkpoint::half_a_checkpoint_is_harmless
                checkpoint::checkpoint_without_rows_completes
                checkpoint::checkpoint_rests_on_one_before
                checkpoint::lost_piece_blocks_the_checkpoint
                checkpoint::late_piece_of_an_attempt_is_refused
                checkpoint::rows_that_cannot_be_are_invalid
                collect::horizon_never_falls
                collect::horizon_is_found_among_many_checkpoints
                collect::horizon_rises_past_checkpoints_of_a_wrong_clock
                collect::read_below_the_horizon_fails
                collect::rows_come_with_their_horizon
                reads::rows_come_with_their_checkpoint
                collect::dead_rows_are_collected
                collect::bases_outlive_their_deltas
                collect::zeros_hide_what_is_kept_before_them
                collect::collected_log_is_refused
                collect::nothing_a_snapshot_needs_is_collected
                naming::listing_goes_by_bytes
                naming::ten_thousand_databases_are_listed
                naming::listing_while_writing
                naming::rename_moves_the_name
                naming::one_of_many_gets_a_name
                naming::purge_removes_the_bytes
                limits::limits_are_enforced
                limits::atomic_limits_are_enforced
                locks::shared_lock_keeps_the_writer_out
                locks::exclusive_lock_keeps_new_readers_out
                locks::shared_lock_lets_in_others_of_its_session
                locks::shared_locks_are_counted_by_number
                locks::exclusive_lock_ends_with_the_lease
                locks::shared_lock_comes_with_the_head
                locks::locks_bind_those_who_ask_for_them
                locks::expired_session_gets_no_shared_lock
                locks::locks_end_with_their_session
                locks::shared_and_exclusive_race
                locks::head_of_a_shared_lock_stands_still
                concurrency::two_holders_fight
                concurrency::many_holders_fight
                concurrency::atomic_commits_do_not_deadlock
                concurrency::reads_race_with_collection
                concurrency::holes_race_with_collection
                concurrency::dropped_calls_leave_nothing_locked
                faults::lost_replies_are_resolved_by_id
                faults::deposed_writer_learns_its_outcome
                faults::late_commit_is_fenced
                faults::late_stage_after_discard_is_harmless
                faults::late_discard_undoes_no_later_staging
                faults::late_writes_are_fenced
                faults::repeated_calls_do_no_harm
                faults::refused_calls_change_nothing
                random::random_histories_match_the_model
            ]
            reopen: [
                durability::reopening_keeps_everything
                durability::acknowledged_commits_survive
                durability::reopening_keeps_the_fences
            ]
            clock: [
                open::epoch_end_is_kept_for_a_day
            ]
        }
    };
}
