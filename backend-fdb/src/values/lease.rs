//! The lease of a database, and whose it is.

use litefleet::{Epoch, Result, SessionId};

use super::{Value, array, text};
use crate::keys::{put_number, take_number};

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HolderValue {
    pub(crate) session: SessionId,
    pub(crate) label: String,
}

/// Whose a lease is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tenure {
    /// Nobody's, as at first or since it was given back.
    #[default]
    Free,
    /// Nobody's, since it was taken away from this session and has not been granted again.
    Deposed(SessionId),
    /// This one's.
    Held(HolderValue),
}

/// The lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseValue {
    pub(crate) epoch: Epoch,
    pub(crate) tenure: Tenure,
}

impl LeaseValue {
    pub(crate) fn holder(&self) -> Option<&HolderValue> {
        match &self.tenure {
            Tenure::Held(holder) => Some(holder),
            Tenure::Free | Tenure::Deposed(_) => None,
        }
    }

    /// The session that the lease was granted to at this epoch, unless it has given it back.
    pub(crate) fn granted_to(&self) -> Option<SessionId> {
        match &self.tenure {
            Tenure::Held(holder) => Some(holder.session),
            Tenure::Deposed(session) => Some(*session),
            Tenure::Free => None,
        }
    }
}

/// In the place of a label: the lease was taken away. No text has this byte.
const DEPOSED: [u8; 1] = [0xff];

impl Value for LeaseValue {
    const WHAT: &'static str = "the lease of a database";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.epoch.get());
        match &self.tenure {
            Tenure::Free => {}
            Tenure::Deposed(session) => {
                out.extend_from_slice(&session.bytes());
                out.extend_from_slice(&DEPOSED);
            }
            Tenure::Held(holder) => {
                out.extend_from_slice(&holder.session.bytes());
                out.extend_from_slice(holder.label.as_bytes());
            }
        }
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let epoch = Epoch(take_number(body)?);
        if body.is_empty() {
            return Ok(Self { epoch, tenure: Tenure::Free });
        }
        let session = SessionId(array(body)?);
        let tenure = if *body == DEPOSED {
            *body = &[];
            Tenure::Deposed(session)
        } else {
            Tenure::Held(HolderValue { session, label: text(body)? })
        };
        Ok(Self { epoch, tenure })
    }
}
