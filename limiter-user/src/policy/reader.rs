//! The file as typed: TOML tables and values that know where they stand and
//! report what does not fit.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::quote;
use super::report::{At, Place, Read, Report, Reported};
use super::schema::{Schema, suggest};
use super::units::Problem;

/// A table of the file, or the lack of it, with the keys it may have.
pub(super) struct Section<'a> {
    schema: &'static Schema,
    table: Option<&'a DeTable<'a>>,
    pub(super) place: Place,
    report: &'a Report,
}

/// A value of the file.
pub(super) struct Value<'a> {
    /// The key that it stands behind, for messages.
    key: &'a str,
    schema: &'static Schema,
    value: &'a DeValue<'a>,
    pub(super) place: Place,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// Reports the table's unknown keys.
    pub(super) fn new(
        schema: &'static Schema,
        table: Option<&'a DeTable<'a>>,
        place: Place,
        report: &'a Report,
    ) -> Self {
        for key in table.into_iter().flat_map(DeTable::keys) {
            if let Some(problem) = schema.refuses(key.get_ref()) {
                report.error(&place.sibling(key.span()), problem);
            }
        }
        Self {
            schema,
            table,
            place,
            report,
        }
    }

    /// What `read` makes of the value of `key`; nothing where it is absent.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        let value = self.table.and_then(|table| table.get(key));
        value.map(|value| read(&self.value(key, value))).transpose()
    }

    /// As [`Section::read`], with a default.
    pub(super) fn read_or<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Read<T>,
    ) -> Read<T> {
        Ok(self.read(key, read)?.unwrap_or(default))
    }

    /// The table `key`, as if empty where it is absent.
    pub(super) fn section(&self, key: &'static str) -> Read<Section<'a>> {
        let section = self.read(key, Value::section)?;
        Ok(section.unwrap_or_else(|| {
            Section::new(
                self.schema.child(key),
                None,
                self.place.clone(),
                self.report,
            )
        }))
    }

    fn value(&self, key: &'static str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            key,
            schema: self.schema.child(key),
            value: value.get_ref(),
            place: self.place.sibling(value.span()),
            report: self.report,
        }
    }

    /// `value` with this place.
    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            place: self.place.clone(),
        }
    }

    /// Reports an error at a place inside this table.
    pub(super) fn error_at(&self, place: &Place, problem: Problem) -> Reported {
        self.report.error(place, problem)
    }
}

impl<'a> Value<'a> {
    /// Reports an error here.
    pub(super) fn error(&self, problem: Problem) -> Reported {
        self.report.error(&self.place, problem)
    }

    /// Reports an error at a place inside this value.
    pub(super) fn error_at(&self, place: &Place, problem: Problem) -> Reported {
        self.report.error(place, problem)
    }

    /// Reports that this is of the wrong type.
    pub(super) fn mismatch<T>(&self, wanted: &str, help: impl Into<String>) -> Read<T> {
        let message = format!(
            "`{}`: expected {wanted}, found {}",
            self.key,
            self.value.type_str()
        );
        Err(self.error(Problem::new(message, help)))
    }

    pub(super) fn boolean(&self) -> Read<bool> {
        match self.value.as_bool() {
            Some(value) => Ok(value),
            None => self.mismatch("a boolean", "allowed: true, false"),
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let help = format!("allowed: {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return self.mismatch("an integer", help);
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let written = quote(&integer.to_string());
                let message = format!("`{}` cannot be {written}", self.key);
                Err(self.error(Problem::new(message, help)))
            }
        }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&self) -> Read<f64> {
        let help = "allowed: 0.0 to 1.0";
        let number = match self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
            _ => return self.mismatch("a number", help),
        };
        match number {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(number),
            _ => {
                let message = format!("`{}` is out of range", self.key);
                Err(self.error(Problem::new(message, help)))
            }
        }
    }

    /// As [`Value::integer`], for a smaller type; the range must fit it.
    pub(super) fn small<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Read<T> {
        let value = self.integer(range)?;
        T::try_from(value)
            .map_err(|_| self.error(Problem::new(format!("`{}` is too large", self.key), "")))
    }

    /// A string that `parse` understands.
    pub(super) fn text<T>(
        &self,
        help: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Read<T> {
        match self.value.as_str() {
            Some(text) => parse(text).map_err(|problem| self.error(problem)),
            None => self.mismatch("a string", help),
        }
    }

    /// One of some words.
    pub(super) fn word<T: Clone>(&self, words: &[(&str, T)]) -> Read<T> {
        self.word_or(words, &[])
    }

    /// One of some words; `others` are allowed too, and not read here.
    pub(super) fn word_or<T: Clone>(&self, words: &[(&str, T)], others: &[&str]) -> Read<T> {
        let names = words.iter().map(|(name, _)| *name);
        let names = names.chain(others.iter().copied());
        self.text(&suggest("", names.clone(), ""), |text| {
            words
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| {
                    let message = format!("`{}` cannot be {}", self.key, quote(text));
                    Problem::new(message, suggest(text, names, ""))
                })
        })
    }

    /// Every element of an array as `read` sees it; all of them are read, so
    /// that all errors are told.
    pub(super) fn list<T>(&self, help: &str, read: impl Fn(&Value<'a>) -> Read<T>) -> Read<Vec<T>> {
        let read: Vec<Read<T>> = self.items(help)?.map(|item| read(&item)).collect();
        read.into_iter().collect()
    }

    /// As [`Value::list`], without the elements that have errors: for what is
    /// to be checked further in spite of them.
    pub(super) fn list_of_good<T>(
        &self,
        help: &str,
        read: impl FnMut(&Value<'a>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let mut read = read;
        Ok(self.items(help)?.flat_map(|item| read(&item)).collect())
    }

    fn items(&self, help: &str) -> Read<impl Iterator<Item = Value<'a>>> {
        let Some(items) = self.value.as_array() else {
            return self.mismatch("an array", help);
        };
        Ok(items.iter().map(|item| Value {
            key: self.key,
            schema: self.schema,
            value: item.get_ref(),
            place: self.place.sibling(item.span()),
            report: self.report,
        }))
    }

    pub(super) fn section(&self) -> Read<Section<'a>> {
        match self.value.as_table() {
            Some(table) => Ok(Section::new(
                self.schema,
                Some(table),
                self.place.clone(),
                self.report,
            )),
            None => self.mismatch("a table", suggest_keys(self.schema)),
        }
    }

    /// What stands in a table whose keys can be any; nothing where it is none.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let entries = self.value.as_table().into_iter().flatten();
        entries.map(|(key, value)| {
            let name: &'a str = key.get_ref();
            let value = Value {
                key: name,
                schema: self.schema,
                value: value.get_ref(),
                place: self.place.sibling(value.span()),
                report: self.report,
            };
            (name, value)
        })
    }

    /// The key that it stands behind.
    pub(super) fn key(&self) -> &str {
        self.key
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(super) fn as_str(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// `value` with this place.
    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            place: self.place.clone(),
        }
    }
}

fn suggest_keys(schema: &Schema) -> String {
    suggest("", schema.allowed(), "in it")
}
