//! A JSON object's members, unparsed: numbers that no number type can hold pass through unchanged.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::secret::Secret;

/// The members of a JSON object, in order, each name once: the last value counts.
pub(crate) struct Members<'a> {
    pub list: Vec<(String, &'a RawValue)>,
    /// A name that was there more than once.
    pub duplicate: Option<String>,
}

impl<'a> Members<'a> {
    /// The error says where the text stops being a JSON object and shows nothing of it.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => "not a JSON object of sensible size".to_owned(),
            _ => format!("not valid JSON (line {}, column {})", error.line(), error.column()),
        })
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.list.iter().find(|(other, _)| other == name).map(|(_, raw)| *raw)
    }

    /// A member that is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Adds a member, or changes its value.
    pub fn set(&mut self, name: &str, value: &'a RawValue) {
        match self.list.iter_mut().find(|(other, _)| other == name) {
            Some(member) => member.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.list.retain(|(other, _)| other != name);
    }

    /// The object again, less one member.
    pub fn without(&self, name: &str) -> Secret {
        let length = self.list.iter().map(|(name, raw)| name.len() * 6 + raw.get().len() + 4).sum::<usize>();
        // Never grows: a reallocation would leave a copy behind.
        let mut json = String::with_capacity(length + 2);
        json.push('{');
        for (other, raw) in self.list.iter().filter(|(other, _)| other != name) {
            if json.len() > 1 {
                json.push(',');
            }
            push_name(&mut json, other);
            json.push(':');
            json.push_str(raw.get());
        }
        json.push('}');
        Secret::new(json)
    }
}

fn push_name(json: &mut String, name: &str) {
    if name.bytes().all(|byte| byte >= b' ' && !matches!(byte, b'"' | b'\\')) {
        json.push('"');
        json.push_str(name);
        json.push('"');
    } else {
        json.push_str(&serde_json::Value::from(name).to_string());
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members { list: Vec::new(), duplicate: None };
                const MOST: usize = 2_000;
                while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
                    let known = members.list.iter().position(|(other, _)| *other == name);
                    match known {
                        Some(at) => {
                            members.list[at].1 = raw;
                            members.duplicate = Some(name);
                        }
                        None if members.list.len() == MOST => {
                            return Err(serde::de::Error::custom("too many members"));
                        }
                        None => members.list.push((name, raw)),
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_pass_through_unchanged() {
        let text = r#" {"a": 1e400 ,"b":123456789012345678,"c\u00e9\"":{"x": [1.10]},"refresh_token":"r","b":2.50} "#;
        let members = Members::parse(text).unwrap();
        assert_eq!(members.duplicate.as_deref(), Some("b"));
        let rest = members.without("refresh_token");
        assert_eq!(rest.expose(), r#"{"a":1e400,"b":2.50,"cé\"":{"x": [1.10]}}"#);
        assert_eq!(Members::parse("{}").unwrap().without("x").expose(), "{}");
    }

    #[test]
    fn errors_show_nothing() {
        for bad in ["", "[1]", "\"canary\"", "{\"canary\"", "{\"a\":canary}", "{} canary"] {
            let Err(error) = Members::parse(bad) else { panic!("{bad}") };
            assert!(error.starts_with("not ") && !error.contains("canary"), "{error}");
        }
    }
}
