//! JSON objects whose keys are known: which value is which field.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::draft::{Draft, Field, MAX_HEADERS, Manner, Scalar};
use super::fault::NotUnderstood;

/// Values that one map can name.
pub(super) const MAX_FIELDS: usize = 64;

/// Which value of an object is which field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldMap {
    root: Node,
    /// Numbers given to values and inner objects, for finding duplicates.
    numbers: u32,
    /// Beginnings of keys that are headers.
    prefixes: Vec<Prefix>,
    /// Whether a key that is not named is an error.
    closed: bool,
}

/// Keys such as `http_user_agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) begins: &'static str,
    pub(super) response: bool,
    /// Whether `_` stands for `-`.
    pub(super) underscores: bool,
}

/// An object or an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    children: Vec<Child>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Child {
    key: Box<str>,
    number: u32,
    is: Is,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    Value {
        field: Field,
        /// How messages call it.
        place: Box<str>,
    },
    Inner(Node),
}

/// Why a value has no place in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The map is full.
    Full,
    /// It lies inside of another, around it, or is it.
    Taken,
}

impl FieldMap {
    /// A map of values by their keys, those of inner objects joined by dots.
    /// Keys that the program itself names always have their place.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = (&'a str, Field)>) -> Self {
        let mut map = Self::default();
        for (key, field) in values {
            let keys: Vec<_> = key.split('.').map(Into::into).collect();
            let placed = map.add(&keys, field, key);
            debug_assert!(placed.is_ok(), "{key}");
        }
        map
    }

    #[must_use]
    pub(super) fn with_prefixes(mut self, prefixes: &[Prefix]) -> Self {
        self.prefixes = prefixes.to_vec();
        self
    }

    /// The same; other keys are errors.
    #[must_use]
    pub(super) const fn closed(mut self) -> Self {
        self.closed = true;
        self
    }

    /// Adds a value by its keys from the outside in.
    pub(super) fn add(
        &mut self,
        keys: &[Box<str>],
        field: Field,
        place: &str,
    ) -> Result<(), NoPlace> {
        let mut node = &mut self.root;
        let Some((last, outer)) = keys.split_last() else {
            return Err(NoPlace::Taken);
        };
        for key in outer {
            let known = node.children.iter().position(|child| child.key == *key);
            let at = match known {
                Some(at) => at,
                None => {
                    let number = next(&mut self.numbers)?;
                    node.children.push(Child {
                        key: key.clone(),
                        number,
                        is: Is::Inner(Node::default()),
                    });
                    node.children.len() - 1
                }
            };
            node = match &mut node.children[at].is {
                Is::Inner(inner) => inner,
                Is::Value { .. } => return Err(NoPlace::Taken),
            };
        }
        if node.children.iter().any(|child| child.key == *last) {
            return Err(NoPlace::Taken);
        }
        let number = next(&mut self.numbers)?;
        node.children.push(Child {
            key: last.clone(),
            number,
            is: Is::Value {
                field,
                place: place.into(),
            },
        });
        Ok(())
    }

    /// Reads one object. Bytes that are no UTF-8 are an error in the exact
    /// manner and U+FFFD in the logged one: a client must not get out of a log
    /// by a byte.
    pub(super) fn read(&self, bytes: &[u8], manner: Manner) -> Result<Draft, NotUnderstood> {
        match (std::str::from_utf8(bytes), manner) {
            (Ok(text), _) => self.read_text(text, manner),
            (Err(error), Manner::Exact) => Err(NotUnderstood::NotUtf8 {
                byte: error.valid_up_to() + 1,
            }),
            (Err(_), Manner::Logged) => self.read_text(&String::from_utf8_lossy(bytes), manner),
        }
    }

    fn read_text(&self, text: &str, manner: Manner) -> Result<Draft, NotUnderstood> {
        let mut state = State {
            draft: Draft::new(manner),
            map: self,
            seen: 0,
            fault: None,
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = Object {
            node: &self.root,
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
}

fn next(numbers: &mut u32) -> Result<u32, NoPlace> {
    let number = *numbers;
    if number as usize == MAX_FIELDS {
        return Err(NoPlace::Full);
    }
    *numbers += 1;
    Ok(number)
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

const fn kind(value: Scalar<'_>) -> &'static str {
    match value {
        Scalar::Text(_) => "a string",
        Scalar::Whole(_) | Scalar::Number(_) => "a number",
        Scalar::Bool => "true or false",
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
        self.other(kind(value))
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

/// One value that is a field.
struct Value<'s, 'm, 'f> {
    field: &'f Field,
    place: &'f str,
    state: &'s mut State<'m>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_, '_, '_> {
    fn scalar<E: serde::de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        let set = self.state.draft.set(self.field, self.place, value);
        set.map_err(|fault| self.state.fail(fault))
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, '_> {
    type Value = ();

    scalars!();

    /// `null` is how many write that there is nothing.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<(), A::Error> {
        Err(self.state.wrong_type(self.place, "an array", "one value"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let response = match self.field {
            Field::Headers => false,
            Field::ResponseHeaders => true,
            _ => return Err(self.state.wrong_type(self.place, "an object", "one value")),
        };
        let mut seen: Vec<Cow<'de, str>> = Vec::new();
        while let Some(Key(name)) = map.next_key_seed(KeySeed)? {
            if seen.len() == MAX_HEADERS {
                if self.state.draft.manner() == Manner::Logged {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                return Err(self.state.fail(NotUnderstood::TooManyHeaders {
                    key: self.place.into(),
                    most: MAX_HEADERS,
                }));
            }
            if seen.contains(&name) {
                let key = (&*name).into();
                return Err(self.state.fail(NotUnderstood::Duplicate { key }));
            }
            map.next_value_seed(Header {
                name: &name,
                response,
                listed: false,
                state: self.state,
            })?;
            seen.push(name);
        }
        Ok(())
    }
}

/// The value of a header, or several in an array.
struct Header<'s, 'm, 'n> {
    name: &'n str,
    response: bool,
    listed: bool,
    state: &'s mut State<'m>,
}

impl<'de> DeserializeSeed<'de> for Header<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Header<'_, '_, '_> {
    fn scalar<E: serde::de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        let Scalar::Text(text) = value else {
            return Err(self.wrong(kind(value)));
        };
        let full = self.state.draft.headers(self.response).len() == MAX_HEADERS;
        if full && self.state.draft.manner() == Manner::Exact {
            return Err(self.state.fail(NotUnderstood::TooManyHeaders {
                key: super::Sample::of(self.name.as_bytes()).as_str().into(),
                most: MAX_HEADERS,
            }));
        }
        // A list holds what was sent; a template has something for every name.
        if self.listed || !self.state.draft.is_absent(value) {
            self.state.draft.header(self.response, self.name, text);
        }
        Ok(())
    }

    fn wrong<E: serde::de::Error>(self, found: &'static str) -> E {
        let wanted = "a string or an array of strings";
        let name = super::Sample::of(self.name.as_bytes());
        self.state.wrong_type(name.as_str(), found, wanted)
    }
}

impl<'de> Visitor<'de> for Header<'_, '_, '_> {
    type Value = ();

    scalars!();

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.listed {
            return Err(self.wrong("an array of arrays"));
        }
        while seq
            .next_element_seed(Header {
                name: self.name,
                response: self.response,
                listed: true,
                state: self.state,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, _map: A) -> Result<(), A::Error> {
        Err(self.wrong("an object"))
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'de>(Cow<'de, str>);

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}
