//! The numbers that the functions of the schema answer with, as errors of the contract.

use litefleet::{DatabaseId, Epoch, Error, Result};
use tokio_postgres::Row;

use crate::error::{Fault, Outcome};
use crate::wire::Numbers;

/// What a function said: the outcome, and two numbers to explain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    outcome: u64,
    epoch: u64,
    txid: u64,
}

/// What the request said of the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) database: DatabaseId,
    pub(super) epoch: Epoch,
    /// The txid, or the generation, that the request expected; for messages.
    pub(super) expected: u64,
}

impl Answer {
    /// The first three numbers from a place on.
    pub(super) fn at(numbers: &Numbers, place: usize) -> Outcome<Self> {
        let outcome = numbers.at(place)?;
        let explained = |offset| numbers.maybe(place + offset).map(Option::unwrap_or_default);
        Ok(Self { outcome, epoch: explained(1)?, txid: explained(2)? })
    }

    /// Whether the request was done, now or before.
    pub(super) fn check(self, asked: Asked) -> Result<()> {
        let Self { outcome, epoch, txid } = self;
        let expected = asked.expected;
        Err(match outcome {
            0 | 1 => return Ok(()),
            2 => Error::not_found(format!("there is no database with id {}", asked.database)),
            3 => Error::fenced(format!("epoch {} is over, the current one is {epoch}", asked.epoch)),
            4 => Error::fenced(format!("the lease of epoch {epoch} was released")),
            5 => Error::conflict(format!("expected txid {expected}, the head is at {txid}")),
            6 => Error::conflict("a staging entry of another transaction exists"),
            7 => Error::conflict("the staged rows were discarded"),
            8 => Error::conflict(format!("staging generation {expected} is not the current one")),
            9 => Error::conflict(format!(
                "checkpoint {expected} is not between the newest checkpoint and the head {txid}"
            )),
            17 => Error::conflict(
                "the store has lost commits, in a crash or a failover: the head shows another commit than the one that this \
                 one was made on",
            ),
            13 => Error::conflict("the store has lost staged pages, in a crash or a failover"),
            14 => Error::conflict("the store has lost the checkpoint that this one rests on, in a crash or a failover"),
            15 => Error::conflict("the store has lost pieces of the checkpoint, in a crash or a failover"),
            16 => Error::conflict("this attempt at the checkpoint was given up: a later one has begun"),
            10 => Error::conflict("there is a database of that name already"),
            _ => Error::internal(format!("the schema's functions answered {outcome}, which nobody knows")),
        })
    }
}

/// The array of the only row.
pub(super) fn numbers(rows: &[Row]) -> Outcome<Numbers> {
    Numbers::of(rows.first().ok_or(Fault::Malformed("no row"))?, 0)
}

/// Checks the answer of a function that has no more to say.
pub(super) fn done(rows: &[Row], asked: Asked) -> Outcome<Numbers> {
    let numbers = numbers(rows)?;
    Answer::at(&numbers, 0)?.check(asked)?;
    Ok(numbers)
}
