//! Tests of what is done with databases as a whole.

use std::sync::{Arc, Mutex};

use crate::engine::database::Database;
use crate::engine::meanwhile::Meanwhile;
use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{MemoryStore, Operation};
use crate::types::DatabaseName;

fn name() -> DatabaseName {
    DatabaseName::new("a").unwrap()
}

/// Writes something, and commits it.
fn write(database: &Database, byte: u8) -> Result<()> {
    let snapshot = database.begin_read()?;
    let mut buffer = database.begin_write(snapshot, false)?;
    buffer.set_foreign();
    database.write(&mut buffer, 0, &[byte; 100])?;
    let committed = database.commit(&mut buffer, snapshot)?;
    database.end_write(&mut buffer);
    database.unpin(committed);
    Ok(())
}

/// Removing stopped whatever was open under the name by then: also the database that somebody had created after the old one was
/// deleted, while the reply to that was still on its way.
#[test]
fn database_that_is_created_under_a_removed_name_goes_on() {
    let (store, meanwhile) = Meanwhile::around(Arc::new(MemoryStore::default()));
    let fleet = Fleet::builder(store).build().unwrap();
    let open = |create| fleet.connect(&name(), Role::Writer, create);
    let old = open(true);
    write(&old, 1).unwrap();
    fleet.disconnect(&old);
    let created = Arc::new(Mutex::new(None));
    let deed = {
        let (fleet, created) = (fleet.clone(), Arc::clone(&created));
        move || {
            let database = fleet.connect(&name(), Role::Writer, true);
            write(&database, 2).unwrap();
            *created.lock().unwrap() = Some(database);
        }
    };
    meanwhile.arm(Operation::Delete, deed);
    fleet.remove(&name(), false).unwrap();
    let database = created.lock().unwrap().take().unwrap();
    write(&database, 3).unwrap();
    fleet.disconnect(&database);
}

/// Whoever still has the removed database open, a follower too, is told when it reads on.
#[test]
fn those_who_have_a_removed_database_open_are_stopped() {
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
    let writer = fleet.connect(&name(), Role::Writer, true);
    write(&writer, 1).unwrap();
    let follower = fleet.connect(&name(), Role::Follower, false);
    let snapshot = follower.begin_read().unwrap();
    follower.unpin(snapshot);
    fleet.remove(&name(), true).unwrap();
    for open in [&writer, &follower] {
        assert_eq!(open.stopped().unwrap().kind(), ErrorKind::NotFound);
        fleet.disconnect(open);
    }
}
