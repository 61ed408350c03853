//! `[decide.challenge.captcha]`: who poses CAPTCHAs, and what its word is worth.

use std::time::Duration;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::diagnostic::quote;
use super::limit::bounded_duration;
use super::lists::ListFiles;
use super::notify::{Hidden, is_here, secret, url};
use super::reader::{Section, Value};
use super::report::{Read, Report};
use super::units::Problem;

const SECOND: Duration = Duration::from_secs(1);
const SITE_KEY_HELP: &str =
    "allowed: 1 to 200 letters, digits and marks, as the provider gives them";
const SECRET_HELP: &str =
    "name the file that has the provider's secret (or API key), and nothing else";
/// Characters that mean something in a `Content-Security-Policy` or in HTML.
const MARKS: [char; 6] = [';', ',', '\'', '"', '<', '>'];

/// `decide.challenge.captcha`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Captcha {
    /// Who poses it.
    pub provider: Provider,
    /// What the provider knows the site by; public.
    pub site_key: String,
    /// What this host shows the provider. Empty where no files are read, as in the worker.
    #[serde(skip)]
    pub secret: Hidden,
    /// Where it is asked what a client's answer is worth.
    pub verify_url: String,
    /// Where browsers get the provider's script.
    pub script_url: String,
    /// How long the provider may take, 1 s to 10 s.
    pub timeout: Duration,
    /// What becomes of an answer that nobody can judge.
    pub on_failure: OnFailure,
    /// The score from which on reCAPTCHA v3 is believed, 0 to 1.
    pub score: f64,
    /// Whether the provider is told the client's address.
    pub send_address: bool,
}

/// `decide.challenge.captcha.provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Cloudflare Turnstile.
    Turnstile,
    /// hCaptcha.
    Hcaptcha,
    /// Google reCAPTCHA v3.
    RecaptchaV3,
    /// Friendly Captcha v2.
    FriendlyCaptcha,
}

/// `decide.challenge.captcha.on_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is taken.
    Open,
    /// It is not.
    Closed,
}

impl OnFailure {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl Provider {
    /// All.
    pub const ALL: [Self; 4] = [
        Self::Turnstile,
        Self::Hcaptcha,
        Self::RecaptchaV3,
        Self::FriendlyCaptcha,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turnstile => "turnstile",
            Self::Hcaptcha => "hcaptcha",
            Self::RecaptchaV3 => "recaptcha-v3",
            Self::FriendlyCaptcha => "friendly-captcha",
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Turnstile => "Cloudflare Turnstile",
            Self::Hcaptcha => "hCaptcha",
            Self::RecaptchaV3 => "Google reCAPTCHA",
            Self::FriendlyCaptcha => "Friendly Captcha",
        }
    }

    /// Where its documentation has answers verified.
    #[must_use]
    pub const fn verify_url(self) -> &'static str {
        match self {
            Self::Turnstile => "https://challenges.cloudflare.com/turnstile/v0/siteverify",
            Self::Hcaptcha => "https://api.hcaptcha.com/siteverify",
            Self::RecaptchaV3 => "https://www.google.com/recaptcha/api/siteverify",
            Self::FriendlyCaptcha => "https://global.frcapi.com/api/v2/captcha/siteverify",
        }
    }

    /// Where its documentation has browsers get its script.
    #[must_use]
    pub const fn script_url(self) -> &'static str {
        match self {
            Self::Turnstile => "https://challenges.cloudflare.com/turnstile/v0/api.js",
            Self::Hcaptcha => "https://js.hcaptcha.com/1/api.js",
            Self::RecaptchaV3 => "https://www.google.com/recaptcha/api.js",
            Self::FriendlyCaptcha => {
                "https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js"
            }
        }
    }

    /// Whether it documents a field for the client's address.
    const fn takes_address(self) -> bool {
        !matches!(self, Self::FriendlyCaptcha)
    }
}

