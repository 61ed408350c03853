//! `[notify]`: who is told what happens, and how.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use lettre::Address;
use lettre::message::Mailbox;
use serde::Serialize;

use super::diagnostic::quote;
use super::lists::ListFiles;
use super::reader::{Section, Value};
use super::report::{Read, Report};
use super::services::{PATH_HELP, absolute};
use super::units::Problem;

/// What may stand between `{{` and `}}` in a template.
pub const TEMPLATE_WORDS: [&str; 8] = [
    "host", "time", "rule", "rung", "action", "source", "account", "until",
];

/// Bytes of a template, a secret or a password at most.
const MOST_TEXT: usize = 16 << 10;

/// Bytes of a file with certificates at most.
const MOST_CERTIFICATES: usize = 1 << 20;

/// The least bytes of a secret: who sees messages can try shorter ones.
const LEAST_SECRET: usize = 16;

const LONGEST_PATH: usize = 4_000;
const ADDRESS_HELP: &str = "allowed: a mail address, as ops@example.com";
const SERVER_HELP: &str = "allowed: a host, or a host and a port, as mail.example.com:587";
const URL_HELP: &str = "allowed: an address as https://hooks.example.com/limiter";
const WORD_HELP: &str = "allowed: 1 to 256 characters without line breaks";

/// What nobody is to read by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// `[notify]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notify {
    /// How mail is sent; `None`: none is.
    pub smtp: Option<Smtp>,
    /// Who else is told; `None`: nobody.
    pub webhook: Option<Webhook>,
    /// To whom mail goes that has no owner's address.
    pub to: Option<String>,
    /// What happens is told so often an hour at most, 1 to 1,000.
    pub per_hour: u32,
    /// Whether accounts are named that are not known to exist.
    pub accounts: bool,
    /// The language of mail without a template.
    pub language: Language,
    /// What mail says instead.
    pub templates: Templates,
    /// Certificates in PEM that are trusted instead of the system's.
    #[serde(skip)]
    pub certificates: Option<Arc<[u8]>>,
}

/// `notify.smtp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Smtp {
    /// Its name, by which its certificate is judged.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How what is sent is kept from others.
    pub tls: SmtpTls,
    /// The sender, a mailbox.
    pub from: String,
    /// Who logs in there, and with what; `None`: nobody.
    #[serde(skip)]
    pub login: Option<(String, Hidden)>,
}

/// `notify.smtp.tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Agreed on in the clear, and required (RFC 3207).
    StartTls,
    /// From the first byte on (RFC 8314).
    Tls,
    /// Not at all.
    None,
}

impl SmtpTls {
    /// The port where the policy names none.
    const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// `notify.webhook`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// What messages are signed with.
    #[serde(skip)]
    pub secret: Hidden,
}

/// `notify.language`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

/// `notify.templates`: the texts of mail. The first line is the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Templates {
    /// To an account's owner, or about an account.
    pub rung: Option<String>,
    /// A flood has begun.
    pub flood_begun: Option<String>,
    /// It is over.
    pub flood_over: Option<String>,
}

/// Reads `[notify]`; `None`: nobody is told anything.
pub(super) fn notify(
    root: &Section<'_>,
    files: &dyn ListFiles,
    report: &Report,
) -> Read<Option<Notify>> {
    root.read("notify", |value| section(value, files, report))
}

fn section(value: &Value<'_>, files: &dyn ListFiles, report: &Report) -> Read<Notify> {
    let section = value.section()?;
    let smtp = section.read("smtp", |v| smtp(v, files, report));
    let webhook = section.read("webhook", |v| webhook(v, files, report));
    let to = section.read("to", |v| v.text(ADDRESS_HELP, address));
    let per_hour = section.read_or("per_hour", 60, |v| v.small(1..=1_000));
    let accounts = section.read_or("accounts", false, Value::boolean);
    let language = section.read_or("language", Language::En, |v| {
        v.word(&[("en", Language::En), ("de", Language::De)])
    });
    let templates = section.read_or("templates", Templates::default(), |v| templates(v, files));
    let certificates = section.read("ca_file", |v| certificates(v, files));
    let notify = Notify {
        smtp: smtp?,
        webhook: webhook?,
        to: to?,
        per_hour: per_hour?,
        accounts: accounts?,
        language: language?,
        templates: templates?,
        certificates: certificates?.flatten(),
    };
    if notify.smtp.is_none() && notify.webhook.is_none() {
        let message = "`notify` names nobody to tell";
        let help = "add `smtp` or `webhook`, or remove it";
        return Err(value.error(Problem::new(message, help)));
    }
    if notify.smtp.is_some() && notify.to.is_none() {
        report.warn(
            &section.place,
            "no `to`: floods, and accounts without an owner's address, are told to nobody by mail",
            "add to = \"ops@example.com\"",
        );
    }
    Ok(notify)
}

