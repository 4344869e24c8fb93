//! The cases. Each is written from the contract alone, and its documentation says which clause it proves.

pub mod checkpoint;
pub mod collect;
pub mod commit;
pub mod concurrency;
pub mod durability;
pub mod faults;
pub mod fencing;
pub mod head;
pub mod limits;
pub mod locks;
pub mod log;
pub mod naming;
pub mod open;
pub mod random;
pub mod reads;
pub mod sessions;
pub mod staging;
pub mod watch;

mod model;

macro_rules! list_names {
    (plain: [$($plain:ident::$a:ident)*] reopen: [$($reopen:ident::$b:ident)*] clock: [$($clock:ident::$c:ident)*]) => {
        /// The names of all cases that [`store_tests!`](crate::store_tests) makes tests of.
        pub const NAMES: &[&str] = &[$(stringify!($a),)* $(stringify!($b),)* $(stringify!($c),)*];
    };
}

crate::__each_store_case!([list_names!]);
