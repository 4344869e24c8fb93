//! Opening, releasing, and the head.

use litefleet::store::{EpochEnd, HeadReply, HeadRequest, LeaseRequest, OpenRequest, Opened};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, PageNo, PageSet, Result, UnixMillis};

use super::pages::read_row;
use super::{EmbeddedStore, Writer, log, stored};
use crate::engine::Engine;
use crate::error::{Outcome, unless_damaged};
use crate::keys::{self, Kind, Table};
use crate::seal::unseal;
use crate::values::{self, HeadValue};
use crate::view::{Changes, Durability, Purpose, View};

/// Ids are reserved in blocks, so that most creations need not wait for the disk: after a crash the rest of a block is
/// skipped.
const ID_BLOCK: u64 = 1024;
/// How long the end of an epoch is kept.
pub(super) const EPOCH_END_KEPT_MILLIS: u64 = 24 * 3600 * 1000;
/// The most old ends that a grant clears away.
const ENDS_PER_GRANT: usize = 16;

impl EmbeddedStore {
    pub(super) fn open_database(&self, request: &OpenRequest) -> Result<Opened> {
        if request.lease.is_none() {
            let opened = self.read(|engine| {
                let view = engine.view();
                match stored::find(&view, &request.name)? {
                    Some(id) => self.opened(&view, id, request, false).map(Some),
                    None if request.create => Ok(None),
                    None => Err(Error::not_found(format!("there is no database named {}", request.name)).into()),
                }
            })?;
            if let Some(opened) = opened {
                return Ok(opened);
            }
        }
        // The moment is fixed under the writer's mutex, and read after it, so that nobody waits for a long tail.
        let (id, created, moment) = self.write(|engine, writer| {
            let (id, created) = self.create_and_grant(engine, writer, request)?;
            Ok((id, created, engine.view().moment()))
        })?;
        self.read(|engine| self.opened(&engine.view_at(&moment)?, id, request, created))
    }

    fn create_and_grant(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        request: &OpenRequest,
    ) -> Outcome<(DatabaseId, bool)> {
        let view = engine.view();
        let found = stored::find(&view, &request.name)?;
        let mut changes = engine.changes();
        let mut durability = Durability::Ordered;
        let (id, mut head) = match found {
            Some(id) => (id, stored::head(&view, id)?),
            None if request.create => {
                if let Some(lease) = request.lease {
                    self.sessions.check_live(lease.session)?;
                }
                let id = new_id(writer, &mut changes, &mut durability);
                let name = &request.name;
                stored::put(&mut changes, &keys::named(name), &values::encode_number(id.get()));
                let key = keys::of_database(Kind::NameOf, id);
                stored::put(&mut changes, &key, name.as_str().as_bytes());
                (id, HeadValue::empty())
            }
            None => {
                return Err(Error::not_found(format!("there is no database named {}", request.name)).into());
            }
        };
        if let Some(lease) = request.lease {
            self.grant(&view, &mut changes, (id, &request.name), &mut head, lease)?;
        } else if found.is_some() {
            return Ok((id, false));
        }
        stored::put_head(&mut changes, id, &head);
        let purpose = match found {
            Some(_) => Purpose::Free,
            None => Purpose::Grow,
        };
        changes.apply(purpose, durability)?;
        if durability == Durability::Now {
            writer.reserved_id = id.get() + ID_BLOCK;
        }
        Ok((id, found.is_none()))
    }

    /// Raises the epoch. It need not be durable at once: the only ones who know of it live in this process, and what
    /// they commit under it comes after it in the journal.
    fn grant(
        &self,
        view: &View<'_>,
        changes: &mut Changes<'_>,
        (id, name): (DatabaseId, &DatabaseName),
        head: &mut HeadValue,
        lease: LeaseRequest,
    ) -> Outcome<()> {
        self.sessions.check_live(lease.session)?;
        let other = head.holder.filter(|holder| *holder != lease.session && self.sessions.live(*holder));
        if let Some(holder) = other
            && !lease.force
        {
            let holder = self.sessions.holder(holder);
            return Err(Error::lease_held(format!(
                "{name} is held by {} for at least {:.1} s more unless it is released",
                holder.label,
                holder.expires_in.unwrap_or_default().as_secs_f64()
            ))
            .into());
        }
        let now = self.slot.config().clock.unix();
        let end = EpochEnd { epoch: head.epoch, txid: head.txid, commit_id: head.commit_id };
        let key = keys::epoch_end(id, end.epoch);
        stored::put(changes, &key, &values::encode_end(&end, now));
        stored::put(changes, &keys::epoch_end_time(now, id, end.epoch), &[]);
        forget_old_ends(view, changes, now, ENDS_PER_GRANT)?;
        head.epoch = head.epoch.next();
        head.holder = Some(lease.session);
        if let Some(deposed) = other {
            // Also when the grant fails below: then its process starts a new session for nothing.
            self.sessions.end(deposed);
        }
        Ok(())
    }

