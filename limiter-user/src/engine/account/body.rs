//! Accounts in bodies. What the application may read otherwise than it is read here is
//! unclear, and never taken for a body without an account: else who sends such bodies would
//! get around the rules of accounts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use unicode_normalization::UnicodeNormalization as _;

use crate::event::{Body, Event};
use crate::policy::{AccountPlace, Accounts};

/// What a body says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Nothing,
    Account(Cow<'a, str>),
    Unclear,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Json,
    /// Something else, or nobody knows.
    Other,
}

/// The account in the body of an event, of the first place in which there is one.
pub(super) fn find<'a>(accounts: &Accounts, event: &'a Event) -> Said<'a> {
    let Some(body) = event.body.as_ref() else {
        return Said::Nothing;
    };
    if body.bytes.is_empty() && body.is_whole {
        return Said::Nothing;
    }
    let kind = kind(event);
    let mut is_readable = false;
    for place in &accounts.from {
        let said = match (place, kind) {
            (AccountPlace::Form(field), Kind::Form) => form(body, field),
            (AccountPlace::Json(pointer), Kind::Json) => json(&body.bytes, &tokens(pointer)),
            _ => continue,
        };
        is_readable = true;
        if said != Said::Nothing {
            return said;
        }
    }
    match is_readable {
        true => Said::Nothing,
        false => Said::Unclear,
    }
}

/// What its headers say that a body is.
fn kind(event: &Event) -> Kind {
    let all = |name: &'static str| {
        let headers = event.headers.iter();
        headers.filter(move |(held, _)| held.eq_ignore_ascii_case(name))
    };
    let is_plain = |(_, value): &(Box<str>, Box<str>)| {
        let value = value.trim();
        value.is_empty() || value.eq_ignore_ascii_case("identity")
    };
    let mut types = all("content-type");
    let (Some((_, first)), None) = (types.next(), types.next()) else {
        return Kind::Other;
    };
    let mut parameters = first.split(';').map(str::trim);
    let name = parameters.next().unwrap_or_default().to_ascii_lowercase();
    if !all("content-encoding").all(is_plain) || !parameters.all(is_utf8) {
        return Kind::Other;
    }
    match name.as_str() {
        "application/x-www-form-urlencoded" => Kind::Form,
        "application/json" => Kind::Json,
        other if other.starts_with("application/") && other.ends_with("+json") => Kind::Json,
        _ => Kind::Other,
    }
}

/// Whether a parameter of a content type leaves its text UTF-8.
fn is_utf8(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| value.eq_ignore_ascii_case(known))
}

fn form<'a>(body: &'a Body, field: &str) -> Said<'a> {
    if !body.is_whole {
        return Said::Unclear;
    }
    let pairs = form_urlencoded::parse(&body.bytes);
    let mut values = pairs.filter(|(name, _)| name == field).map(|(_, it)| it);
    let Some(first) = values.next() else {
        return Said::Nothing;
    };
    match values.all(|value| value == first) {
        true => Said::Account(first),
        false => Said::Unclear,
    }
}

/// The account behind the keys of objects and numbers of arrays; a document that is none, or not
/// whole, is unclear.
pub(super) fn json<'a>(bytes: &[u8], path: &[String]) -> Said<'a> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let said = Walk(path).deserialize(&mut json);
    match said.and_then(|said| json.end().map(|()| said)) {
        Ok(said) => said,
        Err(_) => Said::Unclear,
    }
}

