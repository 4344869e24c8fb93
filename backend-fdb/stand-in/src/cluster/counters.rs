//! Counts of what reached the cluster, by name, so that tests can hold a budget against them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// All counts since the cluster came to be, or since the command `reset`.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)+
        }

        impl Counters {
            pub(crate) fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

counters! {
    /// Transactions that the client library has made, in the process that has the cluster.
    transactions,
    /// Requests for a read version.
    read_versions,
    /// Of those, with batch priority.
    batch_read_versions,
    /// Reads of one key.
    gets,
    /// Resolved key selectors.
    get_keys,
    /// Range reads: one for each reply.
    ranges,
    /// Rows and bytes that range reads returned.
    range_rows,
    range_bytes,
    /// Replies to range reads that ended as at the end of a shard.
    ranges_cut,
    /// Commits that arrived, with whatever outcome.
    commits,
    /// Commits that reached the queue of the next batch.
    queued,
    /// Commits that took effect.
    commits_applied,
    /// Commits refused for a real conflict.
    conflicts,
    /// Commits and reads refused because their version was too old, without a fault being injected.
    too_old,
    /// Reads refused because their version had not been reached.
    future_version,
    /// What arrived with commits.
    mutations,
    keys_written,
    ranges_cleared,
    key_bytes_written,
    value_bytes_written,
    read_conflict_ranges,
    write_conflict_ranges,
    /// Sizes of transactions by the client's count, summed, and the largest ones.
    commit_bytes,
    largest_commit,
    largest_key,
    largest_value,
    /// How far back the accepted reads and commits reached at most, in versions (a million is a second).
    oldest_read,
    oldest_commit,
    /// Watches that were set.
    watches,
    /// Calls that the client refused for a size limit: key, value or transaction too large.
    refused_for_size,
    /// Faults that were injected, and restarts among them.
    faults,
    restarts,
    /// Commits that were applied after their client had been told something else.
    late_commits,
}
