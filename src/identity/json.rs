//! JSON read strictly: no member twice at any depth, a bound on nesting, one object and nothing after it.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

/// Objects and lists inside each other, the outermost included.
pub(super) const MAX_DEPTH: usize = 16;

/// Why bytes are not such an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax,
    TooDeep,
    Duplicate,
}

/// Reads one JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    let fault = Cell::new(Fault::Syntax);
    // Once over all of it, rather than text by text.
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Syntax)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Node {
        depth: 0,
        fault: &fault,
    }
    .deserialize(&mut reader)
    .and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Fault::Syntax),
        Err(_) => Err(fault.get()),
    }
}

/// One value at a depth. The fault travels beside serde's error, whose text would otherwise have to be parsed.
struct Node<'f> {
    depth: usize,
    fault: &'f Cell<Fault>,
}

impl Node<'_> {
    fn inner<E: serde::de::Error>(&self) -> Result<Node<'_>, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(Fault::TooDeep));
        }
        Ok(Node {
            depth: self.depth + 1,
            fault: self.fault,
        })
    }

    fn fail<E: serde::de::Error>(&self, fault: Fault) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("refused"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner_depth = self.inner()?.depth;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Node {
            depth: inner_depth,
            fault: self.fault,
        })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner_depth = self.inner()?.depth;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Entry::Vacant(place) = object.entry(name) else {
                return Err(self.fail(Fault::Duplicate));
            };
            place.insert(members.next_value_seed(Node {
                depth: inner_depth,
                fault: self.fault,
            })?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!(
            "{{\"a\":{}{}}}",
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        let text = r#" {"a": [1, -2, 1.5, 1e3, true, null, "é\n"], "b": {"a": {}}} "#;
        let strict = object(text.as_bytes()).unwrap();
        assert_eq!(
            Value::Object(strict),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn faults_are_told_apart() {
        let cases: [(&[u8], Fault); 14] = [
            (b"", Fault::Syntax),
            (b"[]", Fault::Syntax),
            (b"\"a\"", Fault::Syntax),
            (b"{} {}", Fault::Syntax),
            (b"{\"a\":1,}", Fault::Syntax),
            (b"{\"a\":NaN}", Fault::Syntax),
            (b"{\"a\":1e999}", Fault::Syntax),
            (b"{\"a\":\"\xff\"}", Fault::Syntax),
            (b"{\"a\":\"\\ud800\"}", Fault::Syntax),
            (b"\xef\xbb\xbf{}", Fault::Syntax),
            (b"{\"a\":1,\"a\":1}", Fault::Duplicate),
            (b"{\"a\":1,\"\\u0061\":2}", Fault::Duplicate),
            (b"{\"x\":[{\"a\":1,\"a\":1}]}", Fault::Duplicate),
            (b"{\"a\":1}\0", Fault::Syntax),
        ];
        for (text, fault) in cases {
            assert_eq!(
                object(text),
                Err(fault),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn nesting_is_bounded_and_a_hundred_thousand_brackets_do_not_overflow_the_stack() {
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            object(nested(MAX_DEPTH + 1).as_bytes()),
            Err(Fault::TooDeep)
        );
        assert_eq!(object(nested(100_000).as_bytes()), Err(Fault::TooDeep));
        assert_eq!(
            object("{\"a\":".repeat(100_000).as_bytes()),
            Err(Fault::TooDeep)
        );
    }
}
