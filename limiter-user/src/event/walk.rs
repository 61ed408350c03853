//! Walks through a JSON object with a map of its fields.

/// Gives a visitor of strings, numbers and so on that all end in one method.
macro_rules! scalars {
    () => {
        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
            self.scalar(Scalar::Text(value))
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
            self.scalar(Scalar::Whole(value))
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
            self.scalar(Scalar::Number(value as f64))
        }

        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
            self.scalar(Scalar::Number(value))
        }

        fn visit_bool<E: serde::de::Error>(self, _value: bool) -> Result<(), E> {
            self.scalar(Scalar::Bool)
        }

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }
    };
}

mod key;
mod leaf;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::draft::{Draft, Field};
use super::fault::NotUnderstood;
use super::map::{Child, FieldMap, Is, Node};
use super::value::{Manner, Scalar};
use key::{Key, KeySeed};
use leaf::Value;

/// Reads the object that `text` is.
pub(super) fn read(map: &FieldMap, text: &str, manner: Manner) -> Result<Draft, NotUnderstood> {
    let mut state = State {
        draft: Draft::new(manner),
        map,
        seen: 0,
        fault: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Object {
        node: &map.root,
        state: &mut state,
        outermost: true,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end());
    match (read, state.fault) {
        (_, Some(fault)) => Err(fault),
        (Ok(()), None) => Ok(state.draft),
        (Err(error), None) => Err(not_json(text, &error)),
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> NotUnderstood {
    let before = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1));
    let byte = before.map(str::len).sum::<usize>() + error.column();
    let said = error.to_string();
    let problem = said
        .rsplit_once(" at line ")
        .map_or(&*said, |(problem, _)| problem);
    NotUnderstood::NotJson {
        byte: byte.max(1),
        problem: problem.to_owned(),
    }
}

/// A walk and what it has found.
struct State<'m> {
    draft: Draft,
    map: &'m FieldMap,
    /// A bit for each number met.
    seen: u64,
    /// What serde's error stands for.
    fault: Option<NotUnderstood>,
}

impl State<'_> {
    /// Notes what is wrong, and gives what serde wants for it.
    fn fail<E: serde::de::Error>(&mut self, fault: NotUnderstood) -> E {
        self.fault = Some(fault);
        E::custom("")
    }

    fn wrong_type<E: serde::de::Error>(
        &mut self,
        place: &str,
        found: &'static str,
        wanted: &'static str,
    ) -> E {
        self.fail(NotUnderstood::WrongType {
            key: place.into(),
            found,
            wanted,
        })
    }
}

/// An object, or an array whose values have their numbers for keys.
struct Object<'s, 'm> {
    node: &'m Node,
    state: &'s mut State<'m>,
    outermost: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'m> Object<'_, 'm> {
    fn scalar<E: serde::de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        self.other(value.kind())
    }

    /// Something else where an object was expected.
    fn other<E: serde::de::Error>(self, found: &'static str) -> Result<(), E> {
        if self.outermost {
            return Err(self.state.fail(NotUnderstood::NotAnObject { found }));
        }
        // A log that has other things there says nothing.
        Ok(())
    }

    fn meet<E: serde::de::Error>(&mut self, child: &Child) -> Result<(), E> {
        let bit = 1 << child.number;
        if self.state.seen & bit != 0 {
            let key = child.key.clone();
            return Err(self.state.fail(NotUnderstood::Duplicate { key }));
        }
        self.state.seen |= bit;
        Ok(())
    }

    /// A key that the map does not name.
    fn unknown<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if self.state.map.closed {
            let fault = NotUnderstood::Unknown { key: key.into() };
            return Err(self.state.fail(fault));
        }
        let prefixes = &self.state.map.prefixes;
        let prefix = prefixes
            .iter()
            .find(|prefix| key.starts_with(prefix.begins));
        let Some(prefix) = prefix.filter(|_| self.outermost) else {
            return map.next_value::<IgnoredAny>().map(drop);
        };
        let mut name = key[prefix.begins.len()..].to_owned();
        if prefix.underscores {
            name = name.replace('_', "-");
        }
        let headers = self.state.draft.headers(prefix.response);
        if headers.iter().any(|(known, _)| **known == *name) {
            return Err(self
                .state
                .fail(NotUnderstood::Duplicate { key: key.into() }));
        }
        let name = name.into_boxed_str();
        let field = if prefix.response {
            Field::ResponseHeader(name)
        } else {
            Field::Header(name)
        };
        map.next_value_seed(Value {
            field: &field,
            place: key,
            state: self.state,
        })
    }
}

impl<'de, 'm> Visitor<'de> for Object<'_, 'm> {
    type Value = ();

    scalars!();

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.other("null")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key_seed(KeySeed)? {
            let node: &'m Node = self.node;
            let Some(child) = node.children.iter().find(|child| *child.key == *key) else {
                self.unknown(&key, &mut map)?;
                continue;
            };
            self.meet(child)?;
            match &child.is {
                Is::Value { field, place } => map.next_value_seed(Value {
                    field,
                    place,
                    state: self.state,
                })?,
                Is::Inner(node) => map.next_value_seed(Object {
                    node,
                    state: self.state,
                    outermost: false,
                })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.outermost {
            return self.other("an array");
        }
        for number in 0.. {
            let number: usize = number;
            let key = number.to_string();
            let node: &'m Node = self.node;
            let child = node.children.iter().find(|child| *child.key == *key);
            let more = match child.map(|child| &child.is) {
                None => seq.next_element::<IgnoredAny>()?.is_some(),
                Some(Is::Value { field, place }) => seq
                    .next_element_seed(Value {
                        field,
                        place,
                        state: self.state,
                    })?
                    .is_some(),
                Some(Is::Inner(node)) => seq
                    .next_element_seed(Object {
                        node,
                        state: self.state,
                        outermost: false,
                    })?
                    .is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}
