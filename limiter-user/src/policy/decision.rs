//! `[decide]`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::challenge::challenge;
use super::decide::{
    AccountPlace, Accounts, Api, Datagrams, Decide, Feedback, Listen, LogFile, TokenPlace,
};
use super::diagnostic::quote;
use super::limit::networks;
use super::lists::ListFiles;
use super::pages::Pages;
use super::reader::{Section, Value};
use super::report::{Place, Read, Report};
use super::schema::suggest;
use super::select::{bounded, header_name, parameter};
use super::services::{GROUP_HELP, PATH_HELP, absolute, group};
use super::units::Problem;
use super::words::FIELDS;
use crate::challenge::Keys;
use crate::event::formats::{self, FieldsError, Format};

/// What `sun_path` holds before its final zero.
const LONGEST_SOCKET: usize = 107;
const LONGEST_PATH: usize = 4_000;
const MAX_FEEDBACK: usize = 16;
const MAX_LOGS: usize = 64;
const LISTEN_HELP: &str =
    "allowed: an address with a port, such as 127.0.0.1:4480, or unix: and an absolute path";
const API_HELP: &str =
    r#"allowed: unix: and an absolute path, or { listen = "127.0.0.1:4481", token_file = "/…" }"#;
const FEEDBACK_HELP: &str = r#"allowed: unix: and an absolute path, { unix = "/…" }, or { udp = "127.0.0.1:4482", from = ["10.0.0.5"] }"#;
const LOGS_HELP: &str =
    r#"allowed: tables such as { path = "/var/log/nginx/access.json", format = "nginx-json" }"#;
const ADDRESS_HELP: &str = "allowed: an address with a port, such as 127.0.0.1:4482";
const HEADER_HELP: &str = "allowed: X-Forwarded-For, Forwarded, X-Real-IP, CF-Connecting-IP, or the header that your proxy sets";
const POINTER_HELP: &str =
    "allowed: a JSON pointer, such as /request/remote_ip, with ~0 for ~ and ~1 for / in a key";
const ACCOUNT_HELP: &str = "allowed: basic, header:NAME, response_header:NAME, cookie:NAME, \
                            query:NAME, form:FIELD, json:/POINTER, jwt:CLAIM, \
                            jwt:CLAIM@header:NAME, jwt:CLAIM@cookie:NAME";

/// The section, its parts still with the places that checks point to.
pub(super) struct PlacedDecide {
    /// All but the rules.
    pub(super) decide: Decide,
    /// Where the section stands.
    pub(super) place: Place,
    /// Where the API is named, if it is.
    pub(super) api: Option<Place>,
    pub(super) listen: Place,
    pub(super) spoe: Option<Place>,
    pub(super) client_header: Option<Place>,
    pub(super) trusted_proxies: Place,
    pub(super) exempt: Place,
}

