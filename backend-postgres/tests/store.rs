//! The store cases on Postgres: directly, with tiny limits, without prepared statements through PgBouncer in transaction
//! mode, on partitioned tables, and as a role that only serves.
#![cfg(feature = "servers")]

mod support;

use litefleet_conformance::store_tests;
use support::{Stores, TINY, bouncer, server};

store_tests!(postgres, Stores::at(server().url()).moves_times());
store_tests!(postgres_tiny, Stores::at(server().url()).limits(TINY), without clock);
store_tests!(postgres_bouncer, Stores::at(bouncer().url()), without clock);
store_tests!(postgres_partitions, Stores::at(server().url() + "&page_partitions=4"), without clock);
store_tests!(postgres_role, Stores::at(server().url()).only_serves(), without clock);
