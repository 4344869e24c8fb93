//! The C interface itself, for what the `foundationdb` crate does not let one do: use a transaction in the wrong moment.

use std::ffi::CString;

use foundationdb_sys as c;

use crate::cluster::Cluster;

/// A transaction by its pointer.
pub(crate) struct Raw(*mut c::FDBTransaction);

/// A future by its pointer.
pub(crate) struct Future(*mut c::FDBFuture);

impl Raw {
    pub(crate) fn begin(cluster: &Cluster) -> Self {
        let file = CString::new(cluster.file.as_str()).expect("a path without a zero byte");
        let (mut database, mut transaction) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the path ends with a zero; the place for the database is valid.
        assert_eq!(unsafe { c::fdb_create_database(file.as_ptr(), &raw mut database) }, 0);
        // SAFETY: the database was made just now; the place for the transaction is valid.
        assert_eq!(unsafe { c::fdb_database_create_transaction(database, &raw mut transaction) }, 0);
        // SAFETY: nobody else has this database. Its transactions outlive it.
        unsafe { c::fdb_database_destroy(database) };
        Self(transaction)
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        let (key_length, value_length) = (length(key), length(value));
        // SAFETY: the transaction lives as long as this value; the slices are as long as said.
        unsafe { c::fdb_transaction_set(self.0, key.as_ptr(), key_length, value.as_ptr(), value_length) };
    }

    pub(crate) fn get(&self, key: &[u8]) -> Future {
        // SAFETY: as above.
        Future(unsafe { c::fdb_transaction_get(self.0, key.as_ptr(), length(key), 0) })
    }

    pub(crate) fn watch(&self, key: &[u8]) -> Future {
        // SAFETY: as above.
        Future(unsafe { c::fdb_transaction_watch(self.0, key.as_ptr(), length(key)) })
    }

    pub(crate) fn commit(&self) -> Future {
        // SAFETY: as above.
        Future(unsafe { c::fdb_transaction_commit(self.0) })
    }

    pub(crate) fn on_error(&self, error: i32) -> Future {
        // SAFETY: as above.
        Future(unsafe { c::fdb_transaction_on_error(self.0, error) })
    }

    pub(crate) fn committed_version(&self) -> i64 {
        let mut version = 0;
        // SAFETY: as above; the place for the version is valid.
        let code = unsafe { c::fdb_transaction_get_committed_version(self.0, &raw mut version) };
        assert_eq!(code, 0);
        version
    }

    pub(crate) fn cancel(&self) {
        // SAFETY: as above.
        unsafe { c::fdb_transaction_cancel(self.0) };
    }

    pub(crate) fn reset(&self) {
        // SAFETY: as above.
        unsafe { c::fdb_transaction_reset(self.0) };
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: nobody else has this transaction.
        unsafe { c::fdb_transaction_destroy(self.0) };
    }
}

impl Future {
    /// Blocks until the future is ready; its error.
    pub(crate) fn wait(&self) -> i32 {
        // SAFETY: the future lives as long as this value.
        let waited = unsafe { c::fdb_future_block_until_ready(self.0) };
        assert_eq!(waited, 0);
        // SAFETY: as above.
        unsafe { c::fdb_future_get_error(self.0) }
    }

    /// What asking for the future's value answers.
    pub(crate) fn value_code(&self) -> i32 {
        let (mut present, mut value, mut length) = (0, std::ptr::null(), 0);
        // SAFETY: as above; the places are valid.
        unsafe { c::fdb_future_get_value(self.0, &raw mut present, &raw mut value, &raw mut length) }
    }

    pub(crate) fn cancel(&self) {
        // SAFETY: as above.
        unsafe { c::fdb_future_cancel(self.0) };
    }

    pub(crate) fn release_memory(&self) {
        // SAFETY: as above; nothing points into the memory.
        unsafe { c::fdb_future_release_memory(self.0) };
    }
}

impl Drop for Future {
    fn drop(&mut self) {
        // SAFETY: nobody else has this future.
        unsafe { c::fdb_future_destroy(self.0) };
    }
}

fn length(slice: &[u8]) -> i32 {
    i32::try_from(slice.len()).expect("a short slice")
}
