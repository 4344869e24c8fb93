//! Checkpoints.

use litefleet::store::{CheckpointRequest, Pieces};
use litefleet::{DatabaseId, Result};

use super::{EmbeddedStore, Writer, stage, stored};
use crate::engine::Engine;
use crate::error::Outcome;
use crate::keys::{self, Kind, Table};
use crate::seal::unseal;
use crate::values;
use crate::view::{Durability, Purpose, View};

/// Left-over staging entries that each call removes.
const ENTRIES_PER_CHECKPOINT: usize = 1024;

impl EmbeddedStore {
    /// Rows need no fsync: the journal keeps them before the head that names the checkpoint, and that before the
    /// collection that removes what it replaces.
    pub(super) fn write_checkpoint(&self, request: &CheckpointRequest) -> Result<()> {
        self.limits().check_checkpoint(request)?;
        Ok(self.write_pages(|engine, writer| checkpoint(engine, writer, request))?)
    }
}

fn checkpoint(engine: &Engine, writer: &mut Writer, request: &CheckpointRequest) -> Outcome<()> {
    let view = engine.view();
    let id = request.database;
    let mut head = stored::head(&view, id)?;
    stored::fence(&head, request.epoch)?;
    request.check_place(head.checkpoint, head.txid)?;
    let mut changes = engine.changes();
    let before = pieces(&view, id)?;
    let after = before.with(request, head.checkpoint)?;
    if after != before {
        stored::put(&mut changes, &keys::of_database(Kind::Pieces, id), &values::encode_pieces(after));
    }
    for row in &request.rows {
        stored::put_row(&mut changes, id, row);
    }
    let tidy = head.stale_entries;
    if tidy {
        let removed = stage::remove_stale(&view, &mut changes, id, &mut head, ENTRIES_PER_CHECKPOINT);
        writer.note_removal(id, removed);
    }
    if request.last {
        head.checkpoint = request.txid;
        let key = keys::checkpoint(id, request.txid);
        // The first completion of a checkpoint counts.
        if view.get(Table::Heads, &key)?.is_none() {
            let time = values::encode_number(request.time.get());
            stored::put(&mut changes, &key, &time);
        }
        stored::put_warm(&mut changes, id, &request.warm);
    }
    if request.last || tidy {
        stored::put_head(&mut changes, id, &head);
    }
    changes.apply(Purpose::Grow, Durability::Ordered)
}

/// The pieces of the last checkpoint in several.
fn pieces(view: &View<'_>, id: DatabaseId) -> Outcome<Pieces> {
    let key = keys::of_database(Kind::Pieces, id);
    let Some(value) = view.get(Table::Heads, &key)? else { return Ok(Pieces::default()) };
    let what = format!("the pieces of a checkpoint of database {id}");
    Ok(values::decode_pieces(&what, unseal(&what, &key, &value)?)?)
}