fn smtp(value: &Value<'_>, files: &dyn ListFiles, report: &Report) -> Read<Smtp> {
    let section = value.section()?;
    let server = section.read("server", |v| v.text(SERVER_HELP, server));
    let from = section.read("from", |v| v.text(ADDRESS_HELP, mailbox));
    let tls = section.read_or("tls", SmtpTls::StartTls, |v| {
        v.word(&[
            ("starttls", SmtpTls::StartTls),
            ("tls", SmtpTls::Tls),
            ("none", SmtpTls::None),
        ])
    });
    let user = section.read("user", |v| v.text(WORD_HELP, word));
    let password = section.read("password_file", |v| {
        secret(v, files, "password_file").map(|it| it.unwrap_or_default())
    });
    let (server, from, tls) = (server?, from?, tls?);
    let missing =
        |key: &str, help: &str| value.error(Problem::new(format!("`smtp` has no `{key}`"), help));
    let (host, port) = server.ok_or_else(|| missing("server", SERVER_HELP))?;
    let from = from.ok_or_else(|| missing("from", ADDRESS_HELP))?;
    let login = match (user?, password?) {
        (Some(user), Some(password)) => Some((user, Hidden(password))),
        (None, None) => None,
        (Some(_), None) => {
            let help = "name the file that has the password, and nothing else";
            return Err(missing("password_file", help));
        }
        (None, Some(_)) => return Err(missing("user", "name who logs in with that password")),
    };
    if tls == SmtpTls::None && !is_here(&host) {
        report.warn(
            &section.place,
            format!("mail goes to {host} in the clear, and so does a password"),
            "use tls = \"starttls\" or \"tls\"",
        );
    }
    Ok(Smtp {
        port: port.unwrap_or(tls.port()),
        host,
        tls,
        from,
        login,
    })
}

fn webhook(value: &Value<'_>, files: &dyn ListFiles, report: &Report) -> Read<Webhook> {
    let section = value.section()?;
    let url = section.read("url", |v| v.text(URL_HELP, url));
    let secret = section.read("secret_file", |v| {
        let secret = secret(v, files, "secret_file")?;
        if let Some(secret) = secret.as_ref().filter(|it| it.len() < LEAST_SECRET) {
            let message = format!("the secret has {} bytes", secret.len());
            let help = format!("write one of {LEAST_SECRET} or more (`openssl rand -hex 32`)");
            return Err(v.error(Problem::new(message, help)));
        }
        Ok(secret.unwrap_or_default())
    });
    let (url, secret) = (url?, secret?);
    let missing = |key: &str, help: &str| {
        value.error(Problem::new(format!("`webhook` has no `{key}`"), help))
    };
    let url = url.ok_or_else(|| missing("url", URL_HELP))?;
    let secret = secret.ok_or_else(|| {
        let help = "name a file with a secret that the receiver has too";
        missing("secret_file", help)
    })?;
    let host = url.parse::<Uri>().ok();
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    if url.starts_with("http:") && !is_here(host) {
        report.warn(
            &section.place,
            format!("what happens is told to {host} in the clear"),
            "use https",
        );
    }
    Ok(Webhook {
        url,
        secret: Hidden(secret),
    })
}

fn templates(value: &Value<'_>, files: &dyn ListFiles) -> Read<Templates> {
    let section = value.section()?;
    let read = |key| section.read(key, |v| template(v, files));
    let [rung, begun, over] = [read("rung"), read("flood_begun"), read("flood_over")];
    Ok(Templates {
        rung: rung?.flatten(),
        flood_begun: begun?.flatten(),
        flood_over: over?.flatten(),
    })
}

