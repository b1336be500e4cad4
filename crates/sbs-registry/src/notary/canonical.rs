//! Canonical JSON: the form of a document that is signed and hashed.

use serde_json::Value;

/// Returns the canonical form: keys sorted by their bytes, no space, integers only, and no escape
/// but those of the quote, the backslash and the two line separators that are not ASCII.
///
/// `None` stands for a number that this form does not have.
pub(super) fn canonical(value: &Value) -> Option<String> {
    let mut text = String::new();
    write(value, &mut text)?;
    Some(text)
}

/// Returns a canonical text as Go's JSON encoder writes it: that is what servers store, and hash
/// where they make the snapshot.
pub(super) fn as_stored(canonical: &str) -> String {
    // These characters stand in strings only.
    canonical.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

// The depth is that of a parsed document, which the parser limits.
fn write(value: &Value, text: &mut String) -> Option<()> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => {
            let integer =
                number.as_i64().filter(|integer| integer.unsigned_abs() <= MAX_INTEGER)?;
            text.push_str(&integer.to_string());
        }
        Value::String(string) => write_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                text.push_str(if n == 0 { "" } else { "," });
                write(item, text)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (n, (name, member)) in members.into_iter().enumerate() {
                text.push_str(if n == 0 { "" } else { "," });
                write_string(name, text);
                text.push(':');
                write(member, text)?;
            }
            text.push('}');
        }
    }
    Some(())
}

fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text.push('"');
}

// Above, readers that keep numbers as floating point read another one (RFC 8259, 6).
const MAX_INTEGER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_form_for_one_value() {
        for (json, expected) in [
            (r#" { "b" : 1, "a" : [ true , null ] } "#, r#"{"a":[true,null],"b":1}"#),
            (r#"{"é":1,"z":2,"Z":3,"":4}"#, r#"{"":4,"Z":3,"z":2,"é":1}"#),
            (r#"["\u0041\/\"\\é"]"#, r#"["A/\"\\é"]"#),
            ("[\"\\u2028\\u2029<>&\"]", "[\"\\u2028\\u2029<>&\"]"),
            ("[5000001,-7,9007199254740991]", "[5000001,-7,9007199254740991]"),
        ] {
            let value = serde_json::from_str(json).unwrap();
            assert_eq!(canonical(&value).unwrap(), expected, "{json}");
            let again = serde_json::from_str::<Value>(expected).unwrap();
            assert_eq!(canonical(&again).unwrap(), expected, "{json}");
        }
        assert_eq!(as_stored(r#"["a<b>&"]"#), r#"["a\u003cb\u003e\u0026"]"#);
    }

    #[test]
    fn refuses_numbers_that_readers_differ_about() {
        for json in ["1.5", "1.0", "1e3", "9007199254740992", "18446744073709551615"] {
            assert_eq!(canonical(&serde_json::from_str(json).unwrap()), None, "{json}");
        }
    }
}
