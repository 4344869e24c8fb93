//! What the demo works on: a sample, and a fingerprint by which two databases are compared.

use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// Makes a small shop.
pub(crate) const SAMPLE: &str = "
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, amount REAL, note BLOB);
CREATE INDEX orders_by_customer ON orders (customer, amount);
CREATE TABLE settings (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE VIEW totals AS SELECT customer, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY customer;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
INSERT INTO customers SELECT i, 'customer ' || i, CASE i % 3 WHEN 0 THEN 'Genève' WHEN 1 THEN 'Kyoto' END FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO orders SELECT i, 1 + i * 7 % 1000, i * 0.25, CASE WHEN i % 10 = 0 THEN randomblob(200) END FROM n;
INSERT INTO settings VALUES ('currency', 'CHF'), ('decimals', 2), ('rate', 0.081);
COMMIT;";

/// Everything a database says, in short: its schema and the rows of every table, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    tables: u64,
    rows: u64,
    sum: u64,
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tables with {} rows", self.tables, self.rows)
    }
}

impl Fingerprint {
    /// Reads every row of every table in one read transaction, or in the one that is open.
    pub(crate) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut print = Self { tables: 0, rows: 0, sum: 0 };
        print.add_rows(connection, "schema", "SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
        print.rows = 0;
        for table in tables(connection)? {
            print.tables += 1;
            let quoted = table.replace('"', "\"\"");
            print.add_rows(connection, &table, &format!("SELECT * FROM \"{quoted}\""))?;
        }
        Ok(print)
    }

    fn add_rows(&mut self, connection: &Connection, table: &str, sql: &str) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hasher = DefaultHasher::new();
            table.hash(&mut hasher);
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => 0_u8.hash(&mut hasher),
                    ValueRef::Integer(number) => (1_u8, number).hash(&mut hasher),
                    ValueRef::Real(number) => (2_u8, number.to_bits()).hash(&mut hasher),
                    ValueRef::Text(text) => (3_u8, text).hash(&mut hasher),
                    ValueRef::Blob(bytes) => (4_u8, bytes).hash(&mut hasher),
                }
            }
            // A sum, because two equal databases may give their rows in different order.
            self.sum = self.sum.wrapping_add(hasher.finish());
            self.rows += 1;
        }
        Ok(())
    }
}

/// Tables that hold rows themselves. The rows of a virtual table are in the tables behind it.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}
