//! Whose login an event is: where the account stands, and how it is compared.

mod body;
mod token;

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use unicode_normalization::UnicodeNormalization as _;

use crate::event::Event;
use crate::policy::{AccountPlace, Accounts};
use body::Said;

/// Bytes of a mail address at most (RFC 5321, section 4.5.3.1.3, without its brackets).
const LONGEST_ADDRESS: usize = 254;

/// Whose login an event is, not yet in the form that is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    /// The account that it names, or that stands in its request or response.
    pub(crate) account: Option<Cow<'a, str>>,
    /// The account that a token claims, where there is no other. Anybody can write one.
    pub(crate) claimed: Option<Cow<'a, str>>,
    /// Whether there is none because nobody can tell which it is.
    pub(crate) is_unclear: bool,
}

/// Finds the account of an event.
pub(crate) fn find<'a>(accounts: &Accounts, event: &'a Event) -> Named<'a> {
    let mut named = Named::default();
    if let Some(account) = &event.account {
        named.account = Some(Cow::Borrowed(account));
        return named;
    }
    let mut body = None;
    for place in &accounts.from {
        named.account = match place {
            AccountPlace::Basic => basic(event).map(Cow::Owned),
            AccountPlace::Header(name) => header(&event.headers, name).map(Cow::Borrowed),
            AccountPlace::ResponseHeader(name) => {
                header(&event.response_headers, name).map(Cow::Borrowed)
            }
            AccountPlace::Cookie(name) => cookie(event, name).map(Cow::Borrowed),
            AccountPlace::Query(name) => event.path.as_deref().and_then(|path| query(path, name)),
            AccountPlace::Form(_) | AccountPlace::Json(_) => {
                match body.get_or_insert_with(|| body::find(accounts, event)) {
                    Said::Account(account) => Some(account.clone()),
                    Said::Nothing | Said::Unclear => None,
                }
            }
            AccountPlace::Token { claim, place } => {
                let claim = || token::claim(event, claim, place).map(Cow::Owned);
                named.claimed = named.claimed.or_else(claim);
                None
            }
        };
        if named.account.is_some() {
            named.claimed = None;
            return named;
        }
    }
    named.is_unclear = body == Some(Said::Unclear);
    named
}

/// The mail address of the account's owner, as the response names it; of the request nothing is
/// believed.
pub(super) fn owner<'a>(accounts: &Accounts, event: &'a Event) -> Option<&'a str> {
    let name = accounts.owner_header.as_deref()?;
    let address = header(&event.response_headers, name)?.trim();
    let is_short = (1..=LONGEST_ADDRESS).contains(&address.len());
    is_short.then_some(address)
}

/// The form in which accounts are compared. Names in plain ASCII, most of them, take
/// none of the tables of Unicode.
pub(super) fn normalise(accounts: &Accounts, account: &str, out: &mut String) {
    let account = if accounts.trim {
        account.trim()
    } else {
        account
    };
    out.clear();
    if account.is_ascii() {
        out.push_str(account);
        if accounts.ignore_case {
            out.make_ascii_lowercase();
        }
        return;
    }
    let composed: Cow<'_, str> = match accounts.nfkc {
        true => account.nfkc().collect(),
        false => Cow::Borrowed(account),
    };
    match (accounts.ignore_case, accounts.nfkc) {
        // Lower case can undo the composition.
        (true, true) => out.extend(composed.to_lowercase().nfkc()),
        (true, false) => out.push_str(&composed.to_lowercase()),
        (false, _) => out.push_str(&composed),
    }
    if accounts.trim {
        // NFKC makes plain spaces of others.
        let end = out.trim_end().len();
        out.truncate(end);
        let start = out.len() - out.trim_start().len();
        out.drain(..start);
    }
}

/// An account in the form in which it is compared and stored; without a policy, as one
/// would that says nothing of it.
#[must_use]
pub fn normalised_account(accounts: Option<&Accounts>, account: &str) -> String {
    let default = Accounts::default();
    let mut out = String::new();
    normalise(accounts.unwrap_or(&default), account, &mut out);
    out
}

/// The value of the first header of this name.
pub(crate) fn header<'a>(headers: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let named = |(held, _): &&(Box<str>, Box<str>)| held.eq_ignore_ascii_case(name);
    headers.iter().find(named).map(|(_, value)| value.trim())
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let mut cookies = cookies(event);
    cookies.find_map(|(held, value)| (held == name).then_some(value))
}

/// All cookies, by name and value.
pub(crate) fn cookies(event: &Event) -> impl Iterator<Item = (&str, &str)> {
    let headers = event.headers.iter();
    let named = headers.filter(|(held, _)| held.eq_ignore_ascii_case("cookie"));
    named
        .flat_map(|(_, value)| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(held, value)| (held.trim(), value.trim()))
}

/// What stands for a parameter that is given twice, differently: which one the application
/// takes is not known, so that all such requests are taken for one.
const AMBIGUOUS: &str = "\u{fffd}";

/// Base64 as applications decode it, with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of a parameter of a path's query, decoded; U+FFFD if there are several that
/// differ.
pub(crate) fn query<'a>(path: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, query) = path.split_once('?')?;
    let query = query.split('#').next()?;
    let mut values = form_urlencoded::parse(query.as_bytes())
        .filter(|(held, _)| held == name)
        .map(|(_, value)| value);
    let first = values.next()?;
    match values.all(|value| value == first) {
        true => Some(first),
        false => Some(Cow::Borrowed(AMBIGUOUS)),
    }
}

/// The user's name of `Authorization: Basic` (RFC 7617), whatever the bytes of the password.
fn basic(event: &Event) -> Option<String> {
    let value = header(&event.headers, "authorization")?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = LENIENT.decode(credentials.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(String::from_utf8_lossy(&decoded[..colon]).into_owned())
}
