//! The commented policies that `limiter init` prints.

use toml_edit::{DocumentMut, Item, Key, TableLike, Value};

use super::diagnostic::{escape, quote};
use super::schema::suggest;
use super::units::Problem;
use super::{NoFiles, PolicyError, parse};

const COMMON: &str = include_str!("presets/common.toml");
const DECIDE: &str = include_str!("presets/decide.toml");

/// A policy to start from.
struct Preset {
    name: &'static str,
    purpose: &'static str,
    /// What follows [`COMMON`].
    parts: &'static [&'static str],
    /// Keys of its own.
    keys: &'static [Short],
}

/// A key that stands for a longer one and a part of its value.
struct Short {
    name: &'static str,
    key: &'static str,
    /// What becomes of the value `V`: the list of this and `V`.
    before: &'static str,
}

const fn edge(name: &'static str, purpose: &'static str, parts: &'static [&'static str]) -> Preset {
    Preset {
        name,
        purpose,
        parts,
        keys: &[],
    }
}

const PRESETS: [Preset; 13] = [
    edge(
        "edge",
        "a web server: HTTPS, HTTP, HTTP/3, SSH and ICMP per source",
        &[include_str!("presets/edge.toml")],
    ),
    edge(
        "strict-ssh",
        "a host that only serves SSH: few new connections per source",
        &[include_str!("presets/strict-ssh.toml")],
    ),
    edge(
        "dns",
        "a name server: queries over UDP and TCP per source",
        &[include_str!("presets/dns.toml")],
    ),
    Preset {
        name: "protect-login",
        purpose: "one login page: too many attempts block a source; --set path=/signin",
        parts: &[DECIDE, include_str!("presets/protect-login.toml")],
        keys: &[Short {
            name: "path",
            key: "rule.protect-login.requests",
            before: "POST ",
        }],
    },
    edge(
        "cloudflare-login",
        "failed logins of a source: challenge, CAPTCHA, block",
        &[DECIDE, include_str!("presets/cloudflare-login.toml")],
    ),
    edge(
        "cloudflare-headers",
        "the origin says in X-CF-Block whom to block, and for how long",
        &[DECIDE, include_str!("presets/cloudflare-headers.toml")],
    ),
    edge(
        "cloudflare-not-found",
        "guessing what exists: pages that were not found, on the whole site",
        &[DECIDE, include_str!("presets/cloudflare-not-found.toml")],
    ),
    edge(
        "cloudflare-enumeration",
        "guessing what exists: an expensive look-up, in steps",
        &[DECIDE, include_str!("presets/cloudflare-enumeration.toml")],
    ),
    edge(
        "cloudflare-scraping",
        "copied images: loads per minute, and names that are guessed",
        &[DECIDE, include_str!("presets/cloudflare-scraping.toml")],
    ),
    edge(
        "loginwith",
        "logins, password resets and second factors by account, in longer and longer locks",
        &[DECIDE, include_str!("presets/loginwith.toml")],
    ),
    edge(
        "kratos",
        "Ory Kratos: three buckets of requests, lockout, CAPTCHA",
        &[include_str!("presets/kratos.toml")],
    ),
    edge(
        "opensearch",
        "OpenSearch: failed logins by name and by address",
        &[DECIDE, include_str!("presets/opensearch.toml")],
    ),
    edge(
        "boruta",
        "boruta: requests are made to wait, then rejected",
        &[DECIDE, include_str!("presets/boruta.toml")],
    ),
];

/// Why no template could be made. `Display` escapes what came from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no such preset, or an assignment names nothing or is no TOML.
    #[error("{}", escape(&.0.to_string()))]
    Refused(Problem),
    /// With the assignments the policy has errors.
    #[error("with these settings the policy has errors:\n{0}")]
    Invalid(PolicyError),
}

/// The presets: name and what each is for; the first is the default.
#[must_use]
pub fn presets() -> &'static [(&'static str, &'static str)] {
    const LISTED: [(&str, &str); PRESETS.len()] = {
        let mut listed = [("", ""); PRESETS.len()];
        let mut index = 0;
        while index < PRESETS.len() {
            listed[index] = (PRESETS[index].name, PRESETS[index].purpose);
            index += 1;
        }
        listed
    };
    &LISTED
}

/// A commented policy: the preset, or the default one, with `set` applied in
/// order. A key is dotted, a limit or rule addressed by its name
/// (`edge.limit.https.packets.rate`), or one of the preset's own (`path`); a value
/// is TOML, and a bare word is a string.
///
/// # Errors
/// There is no such preset; a key leads nowhere; a value is no TOML; or the
/// policy that results has errors.
pub fn template(preset: Option<&str>, set: &[(String, String)]) -> Result<String, TemplateError> {
    let preset = named(preset).map_err(TemplateError::Refused)?;
    let text = format!("{COMMON}{}", preset.parts.concat());
    let text = if set.is_empty() {
        text
    } else {
        assigned(&text, preset, set).map_err(TemplateError::Refused)?
    };
    match parse("limiter.toml", &text, &NoFiles) {
        Ok(_) => Ok(text),
        Err(fault) => Err(TemplateError::Invalid(fault)),
    }
}

