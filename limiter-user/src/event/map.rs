//! JSON objects whose keys are known: which value is which field.

use super::draft::{Draft, Field};
use super::fault::NotUnderstood;
use super::value::Manner;
use super::walk;

/// Values that one map can name.
pub(super) const MAX_FIELDS: usize = 64;

/// Which value of an object is which field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldMap {
    pub(super) root: Node,
    /// Numbers given to values and inner objects, for finding duplicates.
    numbers: u32,
    /// Beginnings of keys that are headers.
    pub(super) prefixes: Vec<Prefix>,
    /// Whether a key that is not named is an error.
    pub(super) closed: bool,
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
pub(super) struct Node {
    pub(super) children: Vec<Child>,
}

/// A key of an object, or the number of a value in an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) key: Box<str>,
    pub(super) number: u32,
    pub(super) is: Is,
}

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Value {
        field: Field,
        /// How messages call it.
        place: Box<str>,
    },
    Inner(Node),
}

impl Node {
    /// All fields that it and its inner objects name.
    pub(super) fn fields(&self) -> Vec<&Field> {
        let mut fields = Vec::new();
        for child in &self.children {
            match &child.is {
                Is::Value { field, .. } => fields.push(field),
                Is::Inner(node) => fields.extend(node.fields()),
            }
        }
        fields
    }
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
            (Ok(text), _) => walk::read(self, text, manner),
            (Err(error), Manner::Exact) => Err(NotUnderstood::NotUtf8 {
                byte: error.valid_up_to() + 1,
            }),
            (Err(_), Manner::Logged) => walk::read(self, &String::from_utf8_lossy(bytes), manner),
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