pub(super) fn decide(
    root: &Section<'_>,
    files: &dyn ListFiles,
    report: &Report,
) -> Read<PlacedDecide> {
    let section = root.section("decide")?;
    let here = section.place.clone();
    let default = section.at(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 4480))));
    let listen = section.read_or("listen", default, |v| {
        Ok(v.at(v.text(LISTEN_HELP, listen_at)?))
    });
    let spoe = section.read("spoe", |v| Ok(v.at(v.text(LISTEN_HELP, listen_at)?)));
    let api = section.read("api", |v| Ok(v.at(api(v)?)));
    let group = section.read("group", |v| v.text(GROUP_HELP, group));
    let feedback = section.read_or("feedback", Vec::new(), |v| {
        bounded(v, FEEDBACK_HELP, MAX_FEEDBACK, feedback)
    });
    let logs = section.read_or("logs", Vec::new(), |v| bounded(v, LOGS_HELP, MAX_LOGS, log));
    let list = |key| section.read_or(key, section.at(Vec::new()), |v| Ok(v.at(networks(v)?)));
    let (trusted_proxies, exempt) = (list("trusted_proxies"), list("exempt"));
    let client_header = section.read("client_header", |v| {
        Ok(v.at(v.text(HEADER_HELP, |text| {
            header_name(text).map(|_| text.to_owned())
        })?))
    });
    let local_proxy = section.read_or("local_proxy", true, Value::boolean);
    let enforce = section.read_or("enforce", true, Value::boolean);
    let accounts = accounts(&section);
    let challenge = challenge(&section, files, report);
    let (listen, spoe, api, client_header) = (listen?, spoe?, api?, client_header?);
    let spoe_place = spoe.as_ref().map(|at| at.place.clone());
    let (trusted_proxies, exempt) = (trusted_proxies?, exempt?);
    let api_place = api.as_ref().map(|at| at.place.clone());
    let header_place = client_header.as_ref().map(|at| at.place.clone());
    Ok(PlacedDecide {
        place: here,
        api: api_place,
        listen: listen.place,
        spoe: spoe_place,
        client_header: header_place,
        trusted_proxies: trusted_proxies.place,
        exempt: exempt.place,
        decide: Decide {
            listen: listen.value,
            spoe: spoe.map(|at| at.value),
            api: api.map_or_else(|| Api::Unix("/run/limiter/api.sock".into()), |at| at.value),
            group: group?,
            feedback: feedback?,
            logs: logs?,
            trusted_proxies: trusted_proxies.value,
            client_header: client_header
                .map_or_else(|| "X-Forwarded-For".to_owned(), |at| at.value),
            local_proxy: local_proxy?,
            exempt: exempt.value,
            enforce: enforce?,
            accounts: accounts?,
            challenge: challenge?,
            rules: Vec::new(),
            pages: Pages::default(),
            challenge_keys: Keys::default(),
        },
    })
}

fn socket(path: &str) -> Result<PathBuf, Problem> {
    absolute(path, LONGEST_SOCKET)
}

fn file(value: &Value<'_>) -> Read<PathBuf> {
    value.text(PATH_HELP, |text| absolute(text, LONGEST_PATH))
}

fn address(text: &str, help: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| {
        let message = format!("{} is not an address with a port", quote(text));
        Problem::new(message, help)
    })
}

fn listen_at(text: &str) -> Result<Listen, Problem> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(Listen::Unix(socket(path)?)),
        None => Ok(Listen::Tcp(address(text, LISTEN_HELP)?)),
    }
}

/// `unix:` and a path.
fn unix(text: &str, help: &str) -> Result<PathBuf, Problem> {
    match text.strip_prefix("unix:") {
        Some(path) => socket(path),
        None => {
            let message = format!("{} is no Unix socket", quote(text));
            Err(Problem::new(message, help))
        }
    }
}

fn api(value: &Value<'_>) -> Read<Api> {
    if !value.is_table() {
        let parse = |text: &str| Ok(Api::Unix(unix(text, API_HELP)?));
        return value.text(API_HELP, parse);
    }
    let section = value.section()?;
    let listen = section.read("listen", |v| {
        v.text(ADDRESS_HELP, |text| address(text, ADDRESS_HELP))
    });
    let token_file = section.read("token_file", file);
    match (listen?, token_file?) {
        (Some(listen), Some(token_file)) => Ok(Api::Tcp { listen, token_file }),
        (None, _) => Err(value.error(Problem::new("`api` without `listen`", API_HELP))),
        (_, None) => {
            let help = "name the file that holds the token: who shows it may ask and report";
            Err(value.error(Problem::new("`api` without `token_file`", help)))
        }
    }
}

