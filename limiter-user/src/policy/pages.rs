//! The files that refusals are made of (`rule.response.body`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::diagnostic::quote;
use super::lists::ListFiles;
use super::report::Report;
use super::rule::Body;
use super::rules::PlacedRule;
use super::units::Problem;

/// Bytes of a page at most.
pub const MAX_PAGE: usize = 64 << 10;

/// Bytes of all pages together at most.
const MAX_PAGES: usize = 1 << 20;

/// What may stand between `{{` and `}}` in a page.
pub(super) const WORDS: [&str; 5] = ["status", "title", "detail", "retry_after", "action"];

/// What a page is, by the end of its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageKind {
    /// `.html`
    Html,
    /// `.json`
    Json,
    /// `.txt`
    Text,
}

impl PageKind {
    /// All, in the order in which a client without wishes gets them.
    pub const ALL: [Self; 3] = [Self::Html, Self::Json, Self::Text];

    /// The end of the file's name, without its dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Json => "json",
            Self::Text => "txt",
        }
    }

    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        Self::ALL.into_iter().find(|it| extension == it.extension())
    }
}

/// What a refusal says, with words between `{{` and `}}` to be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What it is.
    pub kind: PageKind,
    /// The file's text.
    pub text: String,
}

/// The pages of a policy, by their paths as the policy names them. A path without an
/// extension has one of each kind at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages(pub BTreeMap<PathBuf, Vec<Page>>);

impl Pages {
    /// Those of a path; none: another policy names it.
    #[must_use]
    pub fn of(&self, path: &Path) -> &[Page] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }
}

/// Reads the files that rules name. What is wrong with one is an error of its rule.
pub(super) fn read(rules: &[PlacedRule], files: &dyn ListFiles, report: &Report) -> Pages {
    let mut pages = Pages::default();
    let mut bytes = 0;
    for placed in rules {
        let Body::File(path) = &placed.rule.response.body else {
            continue;
        };
        if pages.0.contains_key(path) {
            continue;
        }
        match of_path(path, files) {
            Ok(found) => {
                bytes += found.iter().map(|page| page.text.len()).sum::<usize>();
                pages.0.insert(path.clone(), found);
            }
            Err(problem) => {
                report.error(&placed.body, problem);
            }
        }
        if bytes > MAX_PAGES {
            let message = format!("all pages together have more than {MAX_PAGES} bytes");
            let problem = Problem::new(message, "let rules share a page, or write shorter ones");
            report.error(&placed.body, problem);
            break;
        }
    }
    pages
}

fn of_path(path: &Path, files: &dyn ListFiles) -> Result<Vec<Page>, Problem> {
    if path.extension().is_some() {
        let kind = PageKind::of(path).ok_or_else(|| {
            let message = format!("{} is no page", shown(path));
            Problem::new(message, "allowed: files that end in .html, .json or .txt")
        })?;
        return match files.page(path, MAX_PAGE) {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(bytes)) => page(path, kind, bytes).map(|page| vec![page]),
            Err(cause) => Err(unreadable(path, &cause)),
        };
    }
    let mut found = Vec::new();
    for kind in PageKind::ALL {
        let path = path.with_extension(kind.extension());
        match files.page(&path, MAX_PAGE) {
            Ok(None) => return Ok(Vec::new()),
            Ok(Some(bytes)) => found.push(page(&path, kind, bytes)?),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(unreadable(&path, &cause)),
        }
    }
    if found.is_empty() {
        let message = format!("there is no page {}", shown(path));
        let help = "write one that ends in .html, .json or .txt; of several, `Accept` chooses";
        return Err(Problem::new(message, help));
    }
    Ok(found)
}

fn page(path: &Path, kind: PageKind, bytes: Vec<u8>) -> Result<Page, Problem> {
    let text = String::from_utf8(bytes).map_err(|_| {
        let message = format!("{} is not UTF-8 text", shown(path));
        Problem::new(message, "save the file as UTF-8")
    })?;
    for rest in text.split("{{").skip(1) {
        let word = rest.split("}}").next().unwrap_or_default().trim();
        if !WORDS.contains(&word) {
            let word: String = word.chars().take(40).collect();
            let message = format!("{} asks for {}", shown(path), quote(&word));
            let words = WORDS.map(|word| format!("{{{{{word}}}}}")).join(", ");
            return Err(Problem::new(message, format!("allowed: {words}")));
        }
    }
    Ok(Page { kind, text })
}

fn unreadable(path: &Path, cause: &io::Error) -> Problem {
    let message = format!("{} cannot be read: {cause}", shown(path));
    let help = format!("mend the file or its permissions; it may have {MAX_PAGE} bytes");
    Problem::new(message, help)
}

fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}
