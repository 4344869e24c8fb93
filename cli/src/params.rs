//! Values of SQL parameters as they stand on the command line.

use rusqlite::types::Value;

/// `NAME=VALUE`, the value with the type that it looks like.
pub(crate) fn parse(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let name = name.trim_start_matches([':', '@', '$', '?']);
    if name.is_empty() {
        return Err("the parameter has no name before '='".to_owned());
    }
    Ok((name.to_owned(), typed(value)))
}

fn typed(value: &str) -> Value {
    // Only numbers that print as they were written: 007 and +49123 stay text.
    if let Ok(number) = value.parse::<i64>()
        && number.to_string() == value
    {
        return Value::Integer(number);
    }
    let digit = value.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    if digit
        && value.contains(['.', 'e', 'E'])
        && let Ok(number) = value.parse::<f64>()
        && number.is_finite()
    {
        return Value::Real(number);
    }
    if value.eq_ignore_ascii_case("null") {
        return Value::Null;
    }
    if let Some(bytes) = value.strip_prefix("x'").and_then(|v| v.strip_suffix('\'')).and_then(from_hex) {
        return Value::Blob(bytes);
    }
    let unquoted = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
    Value::Text(unquoted.map_or_else(|| value.to_owned(), |v| v.replace("''", "'")))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2 && !p.starts_with('+'))?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_type_they_look_like() {
        let value = |text: &str| parse(&format!("a={text}")).unwrap().1;
        assert_eq!(value("7"), Value::Integer(7));
        assert_eq!(value("-7"), Value::Integer(-7));
        assert_eq!(value("007"), Value::Text("007".into()));
        assert_eq!(value("1.5"), Value::Real(1.5));
        assert_eq!(value("inf"), Value::Text("inf".into()));
        assert_eq!(value("NULL"), Value::Null);
        assert_eq!(value("x'00fF'"), Value::Blob(vec![0, 255]));
        assert_eq!(value("x'0'"), Value::Text("x'0'".into()));
        assert_eq!(value("x'+f'"), Value::Text("x'+f'".into()));
        assert_eq!(value("'7'"), Value::Text("7".into()));
        assert_eq!(value("'it''s'"), Value::Text("it's".into()));
        assert_eq!(value("a=b"), Value::Text("a=b".into()));
        assert_eq!(value(""), Value::Text(String::new()));
        assert!(parse("a").is_err());
        assert!(parse(":=1").is_err());
        assert_eq!(parse(":a=1").unwrap().0, "a");
    }
}
