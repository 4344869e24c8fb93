//! Random queries.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::expressions::{condition, expression};
use super::generator::Table;

/// The columns of a table, under an alias.
fn under(table: &Table, alias: &str) -> Vec<String> {
    table.columns.iter().map(|column| format!("{alias}.{column}")).collect()
}

fn where_clause(rng: &mut StdRng, columns: &[String]) -> String {
    if rng.random_bool(0.25) {
        return String::new();
    }
    let depth = rng.random_range(0..3);
    format!(" WHERE {}", condition(rng, columns, depth))
}

fn order_and_limit(rng: &mut StdRng, columns: &[String]) -> String {
    let mut text = String::new();
    if rng.random_bool(0.6) {
        let key = expression(rng, columns, 1);
        let direction = ["", " DESC", " COLLATE NOCASE", " NULLS LAST"].choose(rng).unwrap_or(&"");
        text = format!(" ORDER BY {key}{direction}");
        if rng.random_bool(0.5) {
            text.push_str(", ");
            text.push_str(columns.choose(rng).map_or("1", String::as_str));
        }
    }
    text + &format!(" LIMIT {} OFFSET {}", rng.random_range(1..30), rng.random_range(0..12))
}

fn outputs(rng: &mut StdRng, columns: &[String]) -> String {
    let count = rng.random_range(1..5);
    let list: Vec<String> = (0..count).map(|_| expression(rng, columns, 2)).collect();
    list.join(", ")
}

fn aggregate(rng: &mut StdRng, columns: &[String]) -> String {
    let inner = expression(rng, columns, 1);
    match rng.random_range(0..8) {
        0 => "count(*)".into(),
        1 => format!("count(DISTINCT {inner})"),
        2 => format!("total({inner})"),
        3 => format!("min({inner})"),
        4 => format!("max({inner})"),
        5 => format!("avg({inner})"),
        6 => format!("sum(length({inner}))"),
        _ => format!("length(group_concat({inner}, ','))"),
    }
}

/// A query over one or several tables.
pub(super) fn query(rng: &mut StdRng, tables: &[Table]) -> String {
    let (Some(one), Some(two), Some(three)) = (tables.choose(rng), tables.choose(rng), tables.choose(rng)) else {
        return "SELECT 1".into();
    };
    let a = under(one, "a");
    match rng.random_range(0..14) {
        0 => format!("SELECT * FROM {} a{}{}", one.name, where_clause(rng, &a), order_and_limit(rng, &a)),
        1 | 2 => {
            let list = outputs(rng, &a);
            format!("SELECT {list} FROM {} a{}{}", one.name, where_clause(rng, &a), order_and_limit(rng, &a))
        }
        3 => format!("SELECT count(*), sum(length({})) FROM {} a", a.choose(rng).map_or("1", String::as_str), one.name),
        4 | 5 => join(rng, one, two),
        6 => {
            let key = expression(rng, &a, 1);
            let (first, second) = (aggregate(rng, &a), aggregate(rng, &a));
            let having = if rng.random_bool(0.3) { " HAVING count(*) > 1" } else { "" };
            let filter = where_clause(rng, &a);
            format!(
                "SELECT {key}, {first}, {second} FROM {} a{filter} GROUP BY 1{having} ORDER BY 1, 2, 3 LIMIT 40",
                one.name
            )
        }
        7 => {
            let (first, second) = (aggregate(rng, &a), aggregate(rng, &a));
            format!("SELECT {first}, {second} FROM {} a{}", one.name, where_clause(rng, &a))
        }
        8 => {
            let kind = ["UNION", "UNION ALL", "INTERSECT", "EXCEPT"].choose(rng).unwrap_or(&"UNION");
            let (left, right) = (expression(rng, &a, 1), expression(rng, &under(two, "b"), 1));
            format!(
                "SELECT {left} FROM {} a{} {kind} SELECT {right} FROM {} b ORDER BY 1 LIMIT 30",
                one.name,
                where_clause(rng, &a),
                two.name
            )
        }
        9 => subquery(rng, one, two),
        10 => {
            let order = a.choose(rng).map_or("1", String::as_str);
            let value = expression(rng, &a, 1);
            let window = ["rank()", "row_number()", "dense_rank()", "ntile(3)"].choose(rng).unwrap_or(&"rank()");
            format!(
                "SELECT {value}, {window} OVER (ORDER BY {order}), count(*) OVER (PARTITION BY typeof({order})) \
                 FROM {} a ORDER BY 2, 1 LIMIT 25",
                one.name
            )
        }
        11 => {
            let list = outputs(rng, &a);
            format!("SELECT DISTINCT {list} FROM {} a{} ORDER BY 1 LIMIT 30", one.name, where_clause(rng, &a))
        }
        12 => format!(
            "WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n WHERE x < {}) \
             SELECT x, (SELECT count(*) FROM {} a WHERE {} > x) FROM n",
            rng.random_range(2..12),
            one.name,
            a.choose(rng).map_or("1", String::as_str)
        ),
        _ => {
            let (b, c) = (under(two, "b"), under(three, "c"));
            let pick = |rng: &mut StdRng, list: &[String]| list.choose(rng).cloned().unwrap_or_else(|| "1".into());
            format!(
                "SELECT count(*), max({}) FROM {} a JOIN {} b ON {} = {} LEFT JOIN {} c ON {} = {}",
                pick(rng, &c),
                one.name,
                two.name,
                pick(rng, &a),
                pick(rng, &b),
                three.name,
                pick(rng, &b),
                pick(rng, &c)
            )
        }
    }
}

fn join(rng: &mut StdRng, one: &Table, two: &Table) -> String {
    let (a, b) = (under(one, "a"), under(two, "b"));
    let kind = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(rng).unwrap_or(&"JOIN");
    let pick = |rng: &mut StdRng, list: &[String]| list.choose(rng).cloned().unwrap_or_else(|| "1".into());
    let on = format!("{} = {}", pick(rng, &a), pick(rng, &b));
    let both = [a, b].concat();
    let list = outputs(rng, &both);
    let (filter, order) = (where_clause(rng, &both), order_and_limit(rng, &both));
    format!("SELECT {list} FROM {} a {kind} {} b ON {on}{filter}{order}", one.name, two.name)
}

fn subquery(rng: &mut StdRng, one: &Table, two: &Table) -> String {
    let (a, b) = (under(one, "a"), under(two, "b"));
    let pick = |rng: &mut StdRng, list: &[String]| list.choose(rng).cloned().unwrap_or_else(|| "1".into());
    let (outer, inner) = (pick(rng, &a), pick(rng, &b));
    let order = order_and_limit(rng, &a);
    match rng.random_range(0..3) {
        0 => format!(
            "SELECT {outer} FROM {} a WHERE EXISTS (SELECT 1 FROM {} b WHERE {inner} = {outer}){order}",
            one.name, two.name
        ),
        1 => format!("SELECT {outer} FROM {} a WHERE {outer} IN (SELECT {inner} FROM {} b){order}", one.name, two.name),
        _ => format!(
            "SELECT {outer}, (SELECT {inner} FROM {} b WHERE {inner} >= {outer} ORDER BY 1 LIMIT 1) FROM {} a{order}",
            two.name, one.name
        ),
    }
}
