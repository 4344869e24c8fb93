//! Sessions.

use litefleet::store::SessionRequest;
use litefleet::{Error, SessionId};

use super::Inner;
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{bigint, column, id, text};

impl Inner {
    pub(super) async fn start_session(&self, request: SessionRequest) -> Outcome<()> {
        let micros = u64::try_from(request.lifetime.as_micros()).unwrap_or(u64::MAX);
        // A NUL is the one character that Postgres's text cannot have, and a label is only for people.
        let label = request.label.replace('\0', " ");
        let params = [id(request.session.bytes()), text(label), bigint(micros.min(MOST_MICROS))];
        let rows = self.control.call(Call::StartSession, &params).await?;
        if column(rows.first().ok_or(Fault::Malformed("no row"))?, 0)? {
            return Ok(());
        }
        Err(Error::invalid(format!("session {} has ended, start one with a new id", request.session)).into())
    }

    pub(super) async fn renew_session(&self, session: SessionId) -> Outcome<()> {
        let rows = self.control.call(Call::RenewSession, &[id(session.bytes())]).await?;
        if column(rows.first().ok_or(Fault::Malformed("no row"))?, 0)? {
            return Ok(());
        }
        Err(Error::fenced(format!("session {session} has expired; its leases may be others' now")).into())
    }

    pub(super) async fn end_session(&self, session: SessionId) -> Outcome<()> {
        self.control.call(Call::EndSession, &[id(session.bytes())]).await?;
        Ok(())
    }
}

/// Ten years: what Postgres can add to any time.
const MOST_MICROS: u64 = 10 * 366 * 24 * 3600 * 1_000_000;
