//! Names: listing, renaming, deleting.

use litefleet::store::{ListEntry, Listed};
use litefleet::{CommitId, DatabaseId, DatabaseName, Epoch, Error, ErrorKind, MAX_NAME_BYTES};
use tokio_postgres::Row;

use super::Inner;
use super::open::head;
use super::outcome::{Asked, done};
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{Id, Numbers, bigint, column, count, number, text};

impl Inner {
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<&DatabaseName>,
        limit: usize,
    ) -> Outcome<Vec<ListEntry>> {
        // No name has a NUL, and Postgres's text cannot.
        if prefix.contains('\0') {
            return Ok(Vec::new());
        }
        let params = [text(prefix), text(past(prefix)), text(after.map_or("", DatabaseName::as_str)), count(limit)];
        let rows = self.pool.call(Call::List, &params).await?;
        rows.iter().map(entry).collect()
    }

    pub(super) async fn rename(&self, database: DatabaseId, epoch: Epoch, name: &DatabaseName) -> Outcome<()> {
        let params = [bigint(database.get()), bigint(epoch.get()), text(name.as_str())];
        let rows = self.pool.call(Call::Rename, &params).await?;
        match done(&rows, Asked { database, epoch, expected: 0 }) {
            Err(Fault::Refused(error)) if error.kind() == ErrorKind::Conflict => {
                Err(Error::conflict(format!("there is a database named {name} already")).into())
            }
            outcome => outcome.map(|_| ()),
        }
    }

    pub(super) async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Outcome<()> {
        let answered = self.pool.call_knowing(Call::Delete, &[bigint(database.get()), bigint(epoch.get())]).await?;
        match done(&answered.rows, Asked { database, epoch, expected: 0 }) {
            // The first time did it, and only its answer was lost.
            Err(Fault::Refused(error)) if answered.again && error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

/// A line of a listing. What is damaged is one database's misfortune.
fn entry(row: &Row) -> Outcome<ListEntry> {
    let name: &str = column(row, 0)?;
    let name = DatabaseName::new(name).map_err(|error| {
        Error::corrupt(format!("the table names has a name that no database can have: {}", error.message()))
    })?;
    let database = DatabaseId(number(column(row, 1)?)?);
    let state = listed(row, database).map_err(|fault| {
        Error::corrupt(format!("database {name}: its head is missing, or damaged: {fault}"))
            .with_source(Error::from(fault))
    });
    Ok(ListEntry { name, database: Some(database), state })
}

fn listed(row: &Row, database: DatabaseId) -> Outcome<Listed> {
    let numbers = Numbers::of(row, 2)?;
    let head = head(
        [numbers.at(0)?, numbers.at(1)?, numbers.at(2)?, numbers.at(3)?, numbers.at(4)?, numbers.at(5)?],
        numbers.at(6)? != 0,
        numbers.at(7)?,
        CommitId(column::<Id>(row, 3)?.0),
        column::<Option<Id>>(row, 4)?,
        column::<Option<String>>(row, 5)?,
    );
    Ok(Listed { database, head })
}

/// The first text, in byte order, past all names that begin with the prefix; where no name can come after those, one past all.
fn past(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Steps over the surrogates, which are no characters.
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    // Nothing is greater than the last character but more of it, and longer than a name can be.
    let last = char::MAX;
    std::iter::repeat_n(last, MAX_NAME_BYTES / last.len_utf8() + 1).collect()
}

#[cfg(test)]
mod tests {
    use litefleet::MAX_NAME_BYTES;

    use super::past;

    #[test]
    fn texts_past_a_prefix() {
        assert_eq!(past("a"), "b");
        assert_eq!(past("a\u{10ffff}"), "b");
        assert_eq!(past("\u{d7ff}"), "\u{e000}");
        let greatest = "\u{10ffff}".repeat(MAX_NAME_BYTES / 4);
        for prefix in ["", "\u{10ffff}", &greatest] {
            assert!(past(prefix) > greatest, "{prefix}");
        }
    }
}
