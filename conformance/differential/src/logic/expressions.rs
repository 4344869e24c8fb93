//! Random values and expressions.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// What a column usually holds: the first letter of its name.
pub(super) const FLAVOURS: &[char] = &['i', 'r', 't', 'b', 'n'];

const WORDS: &[&str] =
    &["ash", "birch", "cedar", "Elm", "fir", "GINKGO", "hazel", "juniper", "larch", "maple", "", "o'ak"];

/// A literal for a column, now and then of another kind.
pub(super) fn literal(rng: &mut StdRng, flavour: char) -> String {
    if rng.random_bool(0.08) {
        return "NULL".into();
    }
    let flavour = if rng.random_bool(0.05) { *FLAVOURS.choose(rng).unwrap_or(&'i') } else { flavour };
    match flavour {
        'i' => integer(rng),
        'r' => real(rng),
        't' => word(rng),
        'b' => blob(rng),
        _ => match rng.random_range(0..3) {
            0 => integer(rng),
            1 => real(rng),
            _ => word(rng),
        },
    }
}

fn integer(rng: &mut StdRng) -> String {
    match rng.random_range(0..20) {
        // Not the largest: behind it SQLite draws the next rowid at random.
        0 => (i64::MAX / 2).to_string(),
        1 => (i64::MIN + 1).to_string(),
        2 => rng.random_range(i64::from(i32::MIN) * 4..i64::from(i32::MAX) * 4).to_string(),
        3..=6 => rng.random_range(-2000..2000).to_string(),
        _ => rng.random_range(-10..100).to_string(),
    }
}

fn real(rng: &mut StdRng) -> String {
    match rng.random_range(0..8) {
        0 => "1e300".into(),
        1 => "-0.0".into(),
        2 => format!("{}.0", rng.random_range(-50..50)),
        _ => format!("{}.{:03}", rng.random_range(-100..100), rng.random_range(0..1000)),
    }
}

fn word(rng: &mut StdRng) -> String {
    let word = WORDS.choose(rng).unwrap_or(&"").replace('\'', "''");
    match rng.random_range(0..12) {
        0 => format!("'{word} {}'", rng.random_range(0..1000)),
        1 => format!("printf('%.*c', {}, 'y')", rng.random_range(10..3000)),
        2 => "'größe ✓'".into(),
        3 => format!("'{}'", rng.random_range(0..100)),
        _ => format!("'{word}'"),
    }
}

fn blob(rng: &mut StdRng) -> String {
    if rng.random_bool(0.3) {
        return format!("zeroblob({})", rng.random_range(0..6000));
    }
    let bytes: Vec<String> = (0..rng.random_range(0..24)).map(|_| format!("{:02x}", rng.random::<u8>())).collect();
    format!("x'{}'", bytes.concat())
}

/// An expression over some columns.
pub(super) fn expression(rng: &mut StdRng, columns: &[String], depth: u32) -> String {
    let column = |rng: &mut StdRng| columns.choose(rng).cloned().unwrap_or_else(|| "NULL".into());
    if depth == 0 || rng.random_bool(0.2) {
        return if rng.random_bool(0.7) {
            column(rng)
        } else {
            let flavour = *FLAVOURS.choose(rng).unwrap_or(&'i');
            literal(rng, flavour)
        };
    }
    let below = |rng: &mut StdRng| expression(rng, columns, depth - 1);
    let (one, two) = (below(rng), below(rng));
    match rng.random_range(0..24) {
        0 => format!("({one} + {two})"),
        1 => format!("({one} - {two})"),
        2 => format!("({one} * {two})"),
        3 => format!("({one} / {two})"),
        4 => format!("({one} % {two})"),
        5 => format!("({one} || {two})"),
        6 => format!("({one} & {two})"),
        7 => format!("(-{one})"),
        8 => format!("abs({one})"),
        9 => format!("length({one})"),
        10 => format!("substr({one}, {}, {})", rng.random_range(-5..8), rng.random_range(-3..9)),
        11 => format!("coalesce({one}, {two})"),
        12 => format!("nullif({one}, {two})"),
        13 => format!("typeof({one})"),
        14 => format!("upper({one})"),
        15 => format!("instr({one}, {two})"),
        16 => format!("CAST({one} AS {})", ["INT", "REAL", "TEXT", "BLOB", "NUMERIC"].choose(rng).unwrap_or(&"INT")),
        17 => format!("CASE WHEN {} THEN {one} ELSE {two} END", condition(rng, columns, depth - 1)),
        18 => format!("max({one}, {two})"),
        19 => format!("min({one}, {two})"),
        20 => format!("round({one}, {})", rng.random_range(0..4)),
        21 => format!("replace({one}, 'a', {two})"),
        22 => format!("hex(substr({one}, 1, 9))"),
        _ => format!("iif({one}, {two}, 7)"),
    }
}

/// Something for WHERE.
pub(super) fn condition(rng: &mut StdRng, columns: &[String], depth: u32) -> String {
    let one = expression(rng, columns, depth.min(1));
    let two = expression(rng, columns, depth.min(1));
    match rng.random_range(0..if depth == 0 { 10 } else { 14 }) {
        0 => format!("{one} = {two}"),
        1 => format!("{one} < {two}"),
        2 => format!("{one} >= {two}"),
        3 => format!("{one} <> {two}"),
        4 => format!("{one} IS {two}"),
        5 => format!("{one} BETWEEN {} AND {}", rng.random_range(-20..20), rng.random_range(10..90)),
        6 => format!("{one} IN ({}, {}, {two})", literal(rng, 'i'), literal(rng, 't')),
        7 => format!("{one} LIKE '{}%'", ["a", "e", "_i", "%r", ""].choose(rng).unwrap_or(&"")),
        8 => format!("{one} IS NOT NULL"),
        9 => format!("{one} GLOB '*{}*'", ["a", "[a-f]", "?"].choose(rng).unwrap_or(&"a")),
        10 => format!("({} AND {})", condition(rng, columns, depth - 1), condition(rng, columns, depth - 1)),
        11 => format!("({} OR {})", condition(rng, columns, depth - 1), condition(rng, columns, depth - 1)),
        12 => format!("NOT ({})", condition(rng, columns, depth - 1)),
        _ => format!("({one}) < ({two}) + 5"),
    }
}
