//! Bodies of refusals.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::accept;
use crate::policy::{Action, Body, Page, PageKind, Pages};

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a refusal tells: nothing that a client has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) action: Action,
    pub(super) status: StatusCode,
    /// `None`: no waiting helps, for the request came from where it may not.
    pub(super) retry_after_s: Option<u64>,
}

impl Told {
    pub(super) fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Refused")
    }

    pub(super) fn detail(&self) -> String {
        let seconds = match self.retry_after_s {
            None => return "This is not open to your address.".to_owned(),
            Some(1) => "1 second".to_owned(),
            Some(more) => format!("{more} seconds"),
        };
        match self.action {
            Action::Block => {
                format!(
                    "Requests from your address are refused for now. Please try again in {seconds}."
                )
            }
            Action::JsChallenge | Action::Captcha => {
                "This request needs a challenge to be solved first.".to_owned()
            }
            Action::Throttle | Action::Reject => {
                format!("Rate limit exceeded. Please try again in {seconds}.")
            }
        }
    }

    fn word(&self, word: &str) -> Option<String> {
        match word {
            "status" => Some(self.status.as_str().to_owned()),
            "title" => Some(self.title().to_owned()),
            "detail" => Some(self.detail()),
            "retry_after" => self.retry_after_s.map(|seconds| seconds.to_string()),
            "action" => Some(self.action.name().to_owned()),
            _ => None,
        }
    }
}

/// The content type, if there is content, and the body.
pub(super) fn body(
    body: &Body,
    pages: &Pages,
    told: &Told,
    accept: Option<&str>,
) -> (Option<&'static str>, String) {
    match body {
        Body::OryJson => (Some(JSON), ory(told)),
        Body::ProblemJson => (Some(PROBLEM), problem(told)),
        Body::Html => (Some(HTML), html(told)),
        Body::Empty => (None, String::new()),
        Body::File(path) => match chosen(pages.of(path), accept) {
            Some(page) => {
                let text = filled(&page.text, |word| told.word(word));
                (Some(kind(page.kind)), text)
            }
            None => (Some(PROBLEM), problem(told)),
        },
    }
}

const fn kind(kind: PageKind) -> &'static str {
    match kind {
        PageKind::Html => HTML,
        PageKind::Json => JSON,
        PageKind::Text => TEXT,
    }
}

fn chosen<'a>(pages: &'a [Page], accept: Option<&str>) -> Option<&'a Page> {
    let bare = |page: &Page| kind(page.kind).split(';').next().unwrap_or_default();
    let offered: Vec<&str> = pages.iter().map(bare).collect();
    pages.get(accept::best(accept, &offered))
}

/// A page with its words filled in; those that nobody knows are left out.
pub(super) fn filled(text: &str, of: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (word, after) = after.split_once("}}").unwrap_or((after, ""));
        filled.push_str(&of(word.trim()).unwrap_or_default());
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// As Ory's products word their errors.
fn ory(told: &Told) -> String {
    let (id, reason) = match told.action {
        _ if told.retry_after_s.is_none() => ("forbidden", told.title()),
        Action::Block => ("blocked", told.title()),
        _ => ("rate_limit_exceeded", "Too many requests"),
    };
    let error = json!({ "error": {
        "id": id,
        "code": told.status.as_u16(),
        "status": told.title(),
        "reason": reason,
        "message": told.detail(),
    }});
    format!("{error}\n")
}

/// RFC 9457; of the type `about:blank`, whose title is the status's.
pub(super) fn problem(told: &Told) -> String {
    format!("{}\n", problem_value(told))
}

pub(super) fn problem_value(told: &Told) -> Value {
    let mut problem = json!({
        "type": "about:blank",
        "title": told.title(),
        "status": told.status.as_u16(),
        "detail": told.detail(),
    });
    if told.action.is_challenge() {
        problem["challenge"] = json!(told.action.name());
    } else if let Some(seconds) = told.retry_after_s {
        problem["retry_after"] = json!(seconds);
    }
    problem
}

/// A page without anything that a browser has to fetch.
pub(super) fn html(told: &Told) -> String {
    let (title, detail, status) = (told.title(), told.detail(), told.status.as_u16());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{status} {title}</title>\n\
         <style>:root{{color-scheme:light dark}}\
         body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}}\
         </style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{detail}</p>\n</main>\n</body>\n</html>\n"
    )
}
