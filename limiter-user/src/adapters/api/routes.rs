//! What can be asked.

use hyper::{Method, StatusCode};

use crate::control::api::Refusal;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST /v1/check`.
    Check,
    /// `POST /v1/events`.
    Events,
}

/// What a request line means.
#[derive(Debug)]
pub(super) enum Routed {
    Found(Route),
    Refused(Refusal),
}

const HELP: &str =
    "POST /v1/check asks about one request, POST /v1/events reports what became of some";

pub(super) fn route(method: &Method, path: &str) -> Routed {
    let route = match path {
        "/v1/check" => Route::Check,
        "/v1/events" => Route::Events,
        _ => {
            let refusal = Refusal::new(StatusCode::NOT_FOUND, "there is nothing here", HELP);
            return Routed::Refused(refusal);
        }
    };
    if method == Method::POST {
        return Routed::Found(route);
    }
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "only POST is allowed here",
        HELP,
    );
    Routed::Refused(refusal.at(path))
}