pub(super) fn captcha(
    challenge: &Section<'_>,
    files: &dyn ListFiles,
    report: &Report,
) -> Read<Option<Captcha>> {
    challenge.read("captcha", |value| read(value, files, report))
}

fn read(value: &Value<'_>, files: &dyn ListFiles, report: &Report) -> Read<Captcha> {
    let section = value.section()?;
    let words = Provider::ALL.map(|it| (it.name(), it));
    let provider = section.read("provider", |v| v.word(&words));
    let site_key = section.read("site_key", |v| v.text(SITE_KEY_HELP, site_key));
    let secret = section.read("secret_file", |v| {
        secret(v, files, "secret_file").map(Option::unwrap_or_default)
    });
    let verify_url = section.read("verify_url", |v| {
        safe_url(v, "secret and answers go", report)
    });
    let script_url = section.read("script_url", |v| safe_url(v, "a script comes", report));
    let timeout = section.read_or("timeout", 5 * SECOND, |v| {
        v.text("allowed: a duration, such as 5s", |text| {
            bounded_duration(text, SECOND..=10 * SECOND)
        })
    });
    let on_failure = section.read_or("on_failure", OnFailure::Closed, |v| {
        v.word(&[OnFailure::Open, OnFailure::Closed].map(|it| (it.name(), it)))
    });
    let score = section.read("score", |v| Ok(v.at(v.share()?)));
    let send_address = section.read_or("send_address", false, Value::boolean);
    let missing = |key: &str, help: &str| {
        value.error(Problem::new(format!("`captcha` has no `{key}`"), help))
    };
    let (provider, site_key, secret) = (provider?, site_key?, secret?);
    let names = Provider::ALL.map(Provider::name).join(", ");
    let provider = provider.ok_or_else(|| missing("provider", &format!("allowed: {names}")))?;
    let site_key = site_key.ok_or_else(|| missing("site_key", SITE_KEY_HELP))?;
    let secret = secret.ok_or_else(|| missing("secret_file", SECRET_HELP))?;
    let (score, send_address) = (score?, send_address?);
    if let Some(score) = score.as_ref().filter(|_| provider != Provider::RecaptchaV3) {
        let problem = Problem::new(
            format!("`score` with `{}`", provider.name()),
            "only recaptcha-v3 gives a score; remove it",
        );
        return Err(value.error_at(&score.place, problem));
    }
    if send_address && !provider.takes_address() {
        let problem = Problem::new(
            format!("`send_address` with `{}`", provider.name()),
            "it documents no field for an address; remove it",
        );
        return Err(value.error(problem));
    }
    Ok(Captcha {
        provider,
        site_key,
        secret: Hidden(secret),
        verify_url: verify_url?.unwrap_or_else(|| provider.verify_url().to_owned()),
        script_url: script_url?.unwrap_or_else(|| provider.script_url().to_owned()),
        timeout: timeout?,
        on_failure: on_failure?,
        score: score.map_or(0.5, |score| score.value),
        send_address,
    })
}

fn site_key(text: &str) -> Result<String, Problem> {
    let is_sound = (1..=200).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    match is_sound {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            format!("{} is no site key", quote(text)),
            SITE_KEY_HELP,
        )),
    }
}

/// One that may stand in a header, and that crosses no network in the clear unless somebody is told.
fn safe_url(value: &Value<'_>, what: &str, report: &Report) -> Read<String> {
    let help = "allowed: an address as https://captcha.example.com/siteverify";
    let url = value.text(help, |text| match text.contains(MARKS) {
        true => Err(Problem::new(
            format!("{} has marks in it", quote(text)),
            help,
        )),
        false => url(text),
    })?;
    let host = url.parse::<Uri>().ok();
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    if url.starts_with("http:") && !is_here(host) {
        let message = format!("{what} over {host} in the clear");
        report.warn(&value.place, message, "use https");
    }
    Ok(url)
}
