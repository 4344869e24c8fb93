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
            pages::every_page_size_is_stored
            pages::vacuum_changes_the_page_size
            pages::full_auto_vacuum_shrinks_the_file
            pages::incremental_vacuum_shrinks_the_file
            isolation::readers_and_the_writer_do_not_block_each_other
            isolation::stale_snapshot_cannot_become_the_writer
            isolation::second_writer_is_busy
            isolation::spilled_transaction_rolls_back
            isolation::transaction_larger_than_every_bound_commits
            isolation::savepoints_roll_back_to_themselves
        }
    };
}