/// The keys of a pointer (RFC 6901).
fn tokens(pointer: &str) -> Vec<String> {
    let tokens = pointer.split('/').skip(1);
    tokens
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// Goes down a path, over the whole of a document.
struct Walk<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Said<'static>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Walk<'_> {
    /// A value that is no object and no array.
    fn end(&self, said: Said<'static>) -> Said<'static> {
        match self.0.is_empty() {
            true => said,
            false => Said::Nothing,
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Said<'static>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.end(Said::Account(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.end(Said::Account(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.end(Said::Account(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Self::Value, E> {
        Ok(self.end(Said::Unclear))
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(self.end(Said::Unclear))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Said::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = self.end(Said::Unclear);
        let mut is_found = false;
        while let Some(name) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((key, rest)) if is_same(&name, key) => {
                    let said = map.next_value_seed(Walk(rest))?;
                    // Which of two the application takes is not known.
                    found = if is_found { Said::Unclear } else { said };
                    is_found = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = self.end(Said::Unclear);
        let wanted = self.0.split_first();
        let wanted = wanted.and_then(|(key, rest)| Some((key.parse::<usize>().ok()?, rest)));
        for number in 0.. {
            let is_over = match wanted {
                Some((at, rest)) if at == number => match seq.next_element_seed(Walk(rest))? {
                    Some(said) => {
                        found = said;
                        false
                    }
                    None => true,
                },
                _ => seq.next_element::<IgnoredAny>()?.is_none(),
            };
            if is_over {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether an application may take a name for a key: some ignore case.
fn is_same(name: &str, key: &str) -> bool {
    let folded = |text: &str| text.nfkc().collect::<String>().to_lowercase();
    name == key || name.eq_ignore_ascii_case(key) || folded(name) == folded(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(headers: &[(&str, &str)], body: &str, is_whole: bool) -> Event {
        let headers = headers.iter();
        Event {
            headers: headers
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            body: Some(Body {
                bytes: body.as_bytes().into(),
                is_whole,
            }),
            ..Event::of([192, 0, 2, 1].into())
        }
    }

    fn accounts(places: &[AccountPlace]) -> Accounts {
        Accounts {
            from: places.to_vec(),
            ..Accounts::default()
        }
    }

    fn both() -> Accounts {
        accounts(&[
            AccountPlace::Form("user".to_owned()),
            AccountPlace::Json("/who/user~1name".to_owned()),
        ])
    }

    const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=\"UTF-8\"");

    #[track_caller]
    fn says(headers: &[(&str, &str)], body: &str, expected: Said<'_>) {
        let event = event(headers, body, true);
        assert_eq!(find(&both(), &event), expected, "{headers:?} {body}");
    }

    fn account(name: &str) -> Said<'_> {
        Said::Account(name.into())
    }

    #[test]
    fn forms_are_read() {
        says(
            &[FORM],
            "a=b&user=ann%40example.com&user=ann@example.com",
            account("ann@example.com"),
        );
        says(&[FORM], "user=", account(""));
        says(&[FORM], "name=ann", Said::Nothing);
        says(&[FORM], "", Said::Nothing);
        says(&[FORM], "user=ann&user=bob", Said::Unclear);
        let cut = event(&[FORM], "user=an", false);
        assert_eq!(find(&both(), &cut), Said::Unclear);
    }

    #[test]
    fn documents_are_read() {
        for (body, expected) in [
            (
                r#"{"who": {"user/name": "ann"}, "b": [1, {}]}"#,
                account("ann"),
            ),
            (r#"{"who": {"user/name": 7}}"#, account("7")),
            (r#"{"who": {"user/name": null}}"#, Said::Nothing),
            (r#"{"who": {"x": 1}}"#, Said::Nothing),
            (r#"{"who": "ann"}"#, Said::Nothing),
            // As applications read it that ignore case; the last is a long s.
            (r#"{"Who": {"USER/NAME": "ann"}}"#, account("ann")),
            (r#"{"who": {"u\u017fer/name": "ann"}}"#, account("ann")),
            // Twice, in any spelling, at any depth.
            (
                r#"{"who": {"user/name": "ann", "user\/name": "bob"}}"#,
                Said::Unclear,
            ),
            (r#"{"who": {"user/name": "ann"}, "WHO": {}}"#, Said::Unclear),
            (r#"{"who": {"user/name": ["ann"]}}"#, Said::Unclear),
            (r#"{"who": {"user/name": {}}}"#, Said::Unclear),
            (r#"{"who": {"user/name": true}}"#, Said::Unclear),
            (r#"{"who": {"user/name": "ann"}} {}"#, Said::Unclear),
            (r#"{"who": {"user/name": "ann""#, Said::Unclear),
            ("user=ann", Said::Unclear),
        ] {
            says(&[JSON], body, expected);
        }
        says(
            &[("content-type", "application/vnd.a+json")],
            "{}",
            Said::Nothing,
        );
        let list = accounts(&[AccountPlace::Json("/1/0".to_owned())]);
        let event = event(&[JSON], r#"[["x"], ["ann", "b"], 3]"#, true);
        assert_eq!(find(&list, &event), account("ann"));
    }

    #[test]
    fn what_may_be_read_otherwise_is_unclear() {
        for headers in [
            &[][..],
            &[FORM, JSON],
            &[("content-type", "multipart/form-data; boundary=x")],
            &[("content-type", "text/plain")],
            &[("content-type", "application/json; charset=utf-16")],
            &[FORM, ("content-encoding", "gzip")],
        ] {
            says(headers, "user=ann", Said::Unclear);
        }
        says(
            &[FORM, ("content-encoding", "identity")],
            "user=ann",
            account("ann"),
        );
        // A form where documents are expected: the application may read both.
        let json_only = accounts(&[AccountPlace::Json("/user".to_owned())]);
        assert_eq!(
            find(&json_only, &event(&[FORM], "user=ann", true)),
            Said::Unclear
        );
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body: String, path in "(/[a-z0-9~]{0,3}){0,4}") {
            let places = accounts(&[AccountPlace::Json(path), AccountPlace::Form("a".to_owned())]);
            for headers in [FORM, JSON] {
                let _said = find(&places, &event(&[headers], &body, true));
            }
        }
    }
}
