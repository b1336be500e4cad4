//! JSON that keeps the order of its members, for a file that people edit.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// A JSON value whose objects keep their order.
#[derive(Clone, PartialEq)]
pub(crate) enum Json {
    Array(Vec<Self>),
    Object(Object),
    /// A string, number, boolean or null.
    Plain(Value),
}

/// A JSON object that keeps its order. Its `Debug` names the keys only: the values may be secrets.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Object(Vec<(String, Json)>);

impl Json {
    /// Returns the value with the order of its members lost.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(Object(members)) => members
                .iter()
                .map(|(key, value)| (key.clone(), value.to_value()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Self::Plain(value) => value.clone(),
        }
    }

    /// Tells whether this is `null` or the empty string, which count as absent.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Plain(Value::Null)) || self.as_str() == Some("")
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Plain(value) => value.as_str(),
            Self::Array(_) | Self::Object(_) => None,
        }
    }
}

impl Object {
    /// Sets the member of this key, whatever its case, to a text; a new one comes last.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.put(key, Json::Plain(value.into()));
    }

    /// Sets the member of this key, whatever its case; a new one comes last.
    pub(crate) fn put(&mut self, key: &str, value: Json) {
        match self.0.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes the member of this key out, whatever its case.
    pub(crate) fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| !name.eq_ignore_ascii_case(key));
    }

    /// Returns the value of this key, whatever its case.
    pub(crate) fn value(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Returns the text with an indent of four spaces, ended by a newline.
    pub(crate) fn to_text(&self) -> String {
        let mut text = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
        self.serialize(&mut serializer)
            .expect("strings as keys and a vector as output cannot fail");
        text.push(b'\n');
        String::from_utf8(text).expect("serde_json writes UTF-8")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Array(items) => items.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
            Self::Plain(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Plain(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        match serde_json::from_str(text).unwrap() {
            Json::Object(object) => object,
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn order_is_kept_at_every_depth() {
        let text = "{\n    \"z\": 1,\n    \"a\": {\n        \"y\": [\n            null,\n            -2,\n            0.5\n        ],\n        \"b\": true\n    },\n    \"m\": \"ü\"\n}\n";
        assert_eq!(object(text).to_text(), text);
        assert_eq!(object(text).value("A").unwrap().to_value()["y"][1], -2);
    }

    #[test]
    fn a_new_member_comes_last_and_an_old_one_stays_where_it_is() {
        let mut object = object(r#"{"uuid":"","b":1}"#);
        object.set("UUID", "x");
        object.set("C", "y");
        let keys: Vec<_> = object.keys().collect();
        assert_eq!(keys, ["uuid", "b", "C"]);
        assert_eq!(object.value("Uuid").unwrap().as_str(), Some("x"));
    }

    #[test]
    fn values_do_not_print() {
        assert_eq!(format!("{:?}", object(r#"{"SECRET":"hunter2"}"#)), r#"{"SECRET"}"#);
    }
}