fn feedback(value: &Value<'_>) -> Read<Feedback> {
    if !value.is_table() {
        let at = value.text(FEEDBACK_HELP, |text| {
            Ok(Datagrams::Unix(unix(text, FEEDBACK_HELP)?))
        })?;
        return Ok(Feedback {
            at,
            format: Format::Json,
            fields: BTreeMap::new(),
            direct: false,
        });
    }
    let section = value.section()?;
    let path = section.read("unix", |v| v.text(PATH_HELP, socket));
    let udp = section.read("udp", |v| {
        v.text(ADDRESS_HELP, |text| address(text, ADDRESS_HELP))
    });
    let from = section.read("from", |v| Ok(v.at(networks(v)?)));
    let format = format(value, &section);
    let direct = section.read_or("direct", false, Value::boolean);
    let (path, udp, from, direct) = (path?, udp?, from?, direct?);
    let (format, fields) = format?;
    let at = match (path, udp, from) {
        (Some(path), None, None) => Datagrams::Unix(path),
        (Some(_), None, Some(from)) => {
            let help = "who may write to the socket is said by its permissions";
            let problem = Problem::new("`from` with a Unix socket", help);
            return Err(value.error_at(&from.place, problem));
        }
        (None, Some(listen), Some(from)) if !from.value.is_empty() => {
            let from = from.value;
            Datagrams::Udp { listen, from }
        }
        (None, Some(_), _) => {
            let help = r#"name the senders that are heard, such as from = ["10.0.0.5"]"#;
            return Err(value.error(Problem::new("`udp` without `from`", help)));
        }
        _ => {
            let problem = Problem::new("one of `unix` and `udp` is needed", FEEDBACK_HELP);
            return Err(value.error(problem));
        }
    };
    Ok(Feedback {
        at,
        format,
        fields,
        direct,
    })
}

fn log(value: &Value<'_>) -> Read<LogFile> {
    let section = value.section()?;
    let path = section.read("path", file);
    let format = format(value, &section);
    let direct = section.read_or("direct", false, Value::boolean);
    let asked = section.read_or("asked", false, Value::boolean);
    let has_format = section.read("format", |_| Ok(()))?.is_some();
    let path = path?.ok_or_else(|| {
        let problem = Problem::new("a log without `path`", LOGS_HELP);
        value.error(problem)
    });
    if !has_format {
        let names = formats().into_iter().map(|(name, _)| name);
        let help = suggest("", names, "");
        return Err(value.error(Problem::new("a log without `format`", help)));
    }
    let (format, fields) = format?;
    Ok(LogFile {
        path: path?,
        format,
        fields,
        direct: direct?,
        asked: asked?,
    })
}

type Fields = BTreeMap<String, String>;

/// Fields and where they are.
type Named = Vec<(String, String)>;

/// The words for formats; the one without is made of `fields`.
fn formats() -> Vec<(&'static str, Option<Format>)> {
    let named = Format::names().map(|name| (name, name.parse().ok()));
    named.chain([("fields", None)]).collect()
}

fn format(value: &Value<'_>, section: &Section<'_>) -> Read<(Format, Fields)> {
    let format = section.read_or("format", Some(Format::Json), |v| v.word(&formats()));
    let fields = section.read("fields", |v| Ok(v.at(fields(v)?)));
    match (format?, fields?) {
        (None, Some(fields)) => {
            let pairs = fields.value.iter();
            let pairs = pairs.map(|(field, pointer)| (field.as_str(), pointer.as_str()));
            let map = formats::Fields::new(pairs).map_err(|error| {
                let help = match error {
                    FieldsError::NoSource => {
                        r#"say where the client's address is, such as source = "/remote_addr""#
                    }
                    _ => "name a place of its own for each",
                };
                value.error_at(&fields.place, Problem::new(error.to_string(), help))
            })?;
            Ok((Format::Fields(map), fields.value))
        }
        (None, None) => {
            let help = r#"say where each field is, such as fields = { source = "/remote_addr" }"#;
            let problem = Problem::new("the format `fields` without `fields`", help);
            Err(value.error(problem))
        }
        (Some(_), Some(fields)) => {
            let help = r#"write format = "fields", or remove them"#;
            let problem = Problem::new("`fields` with a format that has its own", help);
            Err(value.error_at(&fields.place, problem))
        }
        (Some(format), None) => Ok((format, Fields::new())),
    }
}