    fn opened(&self, view: &View<'_>, id: DatabaseId, request: &OpenRequest, created: bool) -> Outcome<Opened> {
        let head = stored::head(view, id)?;
        let known = request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid);
        let after = known.unwrap_or(head.checkpoint);
        let tail = log::tail(view, id, &head, after, request.tail_bytes)?;
        let mut warm = Vec::new();
        if known.is_none() {
            // They are a hint: what cannot be read is left to whoever asks for it.
            for page in unless_damaged(warm_pages(view, id))?.unwrap_or_default().pages() {
                let before = warm.len();
                if unless_damaged(read_row(view, id, page, head.checkpoint, &mut warm))?.is_none() {
                    warm.truncate(before);
                }
            }
        }
        Ok(Opened { database: id, created, head: stored::public(&head, &self.sessions), tail, warm })
    }

    pub(super) fn release_lease(&self, id: DatabaseId, epoch: Epoch, warm: &[PageNo]) -> Result<()> {
        Ok(self.write(|engine, _| {
            let mut head = stored::head(&engine.view(), id)?;
            if head.epoch == epoch && head.holder.is_none() {
                return Ok(());
            }
            stored::fence(&head, epoch)?;
            head.holder = None;
            let mut changes = engine.changes();
            stored::put_head(&mut changes, id, &head);
            stored::put_warm(&mut changes, id, warm);
            changes.apply(Purpose::Free, Durability::Ordered)
        })?)
    }

    pub(super) fn read_head(&self, request: &HeadRequest) -> Result<HeadReply> {
        self.read(|engine| {
            let view = engine.view();
            let id = request.database;
            let head = stored::head(&view, id)?;
            let ended = match request.epoch {
                Some(epoch) if epoch < head.epoch => epoch_end(&view, id, epoch)?,
                _ => None,
            };
            Ok(HeadReply {
                name: stored::name(&view, id)?,
                tail: log::tail(&view, id, &head, request.known, request.tail_bytes)?,
                head: stored::public(&head, &self.sessions),
                ended,
            })
        })
    }
}

fn new_id(writer: &mut Writer, changes: &mut Changes<'_>, durability: &mut Durability) -> DatabaseId {
    writer.last_id += 1;
    if writer.last_id > writer.reserved_id {
        let reserved = writer.last_id + ID_BLOCK;
        let key = keys::singleton(Kind::LastId);
        stored::put(changes, &key, &values::encode_number(reserved));
        *durability = Durability::Now;
    }
    DatabaseId(writer.last_id)
}

pub(super) fn epoch_end(view: &View<'_>, id: DatabaseId, epoch: Epoch) -> Outcome<Option<EpochEnd>> {
    let key = keys::epoch_end(id, epoch);
    let what = format!("the end of epoch {epoch} of database {id}");
    match view.get(Table::Heads, &key)? {
        Some(value) => {
            let body = unseal(&what, &key, &value)?;
            Ok(Some(values::decode_end(&what, epoch, body)?))
        }
        None => Ok(None),
    }
}

/// Removes ends of epochs that are old enough to forget, of any database. How many there were, up to the limit.
pub(super) fn forget_old_ends(
    view: &View<'_>,
    changes: &mut Changes<'_>,
    now: UnixMillis,
    limit: usize,
) -> Outcome<usize> {
    let Some(before) = now.get().checked_sub(EPOCH_END_KEPT_MILLIS) else {
        return Ok(0);
    };
    let first = keys::epoch_end_time(UnixMillis(0), DatabaseId(0), Epoch(0));
    let last = keys::epoch_end_time(UnixMillis(before), DatabaseId(0), Epoch(0));
    let mut forgotten = 0;
    for entry in view.range(Table::Heads, &first, &last).take(limit) {
        let (key, _) = entry?;
        let mut end = vec![Kind::EpochEnd as u8];
        end.extend_from_slice(key.get(9..).unwrap_or_default());
        changes.remove(Table::Heads, &end);
        changes.remove(Table::Heads, &key);
        forgotten += 1;
    }
    Ok(forgotten)
}

fn warm_pages(view: &View<'_>, id: DatabaseId) -> Outcome<PageSet> {
    let key = keys::of_database(Kind::Warm, id);
    let what = format!("the warm pages of database {id}");
    match view.get(Table::Heads, &key)? {
        Some(value) => Ok(values::decode_pages(&what, unseal(&what, &key, &value)?)?),
        None => Ok(PageSet::new()),
    }
}
