//! Random statements that change something.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::expressions::{FLAVOURS, condition, expression, literal};
use super::generator::Table;

fn flavour(column: &str) -> char {
    column.chars().next().unwrap_or('i')
}

/// A new table, with this number in its name.
pub(super) fn create_table(rng: &mut StdRng, number: u32) -> String {
    let count = rng.random_range(2..7);
    let mut columns = Vec::new();
    for index in 0..count {
        let flavour = *FLAVOURS.choose(rng).unwrap_or(&'i');
        let affinity = match flavour {
            'i' => "INTEGER",
            'r' => "REAL",
            't' => "TEXT",
            'b' => "BLOB",
            _ => "",
        };
        let rest = match rng.random_range(0..12) {
            0 => " NOT NULL DEFAULT 3",
            1 => " UNIQUE",
            2 => " DEFAULT 'x'",
            3 => " COLLATE NOCASE",
            _ => "",
        };
        columns.push(format!("{flavour}{index} {affinity}{rest}"));
    }
    if rng.random_bool(0.2) {
        columns.push("n9 AS (1 + length(coalesce(rowless, 'q'))) STORED, rowless TEXT".replace("rowless", "t8"));
    }
    let (first, rest) = match rng.random_range(0..5) {
        0 => ("i_key INTEGER PRIMARY KEY, ", ""),
        1 => ("i_key INTEGER PRIMARY KEY AUTOINCREMENT, ", ""),
        2 => ("t_key TEXT, i_key INT, ", ", PRIMARY KEY(t_key, i_key)) WITHOUT ROWID"),
        3 => ("i_key INTEGER PRIMARY KEY DESC, ", ""),
        _ => ("", ""),
    };
    let end = if rest.is_empty() { ")" } else { rest };
    format!("CREATE TABLE t{number}({first}{}{end}", columns.join(", "))
}

/// A new index, view or trigger, an altered table, or the end of one.
pub(super) fn change_schema(rng: &mut StdRng, tables: &[Table], number: u32) -> String {
    let Some(table) = tables.choose(rng) else { return create_table(rng, number) };
    let name = &table.name;
    let columns = &table.columns;
    let column = columns.choose(rng).map_or("rowid", String::as_str);
    match rng.random_range(0..20) {
        0..=3 => format!("CREATE INDEX x{number} ON {name}({column})"),
        4 => format!("CREATE UNIQUE INDEX x{number} ON {name}({column})"),
        5 => format!("CREATE INDEX x{number} ON {name}({column} DESC, {})", columns.choose(rng).map_or("1", |c| c)),
        6 => format!("CREATE INDEX x{number} ON {name}({})", expression(rng, columns, 1)),
        7 => format!("CREATE INDEX x{number} ON {name}({column}) WHERE {column} > 10"),
        8 => format!("DROP INDEX IF EXISTS x{}", rng.random_range(0..=number)),
        9 => format!("ALTER TABLE {name} ADD COLUMN n{number} DEFAULT {}", rng.random_range(0..50)),
        10 => format!("ALTER TABLE {name} RENAME COLUMN {column} TO {}{number}", flavour(column)),
        11 => format!("ALTER TABLE {name} DROP COLUMN {column}"),
        12 if tables.len() > 2 => format!("DROP TABLE {name}"),
        13 => format!(
            "CREATE TRIGGER g{number} AFTER UPDATE ON {name} WHEN old.{column} > new.{column} \
             BEGIN DELETE FROM {name} WHERE {column} = old.{column} AND {column} % 7 = 3; END"
        ),
        14 => format!("DROP TRIGGER IF EXISTS g{}", rng.random_range(0..=number)),
        15 => "ANALYZE".into(),
        16 => "REINDEX".into(),
        _ => create_table(rng, number),
    }
}

/// Rows that come, change and go.
pub(super) fn change_rows(rng: &mut StdRng, tables: &[Table]) -> String {
    let (Some(table), Some(other)) = (tables.choose(rng), tables.choose(rng)) else { return "SELECT 2".into() };
    let Table { name, columns } = table;
    let pick = columns.choose(rng).map_or("rowid", String::as_str);
    let columns_of = |list: &[String]| list.join(", ");
    match rng.random_range(0..16) {
        0..=4 => {
            let or = ["", "", "", " OR IGNORE", " OR REPLACE", " OR ROLLBACK", " OR FAIL"].choose(rng).unwrap_or(&"");
            let count = rng.random_range(1..40);
            let rows: Vec<String> = (0..count)
                .map(|_| {
                    let values: Vec<String> = columns.iter().map(|column| literal(rng, flavour(column))).collect();
                    format!("({})", values.join(", "))
                })
                .collect();
            format!("INSERT{or} INTO {name}({}) VALUES {}", columns_of(columns), rows.join(", "))
        }
        5 | 6 => bulk(rng, table),
        7 => {
            let list: Vec<String> = columns.iter().map(|_| expression(rng, &other.columns, 1)).collect();
            format!(
                "INSERT OR IGNORE INTO {name}({}) SELECT {} FROM {} LIMIT {}",
                columns_of(columns),
                list.join(", "),
                other.name,
                rng.random_range(1..60)
            )
        }
        8 | 9 => {
            format!("UPDATE {name} SET {pick} = {} WHERE {}", expression(rng, columns, 2), condition(rng, columns, 1))
        }
        10 => format!("UPDATE OR IGNORE {name} SET {pick} = {}", literal(rng, flavour(pick))),
        11 => format!("UPDATE {name} SET {pick} = {} WHERE rowid % 9 = 4", literal(rng, flavour(pick))),
        12 => format!("DELETE FROM {name} WHERE {}", condition(rng, columns, 1)),
        13 => format!(
            "DELETE FROM {name} WHERE {pick} IN (SELECT {pick} FROM {name} ORDER BY 1 LIMIT {})",
            rng.random_range(1..50)
        ),
        14 => {
            let values: Vec<String> = columns.iter().map(|column| literal(rng, flavour(column))).collect();
            format!(
                "INSERT INTO {name}({}) VALUES ({}) ON CONFLICT DO UPDATE SET {pick} = excluded.{pick} RETURNING {pick}",
                columns_of(columns),
                values.join(", ")
            )
        }
        _ if rng.random_bool(0.15) => format!("DELETE FROM {name}"),
        _ => format!("REPLACE INTO {name}({}) VALUES ({})", pick, literal(rng, flavour(pick))),
    }
}

/// Many rows at once, also with long values: overflow pages, spilled caches, staged transactions.
fn bulk(rng: &mut StdRng, table: &Table) -> String {
    let values: Vec<String> = table
        .columns
        .iter()
        .map(|column| match flavour(column) {
            'i' => format!("(x * {}) % {}", rng.random_range(1..99), rng.random_range(5..5000)),
            'r' => format!("x / {}.0", rng.random_range(1..9)),
            't' => format!("printf('%0*d', (x * 37) % {} + 1, x)", rng.random_range(2..900)),
            'b' => format!("zeroblob((x * 13) % {})", rng.random_range(1..1500)),
            _ => "CASE x % 3 WHEN 0 THEN x WHEN 1 THEN x || 'n' ELSE x * 0.5 END".into(),
        })
        .collect();
    format!(
        "WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n WHERE x < {}) \
         INSERT OR IGNORE INTO {}({}) SELECT {} FROM n",
        rng.random_range(20..200),
        table.name,
        table.columns.join(", "),
        values.join(", ")
    )
}
