//! What is answered where a challenge has to be solved.

use super::accept;
use super::body::{HTML, PROBLEM, Told, html, problem};

/// A page for who reads pages, else an object that says which challenge; either only
/// says so.
pub(super) fn body(told: &Told, accept: Option<&str>) -> (Option<&'static str>, String) {
    if accept::wants_html(accept) {
        (Some(HTML), html(told))
    } else {
        (Some(PROBLEM), problem(told))
    }
}
