//! The list of all cases, and the macro that makes tests of them.

/// Makes a module with one test of each engine case: `engine_tests!(module, harness)`, where the expression makes an
/// [`EngineHarness`](crate::engine_cases::EngineHarness) for each test.
#[macro_export]
macro_rules! engine_tests {
    ($module:ident, $harness:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may name anything in scope outside")]
            use super::*;

            $crate::__each_engine_case!([$crate::__engine_tests_of!] ($harness));
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __engine_tests_of {
    (($harness:expr) $($module:ident::$case:ident)*) => {
        $($crate::__engine_test!(($harness) $module::$case);)*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __engine_test {
    (($harness:expr) $module:ident::$case:ident) => {
        #[test]
        fn $case() {
            $crate::engine_cases::$module::$case(&$harness);
        }
    };
}

/// Calls a macro with the list of all cases, after the arguments given.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_engine_case {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)* {
            $($arguments)*
            copies::vacuum_into_an_ordinary_file
            copies::backup_goes_both_ways
            copies::unfinished_backup_changes_nothing
            copies::wal_mode_source_is_readable
            copies::serialize_gives_the_file
            copies::blobs_are_written_in_place
            copies::full_text_search_works
            copies::rtree_works
            isolation::readers_and_the_writer_do_not_block_each_other
            isolation::stale_snapshot_cannot_become_the_writer
            isolation::second_writer_is_busy
            isolation::waiting_for_a_writer_ends_when_it_has_committed
            isolation::spilled_transaction_rolls_back
            isolation::rollback_over_free_pages_commits_nothing
            isolation::rollback_over_free_pages_under_exclusive_loses_nothing
            isolation::commit_that_fails_after_a_stored_rollback_is_only_that
            isolation::transaction_larger_than_every_bound_commits
            isolation::savepoints_roll_back_to_themselves
            modes::every_journal_mode_commits_and_rolls_back
            modes::wal_is_answered_delete
            modes::wal_under_exclusive_locking_is_answered
            modes::wal_under_exclusive_locking_is_refused
            modes::pages_that_are_read_in_place_are_those_of_the_snapshot
            modes::exclusive_locking_keeps_others_caches_honest
            modes::exclusive_locking_that_has_only_read_keeps_writers_out
            modes::locks_hold_whatever_name_of_the_vfs_is_used
            modes::followers_take_part_in_locks_where_they_say_so
            modes::own_commit_leaves_the_cache_warm
            modes::page_that_is_missed_counts_once
            modes::failed_transaction_of_several_without_journal_leaves_nothing
            modes::commit_that_fails_after_one_of_several_without_journal_is_only_that
            modes::failed_transaction_without_journal_leaves_nothing
            modes::undone_commit_that_made_the_file_smaller_loses_nothing
            modes::failed_shrinking_commit_under_exclusive_loses_nothing
            opening::bad_parameters_are_refused
            opening::misspelt_parameters_are_refused
            opening::page_size_is_known_before_the_first_read
            opening::names_are_checked
            opening::missing_database_cannot_be_opened
            opening::follower_sees_commits_and_cannot_write
            opening::pragmas_answer
            opening::tokio_workers_may_call
            opening::tokio_workers_of_the_fleets_own_runtime_may_call
            opening::unregistering_leaves_open_connections
            opening::registering_again_knows_open_connections
            opening::name_taken_by_another_fleet_leaves_open_connections
            pages::every_page_size_is_stored
            pages::vacuum_changes_the_page_size
            pages::full_auto_vacuum_shrinks_the_file
            pages::incremental_vacuum_shrinks_the_file
            races::checkpoint_completes_while_a_page_is_read
            races::closed_database_takes_no_lease
            random_file::random_file_operations_match_the_model
            random_sql::random_sql_matches_stock_sqlite
            rules::open_after_a_staged_commit_reads_the_staged_pages
            rules::file_that_grows_again_starts_as_zeros
            rules::collected_snapshot_is_too_old
            rules::late_stage_after_a_rollback_does_no_harm
            rules::patch_on_a_wrong_base_is_caught
            scans::cold_scans_take_few_trips_in_both_directions
            scans::cold_index_scans_take_few_trips
            scans::random_lookups_bring_nothing_along
            scans::scan_after_own_writing_takes_few_trips
            several::several_databases_commit_in_one_call
            several::databases_that_were_only_locked_do_not_matter
            several::failed_transaction_over_several_leaves_none
            several::participant_that_cannot_prepare_aborts_all
            several::lost_reply_of_several_is_resolved
            several::foreign_participant_is_refused
            several::foreign_participant_before_ours_is_refused
            several::foreign_participant_that_was_only_locked_does_not_matter
            several::foreign_participant_with_the_name_of_a_database_is_refused
            several::databases_with_the_names_of_files_take_part
            several::failure_of_several_is_told_in_words
            several::failure_of_several_is_told_to_its_own_connection
            several::readers_see_all_of_several_or_nothing
            several::names_of_one_fleet_share_a_transaction
            trips::open_and_warm_read_take_one_trip
            trips::open_after_writes_alone_takes_one_trip
            trips::open_after_a_crash_takes_one_trip
            trips::open_after_a_crash_with_a_long_tail_takes_two_trips
            trips::small_commit_takes_one_trip_and_reads_none
            trips::cache_miss_takes_one_trip
            trips::close_takes_one_trip_after_the_checkpoint
            trips::follower_read_takes_one_trip_or_none
            trips::commits_at_once_share_calls
            watching::watch_tells_of_every_commit
            watching::watch_goes_on_after_a_collection_and_ends_with_the_database
        }
    };
}
