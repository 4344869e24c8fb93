//! The C interface: what SQLite calls. The only unsafe code of the crate.
//!
//! Each callback checks its pointers, enters a guard that turns a panic into an I/O error, and calls the safe VFS. Facts
//! about the interface are from SQLite's documentation of `sqlite3_vfs` and `sqlite3_io_methods`.

#![expect(unsafe_code, reason = "SQLite's interface is C; every block names the invariant it rests on")]

mod codes;
mod control;
mod file;
mod filesystem;
mod guard;
mod methods;
mod register;