fn named(preset: Option<&str>) -> Result<&'static Preset, Problem> {
    let [default, ..] = &PRESETS;
    let name = preset.unwrap_or(default.name);
    let found = PRESETS.iter().find(|preset| preset.name == name);
    found.ok_or_else(|| {
        let names = PRESETS.iter().map(|preset| preset.name);
        Problem::new(
            format!("unknown preset {}", quote(name)),
            suggest(name, names, ""),
        )
    })
}

fn assigned(text: &str, preset: &Preset, set: &[(String, String)]) -> Result<String, Problem> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|fault: toml_edit::TomlError| Problem::new(fault.message(), ""))?;
    for (key, value) in set {
        let path = Key::parse(key).map_err(|_| {
            let help = "write it dotted, such as edge.enforce";
            Problem::new(format!("{} is not a key", quote(key)), help)
        })?;
        let value = value_of(key, value)?;
        let (path, value) = match preset.keys.iter().find(|short| short.name == key) {
            Some(short) => short.expand(value)?,
            None => (of_all(preset, key, path)?, value),
        };
        assign(document.as_table_mut(), &path, value).map_err(|problem| {
            let message = format!("{} cannot be set: {}", quote(key), problem.message);
            Problem::new(message, problem.help)
        })?;
    }
    Ok(document.to_string())
}

/// A key that is none of this preset's own; it may be another's.
fn of_all(preset: &Preset, key: &str, path: Vec<Key>) -> Result<Vec<Key>, Problem> {
    let has = |preset: &&Preset| preset.keys.iter().any(|short| short.name == key);
    let others: Vec<&str> = PRESETS.iter().filter(has).map(|it| it.name).collect();
    if others.is_empty() {
        return Ok(path);
    }
    let message = format!(
        "{} cannot be set: the preset {} has no such key",
        quote(key),
        quote(preset.name)
    );
    let help = format!(
        "--preset {} has it; every preset has the keys of its policy, as edge.enforce or \
         edge.limit.NAME.packets.rate",
        others.join(" or ")
    );
    Err(Problem::new(message, help))
}

impl Short {
    fn expand(&self, value: Value) -> Result<(Vec<Key>, Value), Problem> {
        let text = value.as_str().ok_or_else(|| {
            let message = format!("{} is not a string", quote(self.name));
            Problem::new(
                message,
                format!("it becomes the end of {}", quote(self.key)),
            )
        })?;
        let list: toml_edit::Array = [format!("{}{text}", self.before)].into_iter().collect();
        let path = Key::parse(self.key).map_err(|_| Problem::new("no such key", ""))?;
        Ok((path, list.into()))
    }
}

/// Shells eat quotes, so what can only be a string need not be quoted.
fn value_of(key: &str, text: &str) -> Result<Value, Problem> {
    let is_bare = |c: char| c.is_alphanumeric() || "_-./:*".contains(c);
    match text.parse::<Value>() {
        Ok(value) => Ok(value),
        Err(_) if !text.is_empty() && text.chars().all(is_bare) => Ok(text.into()),
        Err(_) => Err(Problem::new(
            format!("the value {} of {} is not TOML", quote(text), quote(key)),
            r#"lists are ["a", "b"], and strings stand in quotes, both kept from the shell by '…'"#,
        )),
    }
}

fn assign(table: &mut dyn TableLike, path: &[Key], mut value: Value) -> Result<(), Problem> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        // The decor is what stands around a value: here, its comment.
        let old = table.get(key.get()).and_then(Item::as_value);
        *value.decor_mut() = old.map(|old| old.decor().clone()).unwrap_or_default();
        match table.get_mut(key.get()) {
            Some(item) => *item = Item::Value(value),
            None => drop(table.insert(key.get(), Item::Value(value))),
        }
        return Ok(());
    }
    if table.get(key.get()).is_none() {
        table.insert(key.get(), toml_edit::table());
    }
    let inner = table.get_mut(key.get()).map(|item| step(item, key, rest));
    match inner.transpose()? {
        Some((inner, rest)) => assign(inner, rest, value),
        None => Ok(()),
    }
}

/// The table behind `key`, and what of the path is left: in the limits and rules,
/// the next part is a name.
fn step<'i, 'k>(
    item: &'i mut Item,
    key: &Key,
    rest: &'k [Key],
) -> Result<(&'i mut dyn TableLike, &'k [Key]), Problem> {
    let not_a_table = || {
        let message = format!("{} is not a table", quote(key.get()));
        Problem::new(message, "shorten the key")
    };
    let Item::ArrayOfTables(tables) = item else {
        let table = item.as_table_like_mut().ok_or_else(not_a_table)?;
        return Ok((table, rest));
    };
    let Some((name, rest)) = rest.split_first() else {
        return Err(not_a_table());
    };
    let name_of = |table: &toml_edit::Table| {
        let name = table.get("name").and_then(Item::as_str);
        name.unwrap_or_default().to_owned()
    };
    let names: Vec<String> = tables.iter().map(name_of).collect();
    let index = names.iter().position(|known| known == name.get());
    match index.and_then(|index| tables.get_mut(index)) {
        Some(table) if !rest.is_empty() => Ok((table, rest)),
        Some(_) => {
            let help = "name one of its keys";
            Err(Problem::new(
                format!("{} is a whole {}", quote(name.get()), key.get()),
                help,
            ))
        }
        None => {
            let help = suggest(name.get(), names.iter().map(String::as_str), "");
            Err(Problem::new(
                format!("there is no {} {}", key.get(), quote(name.get())),
                help,
            ))
        }
    }
}
