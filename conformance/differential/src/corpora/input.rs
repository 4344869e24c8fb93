//! What a corpus has in it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// A database to begin with, and SQL.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it is from: the corpus, and its numbers there.
    pub id: String,
    /// The bytes of the database file; none of an empty one.
    pub image: Vec<u8>,
    /// Statements, one after the other.
    pub sql: String,
}

/// Larger images are left out, as `fuzzcheck` does.
const MOST_BYTES: usize = 10_000_000;

/// Every `every`th input of a corpus, from the `first`.
pub fn inputs(corpus: &Path, every: usize, first: usize) -> Result<Vec<Input>, String> {
    let words = |e: rusqlite::Error| format!("{}: {e}", corpus.display());
    let name = corpus.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let connection = Connection::open_with_flags(corpus, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(words)?;
    let rows = |sql: &str| -> Result<Vec<(i64, Vec<u8>)>, String> {
        let mut statement = connection.prepare(sql).map_err(words)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(words)?;
        rows.collect::<Result<_, _>>().map_err(words)
    };
    let scripts = rows("SELECT sqlid, CAST(sqltext AS BLOB) FROM xsql ORDER BY sqlid")?;
    let images = rows("SELECT dbid, CAST(dbcontent AS BLOB) FROM db ORDER BY dbid")?;
    let mut found = Vec::new();
    for (script, text) in scripts {
        if has_image(&text) {
            if let Some((image, rest)) = decode(&text) {
                found.push(Input { id: format!("{name}/{script}"), image, sql: sql(rest) });
            }
        } else if images.is_empty() {
            found.push(Input { id: format!("{name}/{script}"), image: Vec::new(), sql: sql(&text) });
        } else {
            let of = |(id, image): &(i64, Vec<u8>)| Input {
                id: format!("{name}/{script} on {id}"),
                image: image.clone(),
                sql: sql(&text),
            };
            found.extend(images.iter().map(of));
        }
    }
    Ok(found.into_iter().skip(first).step_by(every.max(1)).collect())
}

/// As C sees it: up to the first NUL. What is not UTF-8 is replaced, as the same connections ask both sides.
fn sql(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Whether a text begins with an image in hexadecimal: with `SQLi`, or with a line of two dashes, where it is empty.
fn has_image(text: &[u8]) -> bool {
    let digits: Vec<u8> = text.iter().filter(|byte| byte.is_ascii_hexdigit()).take(8).copied().collect();
    text.starts_with(b"\n--\n") || digits == b"53514c69"
}

/// The image before a line of two dashes, and the SQL after it. `[OFFSET]` goes on at another place; pages begin as zeros.
fn decode(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    const PAGE: usize = 4096;
    let (mut image, mut half, mut place, mut at) = (Vec::new(), None, 0_usize, 0_usize);
    while let Some(byte) = text.get(at) {
        let rest = text.get(at..)?;
        if rest.starts_with(b"\n--\n") {
            return Some((image, text.get(at + 4..)?));
        }
        if let Some((offset, length)) = offset(rest) {
            (place, half) = (offset, None);
            at += length;
            continue;
        }
        if let Some(digit) = char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            if let Some(high) = half.take() {
                if place >= MOST_BYTES {
                    return None;
                }
                if place >= image.len() {
                    image.resize((place / PAGE + 1) * PAGE, 0);
                }
                *image.get_mut(place)? = high * 16 + digit;
                place += 1;
            } else {
                half = Some(digit);
            }
        }
        at += 1;
    }
    Some((image, &[]))
}

/// `[`, hexadecimal digits, `]`: the number, and how many bytes it takes.
fn offset(text: &[u8]) -> Option<(usize, usize)> {
    let digits = text.strip_prefix(b"[")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_hexdigit())?;
    if digits.get(end) != Some(&b']') {
        return None;
    }
    let number = std::str::from_utf8(digits.get(..end)?).ok()?;
    let number = if number.is_empty() { 0 } else { usize::from_str_radix(number, 16).ok()? };
    Some((number, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_in_hexadecimal_is_found_and_read() {
        let text = b"53 51 4c 69\n[0FFF] a1 [1000]b2\n--\nSELECT 1;";
        assert!(has_image(text));
        let (image, rest) = decode(text).expect("it is well formed");
        assert_eq!((image.len(), &image[..4], image[0xfff], image[0x1000]), (8192, &b"SQLi"[..], 0xa1, 0xb2));
        assert_eq!(rest, b"SELECT 1;");
        assert!(!has_image(b"SELECT 53514;"));
        assert_eq!(sql(b"SELECT 1;\0SELECT 2;"), "SELECT 1;");
    }
}