fn fields(value: &Value<'_>) -> Read<Fields> {
    let section = value.section()?;
    let named: Vec<Read<Option<Named>>> = FIELDS
        .iter()
        .map(|name| section.read(name, |v| field(name, v)))
        .collect();
    let named: Read<Vec<_>> = named.into_iter().collect();
    Ok(named?.into_iter().flatten().flatten().collect())
}

/// Where a field is; of headers also where each of them is, by its name.
fn field(name: &str, value: &Value<'_>) -> Read<Named> {
    if !value.is_table() || !matches!(name, "headers" | "response_headers") {
        let pointer = value.text(POINTER_HELP, pointer)?;
        return Ok(vec![(name.to_owned(), pointer)]);
    }
    let each: Vec<Read<(String, String)>> = value
        .entries()
        .map(|(header, place)| {
            let known = header_name(header).map_err(|problem| place.error(problem));
            let pointer = place.text(POINTER_HELP, pointer);
            known.and(pointer.map(|pointer| (format!("{name}.{header}"), pointer)))
        })
        .collect();
    each.into_iter().collect()
}

/// A JSON pointer, RFC 6901: no value but one inside of an object or array.
fn pointer(text: &str) -> Result<String, Problem> {
    let is_escape = |rest: &str| rest.starts_with(['0', '1']);
    let is_pointer = text.starts_with('/') && text.split('~').skip(1).all(is_escape);
    if is_pointer && text.len() <= 512 {
        return Ok(text.to_owned());
    }
    let message = format!("{} is no JSON pointer", quote(text));
    Err(Problem::new(message, POINTER_HELP))
}

fn accounts(decide: &Section<'_>) -> Read<Accounts> {
    let section = decide.section("accounts")?;
    let from = section.read_or("from", Vec::new(), |v| {
        bounded(v, ACCOUNT_HELP, MAX_FEEDBACK, |item| {
            item.text(ACCOUNT_HELP, account_place)
        })
    });
    let nfkc = section.read_or("nfkc", true, Value::boolean);
    let ignore_case = section.read_or("ignore_case", true, Value::boolean);
    let trim = section.read_or("trim", true, Value::boolean);
    let owner_help = "allowed: the name of a response header, as X-Account-Email";
    let owner_header = section.read("owner_header", |v| v.text(owner_help, header_name));
    Ok(Accounts {
        from: from?,
        nfkc: nfkc?,
        ignore_case: ignore_case?,
        trim: trim?,
        owner_header: owner_header?,
    })
}

fn account_place(text: &str) -> Result<AccountPlace, Problem> {
    match text.split_once(':') {
        None if text == "basic" => Ok(AccountPlace::Basic),
        Some(("header", name)) => Ok(AccountPlace::Header(header_name(name)?)),
        Some(("response_header", name)) => Ok(AccountPlace::ResponseHeader(header_name(name)?)),
        Some(("cookie", name)) => Ok(AccountPlace::Cookie(parameter(text, name)?)),
        Some(("query", name)) => Ok(AccountPlace::Query(parameter(text, name)?)),
        Some(("form", name)) => Ok(AccountPlace::Form(parameter(text, name)?)),
        Some(("json", at)) => Ok(AccountPlace::Json(pointer(at)?)),
        Some(("jwt", rest)) => token(text, rest),
        _ => {
            let message = format!("{} is no place of an account", quote(text));
            Err(Problem::new(message, ACCOUNT_HELP))
        }
    }
}

/// A claim of a token, and where the token stands.
fn token(text: &str, rest: &str) -> Result<AccountPlace, Problem> {
    let (claim, place) = match rest.split_once('@') {
        None => (rest, TokenPlace::Bearer),
        Some((claim, place)) => match place.split_once(':') {
            Some(("header", name)) => (claim, TokenPlace::Header(header_name(name)?)),
            Some(("cookie", name)) => (claim, TokenPlace::Cookie(parameter(text, name)?)),
            _ => {
                let message = format!("{} is no place of a token", quote(place));
                return Err(Problem::new(message, ACCOUNT_HELP));
            }
        },
    };
    let claim = parameter(text, claim)?;
    Ok(AccountPlace::Token { claim, place })
}
