//! `litefleet rm` and `litefleet mv`

use super::{say, waiting};
use crate::args::{MvArgs, RmArgs};
use crate::failure::{Exit, Failure, Result, quoted};
use crate::session::Session;

pub(crate) fn remove(session: &Session, args: &RmArgs) -> Result<()> {
    waiting(session, "nothing was removed", || session.fleet.remove(&args.name, args.force).map_err(or_force))?;
    say(format_args!("removed {}; 'litefleet gc' gives its space back", quoted(&args.name)))
}

pub(crate) fn rename(session: &Session, args: &MvArgs) -> Result<()> {
    waiting(session, "nothing was renamed", || {
        session.fleet.rename(&args.old, &args.new, args.force).map_err(or_force)
    })?;
    say(format_args!("renamed {} to {}", quoted(&args.old), quoted(&args.new)))
}

fn or_force(error: litefleet::Error) -> Failure {
    let failure = Failure::from(error);
    if failure.exit() == Exit::Busy { failure.advice("--force takes the database from its holder") } else { failure }
}