fn template(value: &Value<'_>, files: &dyn ListFiles) -> Read<Option<String>> {
    let Some((path, text)) = text_file(value, files)? else {
        return Ok(None);
    };
    for rest in text.split("{{").skip(1) {
        let word = rest.split("}}").next().unwrap_or_default().trim();
        if !TEMPLATE_WORDS.contains(&word) {
            let word: String = word.chars().take(40).collect();
            let message = format!("{} asks for {}", shown(&path), quote(&word));
            let words = TEMPLATE_WORDS
                .map(|word| format!("{{{{{word}}}}}"))
                .join(", ");
            return Err(value.error(Problem::new(message, format!("allowed: {words}"))));
        }
    }
    // The subject is a header: what is filled in there is limiter's own.
    let subject = text.lines().next().unwrap_or_default();
    if subject.trim().is_empty() {
        let message = format!("{} has no subject", shown(&path));
        return Err(value.error(Problem::new(message, "its first line is the subject")));
    }
    let begun = text
        .match_indices("{{")
        .take_while(|(at, _)| *at < subject.len());
    let mut words = begun.filter_map(|(at, mark)| text[at + mark.len()..].split("}}").next());
    if words.any(|word| word.trim() == "account") {
        let message = format!("{} has the account in its subject", shown(&path));
        let help = "what a client typed stays out of headers: move it to the text";
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(Some(text))
}

fn certificates(value: &Value<'_>, files: &dyn ListFiles) -> Read<Option<Arc<[u8]>>> {
    let path = path(value)?;
    match files.page(&path, MOST_CERTIFICATES) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) if bytes.windows(11).any(|it| it == b"-----BEGIN ") => {
            Ok(Some(bytes.into()))
        }
        Ok(Some(_)) => {
            let message = format!("{} has no certificate", shown(&path));
            Err(value.error(Problem::new(message, "write it as PEM")))
        }
        Err(cause) => Err(unreadable(value, &path, &cause)),
    }
}

/// What a file says beside the space around it; `None`: whoever asks reads none.
pub(super) fn secret(value: &Value<'_>, files: &dyn ListFiles, key: &str) -> Read<Option<String>> {
    let Some((path, text)) = text_file(value, files)? else {
        return Ok(None);
    };
    let text = text.trim();
    if text.is_empty() || text.contains(['\n', '\r', '\0']) {
        let message = format!("{} is not one line (`{key}`)", shown(&path));
        return Err(value.error(Problem::new(message, "write the secret and nothing else")));
    }
    Ok(Some(text.to_owned()))
}

fn text_file(value: &Value<'_>, files: &dyn ListFiles) -> Read<Option<(PathBuf, String)>> {
    let path = path(value)?;
    let bytes = match files.page(&path, MOST_TEXT) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(cause) => return Err(unreadable(value, &path, &cause)),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((path, text))),
        Err(_) => {
            let message = format!("{} is not UTF-8 text", shown(&path));
            Err(value.error(Problem::new(message, "save the file as UTF-8")))
        }
    }
}

fn path(value: &Value<'_>) -> Read<PathBuf> {
    value.text(PATH_HELP, |text| absolute(text, LONGEST_PATH))
}

fn unreadable(value: &Value<'_>, path: &Path, cause: &std::io::Error) -> super::report::Reported {
    let message = format!("{} cannot be read: {cause}", shown(path));
    value.error(Problem::new(message, "mend the file or its permissions"))
}

fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

fn address(text: &str) -> Result<String, Problem> {
    match text.parse::<Address>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(wrong(text, "a mail address", ADDRESS_HELP)),
    }
}

fn mailbox(text: &str) -> Result<String, Problem> {
    match text.parse::<Mailbox>() {
        Ok(_) if !text.contains(['\r', '\n']) => Ok(text.to_owned()),
        _ => Err(wrong(text, "a mail address", ADDRESS_HELP)),
    }
}

fn server(text: &str) -> Result<(String, Option<u16>), Problem> {
    let fault = || wrong(text, "a server", SERVER_HELP);
    let authority: hyper::http::uri::Authority = text.parse().map_err(|_| fault())?;
    if text.contains('@') || authority.host().is_empty() {
        return Err(fault());
    }
    let port = text.strip_prefix(authority.host()).unwrap_or_default();
    if port.starts_with(':') && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(fault());
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok((host, authority.port_u16()))
}

pub(super) fn url(text: &str) -> Result<String, Problem> {
    let fault = || wrong(text, "an address of the web", URL_HELP);
    let uri: Uri = text.parse().map_err(|_| fault())?;
    let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let names_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
    match is_web && has_host && !names_user {
        true => Ok(text.to_owned()),
        false => Err(fault()),
    }
}

fn word(text: &str) -> Result<String, Problem> {
    let is_one = (1..=256).contains(&text.chars().count()) && !text.contains(char::is_control);
    match is_one {
        true => Ok(text.to_owned()),
        false => Err(wrong(text, "a user", WORD_HELP)),
    }
}

fn wrong(text: &str, what: &str, help: &str) -> Problem {
    Problem::new(format!("{} is not {what}", quote(text)), help)
}

pub(super) fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
