//! Values that are fields, and headers.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::State;
use super::key::{Key, KeySeed};
use crate::event::draft::{Field, MAX_HEADERS};
use crate::event::fault::{NotUnderstood, Sample};
use crate::event::value::{Manner, Scalar};

/// One value that is a field.
pub(super) struct Value<'s, 'm, 'f> {
    pub(super) field: &'f Field,
    pub(super) place: &'f str,
    pub(super) state: &'s mut State<'m>,
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
            return Err(self.wrong(value.kind()));
        };
        let full = self.state.draft.headers(self.response).len() == MAX_HEADERS;
        if full && self.state.draft.manner() == Manner::Exact {
            return Err(self.state.fail(NotUnderstood::TooManyHeaders {
                key: Sample::of(self.name.as_bytes()).as_str().into(),
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
        let name = Sample::of(self.name.as_bytes());
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
