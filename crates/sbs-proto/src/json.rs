//! JSON of which no two readers read different things.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Parses JSON (RFC 8259), and refuses an object that has a key twice, however deep it is: of two
/// values, readers take either. This is so for what would be ignored, too: somebody may read it.
pub fn parse_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    match doubled_key(json)? {
        None => serde_json::from_slice(json),
        Some(key) => Err(de::Error::custom(format!("key `{key}` stands in an object twice"))),
    }
}

/// Returns the first key that an object has twice, without control characters and cut to 64.
pub(crate) fn doubled_key(json: &[u8]) -> Result<Option<String>, serde_json::Error> {
    let Doubled(key) = serde_json::from_slice(json)?;
    Ok(key.map(|key| key.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()))
}

/// The first key of a value that stands in one of its objects twice.
struct Doubled(Option<String>);

impl<'de> Deserialize<'de> for Doubled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DoubledVisitor)
    }
}

struct DoubledVisitor;

impl<'de> Visitor<'de> for DoubledVisitor {
    type Value = Doubled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_unit<E>(self) -> Result<Doubled, E> {
        Ok(Doubled(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Doubled, A::Error> {
        let mut found = None;
        while let Some(Doubled(key)) = items.next_element()? {
            found = found.or(key);
        }
        Ok(Doubled(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Doubled, A::Error> {
        let (mut found, mut keys) = (None, BTreeSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if keys.contains(&key) {
                found = found.or(Some(key));
            } else {
                keys.insert(key);
            }
            let Doubled(below) = members.next_value()?;
            found = found.or(below);
        }
        Ok(Doubled(found))
    }
}

/// Characters of an outside text.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn c1_a_doubled_key_is_found_at_any_depth() {
        for (json, expected) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"a":{"b":1,"c":2,"b":{}}}"#, "b"),
            (r#"[0,[{"x":[{"y":0,"y":0}]}]]"#, "y"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
            (r#"{"":null,"":null}"#, ""),
            (r#"{"a\u001b[2J":1,"a\u001b[2J":2}"#, "a[2J"),
            (r#"{"a":{"b":1},"a":{"b":1}}"#, "a"),
        ] {
            assert_eq!(doubled_key(json.as_bytes()).unwrap().as_deref(), Some(expected), "{json}");
            let error = parse_json::<Value>(json.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("key `{expected}` stands in an object twice"));
        }
        let long = "k".repeat(1000);
        let json = format!(r#"{{"{long}":1,"{long}":2}}"#);
        assert_eq!(doubled_key(json.as_bytes()).unwrap().unwrap().len(), MAX_SHOWN);
    }

    #[test]
    fn other_json_is_what_it_is() {
        for json in [
            r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}],"A":0}"#,
            r#"[null,true,-1,18446744073709551615,1.5,1e300,"a","a"]"#,
            "\"\"",
        ] {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(parse_json::<Value>(json.as_bytes()).unwrap(), expected);
        }
        let deep = "[".repeat(100_000);
        for json in ["", "{", "{\"a\":1}x", "NaN", &deep] {
            parse_json::<Value>(json.as_bytes()).unwrap_err();
        }
        assert!(parse_json::<bool>(b"1").unwrap_err().is_data());
    }
}
