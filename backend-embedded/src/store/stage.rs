//! Large transactions: staging and discarding.
//!
//! Each `stage` call leaves one entry that lists its pages, under the head's generation and the call's sequence. Entries of older generations
//! belong to nothing any more, except while such a transaction is being discarded.

use litefleet::store::{DiscardRequest, Discarded, StageRequest};
use litefleet::{DatabaseId, Error, PageSet, Result};

use super::{EmbeddedStore, Writer, stored};
use crate::engine::Engine;
use crate::error::Outcome;
use crate::keys::{self, Kind, Table};
use crate::seal::unseal;
use crate::values::{self, HeadValue, Staging};
use crate::view::{Changes, Durability, Purpose, View};

impl EmbeddedStore {
    pub(super) fn stage_rows(&self, request: &StageRequest) -> Result<()> {
        self.limits().check_stage(request)?;
        Ok(self.write_pages(|engine, _| stage(engine, request))?)
    }

    pub(super) fn discard(&self, request: &DiscardRequest) -> Result<Discarded> {
        Ok(self.write_pages(|engine, _| discard(engine, request))?)
    }
}

fn stage(engine: &Engine, request: &StageRequest) -> Outcome<()> {
    let view = engine.view();
    let id = request.database;
    let mut head = stored::head(&view, id)?;
    stored::fence(&head, request.epoch)?;
    stored::expect(&head, request.expected)?;
    if head.generation != request.generation || matches!(head.staging, Staging::Discarding(_)) {
        return Err(Error::conflict(format!(
            "staging generation {} was discarded, the current one is {}",
            request.generation, head.generation
        ))
        .into());
    }
    let mut changes = engine.changes();
    let last = last_sequence(&view, id, head.generation)?;
    if !request.is_due(last)? {
        return Ok(());
    }
    let pages: PageSet = request.rows.iter().map(|row| row.page).collect();
    let key = keys::staging(id, head.generation, request.sequence);
    stored::put(&mut changes, &key, &values::encode_pages(&pages));
    for row in &request.rows {
        stored::put_row(&mut changes, id, row);
    }
    if head.staging == Staging::None {
        head.staging = Staging::Open;
        stored::put_head(&mut changes, id, &head);
    }
    changes.apply(Purpose::Grow, Durability::Ordered)
}

/// The sequence of the last request that was applied to an entry; 0 when there is none.
pub(super) fn last_sequence(view: &View<'_>, id: DatabaseId, generation: u64) -> Outcome<u64> {
    let first = keys::staging(id, generation, 0);
    let last = keys::staging(id, generation, u64::MAX);
    match view.range(Table::Heads, &first, &last).next_back() {
        Some(entry) => Ok(keys::last_number(&entry?.0).unwrap_or_default()),
        None => Ok(0),
    }
}

fn discard(engine: &Engine, request: &DiscardRequest) -> Outcome<Discarded> {
    let view = engine.view();
    let id = request.database;
    let mut head = stored::head(&view, id)?;
    stored::fence(&head, request.epoch)?;
    stored::expect(&head, request.expected)?;
    let goes_on = request.generation.checked_add(1) == Some(head.generation) && head.staging != Staging::Open;
    if request.generation != head.generation && !goes_on {
        return Err(Error::conflict(format!(
            "staging generation {} is not the current one, {}",
            request.generation, head.generation
        ))
        .into());
    }
    let mut changes = engine.changes();
    let generation = match head.staging {
        Staging::None => None,
        Staging::Open => Some(head.generation),
        Staging::Discarding(generation) => Some(generation),
    };
    if !goes_on {
        head.generation += 1;
    }
    head.staging = match generation {
        Some(generation) => Staging::Discarding(generation),
        None => Staging::None,
    };
    let mut left = request.limit.max(1);
    if let Some(generation) = generation {
        let first = keys::staging(id, generation, 0);
        let last = keys::staging(id, generation, u64::MAX);
        let mut all = true;
        for entry in view.range(Table::Heads, &first, &last) {
            let (key, value) = entry?;
            if left == 0 {
                all = false;
                break;
            }
            let what = format!("a staging entry of database {id}");
            let pages = values::decode_pages(&what, unseal(&what, &key, &value)?)?;
            let mut kept = PageSet::new();
            for page in pages.pages() {
                if left > 0 {
                    let row = keys::page(id, page, request.expected.next());
                    changes.remove(Table::Pages, &row);
                    left -= 1;
                } else {
                    kept.insert(page);
                }
            }
            if kept.is_empty() {
                changes.remove(Table::Heads, &key);
            } else {
                stored::put(&mut changes, &key, &values::encode_pages(&kept));
                all = false;
                break;
            }
        }
        if all {
            head.staging = Staging::None;
        }
    }
    stored::put_head(&mut changes, id, &head);
    changes.apply(Purpose::Free, Durability::Ordered)?;
    Ok(Discarded { generation: head.generation, done: head.staging == Staging::None })
}

impl Writer {
    /// Says that what is damaged of a database's stale entries cannot be removed: once, as each call after it finds the same.
    pub(super) fn note_removal(&mut self, id: DatabaseId, removed: Outcome<()>) {
        match removed {
            Ok(()) => {
                self.unremovable.remove(&id);
            }
            Err(fault) if self.unremovable.insert(id) => {
                let error = &fault as &dyn std::error::Error;
                tracing::warn!(database = %id, error, "what a large transaction has left over cannot be removed");
            }
            Err(_) => {}
        }
    }
}

/// Removes entries that belong to nothing any more, as far as the limit goes, from both ends up to what cannot be read. They only
/// take room: that one is damaged is no reason to do nothing else, and an error is for [`Writer::note_removal`] alone.
pub(super) fn remove_stale(
    view: &View<'_>,
    changes: &mut Changes<'_>,
    id: DatabaseId,
    head: &mut HeadValue,
    limit: usize,
) -> Outcome<()> {
    let needed = match head.staging {
        Staging::None | Staging::Open => head.generation,
        Staging::Discarding(generation) => generation,
    };
    let Some(stale) = needed.checked_sub(1) else {
        head.stale_entries = false;
        return Ok(());
    };
    let first = keys::of_database(Kind::Staging, id);
    let last = keys::staging(id, stale, u64::MAX);
    let mut left = limit;
    let entries = || view.range(Table::Heads, &first, &last);
    let more = remove_entries(entries(), changes, &mut left);
    head.stale_entries = *more.as_ref().unwrap_or(&true);
    if more.is_err() {
        // It ends there as well.
        let _ended = remove_entries(entries().rev(), changes, &mut left);
    }
    more.map(drop)
}

/// Whether there are more of them than the limit allowed.
fn remove_entries(
    entries: impl Iterator<Item = Outcome<(fjall::Slice, fjall::Slice)>>,
    changes: &mut Changes<'_>,
    left: &mut usize,
) -> Outcome<bool> {
    for entry in entries {
        let (key, _) = entry?;
        if *left == 0 {
            return Ok(true);
        }
        changes.remove(Table::Heads, &key);
        *left -= 1;
    }
    Ok(false)
}
