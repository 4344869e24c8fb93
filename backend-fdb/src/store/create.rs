//! Creating: a name that leads to nothing gets an id that nothing was ever written under.

use litefleet::store::{Opened, Tail};
use litefleet::{DatabaseId, Error, PageSet};

use super::FdbStore;
use super::open::{Answer, Asking, Call};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::knowledge::Core;
use crate::transact::{Step, Tx};
use crate::values::ProgressValue;

impl FdbStore {
    /// While a name is looked up that nobody here knows: the id for a database of that name, if nothing is there.
    pub(super) async fn look_at_id(&self, tx: &Tx, call: &Call<'_>, unknown: bool) -> Outcome<Option<DatabaseId>> {
        let Some(id) = call.unspent(unknown).or_else(|| self.likely_id()).filter(|_| call.request.create) else {
            return Ok(None);
        };
        Ok(self.is_unused(tx, id).await?.then_some(id))
    }

    /// Makes a new database. It must be under an id that nothing was ever written under. A try that may have been made
    /// has spent its own, since others may have gone on from there; and ids that were reserved before the store was
    /// restored may be others' as well. `unused` is one that was looked at.
    pub(super) async fn create(
        &self,
        tx: &Tx,
        call: &Call<'_>,
        asking: Option<Asking>,
        unknown: bool,
        unused: Option<DatabaseId>,
    ) -> Outcome<Step<Answer>> {
        let name = &call.request.name;
        if !call.request.create {
            return Err(Error::not_found(format!("there is no database named {name}")).into());
        }
        let mut unspent = call.unspent(unknown);
        let id = loop {
            let id = match unspent.take() {
                Some(id) => id,
                None => self.next_id(call.deadline).await?,
            };
            if unused == Some(id) || self.is_unused(tx, id).await? {
                break id;
            }
            self.give_up_ids(id);
        };
        self.rely_on_being_unused(tx, id)?;
        {
            let mut tries = call.tries();
            tries.fresh = Some(id);
            if !tries.made.contains(&id) {
                tries.made.push(id);
            }
        }
        let (core, progress) = (Core::empty(), ProgressValue::default());
        tx.put(&self.keys.name(name), &id.get())?;
        tx.put(&self.keys.of(id, Kind::Name), &name.as_str().to_owned())?;
        self.put_head(tx, id, &core.head)?;
        self.put_staging(tx, id, &core.staging)?;
        tx.put(&self.keys.of(id, Kind::Progress), &progress)?;
        let core = if let Some(asking) = &asking {
            self.grant_to(tx, call, id, &core, asking).await?
        } else {
            self.put_lease(tx, id, &core.lease)?;
            core
        };
        let (tail, head) = (Tail::Complete(Vec::new()), core.public(&progress));
        let opened = Opened { database: id, created: true, head, tail, warm: Vec::new() };
        let answer = (opened, PageSet::new());
        call.tries().answer = Some(answer.clone());
        Ok(Step::Commit(answer))
    }
}
