//! `GET /metrics`, in the format that the client takes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::classic::classic;
use super::collector::{Rows, Scrape};
use crate::http::{self, Answer, Limits};
use crate::keeper::Snapshot;

/// For whoever scrapes.
pub const LIMITS: Limits = Limits {
    connections: 16,
    head: http::Head::USUAL,
    header: Duration::from_secs(5),
    idle: Duration::from_secs(1),
    stall: Duration::from_secs(30),
    // The peers here have no names; these are places to refuse somebody.
    strangers: 4,
    spare_of_64: 2,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Classic,
}

/// What the daemon remembers between scrapes.
#[derive(Debug, Default)]
pub struct Metrics {
    rows: Rows,
}

/// What ends a text of OpenMetrics.
const END: &str = "# EOF\n";

impl Metrics {
    /// The daemon's part of a scrape, as OpenMetrics without the mark at the end.
    ///
    /// # Errors
    /// The text cannot be written, which takes a defect.
    pub fn text(&mut self, snapshot: Snapshot) -> Result<String, std::fmt::Error> {
        let scrape = Scrape {
            counters: self.rows.update(&snapshot),
            snapshot,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        text.truncate(text.trim_end_matches(END).len());
        Ok(text)
    }
}

/// Answers of the endpoint by status.
pub type Answers = BTreeMap<u16, u64>;

/// Serves metrics for ever; drop the future to stop. `text` gives them as OpenMetrics, or
/// `None` where they cannot be had, and is told what was answered so far.
pub async fn serve<S, F>(listener: TcpListener, limits: Limits, text: S)
where
    S: Fn(Answers) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<String>> + Send + 'static,
{
    let answers = Arc::new(Mutex::new(Answers::new()));
    let busy = || plain(StatusCode::SERVICE_UNAVAILABLE, "no file descriptors\n");
    http::serve(listener, limits, busy, move |request, _peer| {
        let (answers, text) = (Arc::clone(&answers), text.clone());
        async move {
            // Whole between any two operations.
            let locked = || answers.lock().unwrap_or_else(PoisonError::into_inner);
            let so_far = locked().clone();
            let answer = answer(&request, || text(so_far)).await;
            *locked().entry(answer.status().as_u16()).or_default() += 1;
            answer
        }
    })
    .await;
}

async fn answer<F: Future<Output = Option<String>>>(
    request: &Request<Incoming>,
    text: impl FnOnce() -> F,
) -> Answer {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics here\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here\n");
        let _old = answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let Some(text) = text().await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "see the daemon's log\n");
    };
    match accepted(request.headers()) {
        Format::OpenMetrics => respond(StatusCode::OK, OPEN_METRICS, text),
        Format::Classic => respond(StatusCode::OK, CLASSIC, classic(&text)),
    }
}

/// OpenMetrics for who names it with a quality above zero, and not below that
/// of plain text.
pub(super) fn accepted(headers: &HeaderMap) -> Format {
    let mut open_metrics = 0.0_f32;
    let mut classic = 0.0_f32;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok())
                .unwrap_or(1.0);
            match kind.as_str() {
                "application/openmetrics-text" => open_metrics = open_metrics.max(quality),
                "text/plain" => classic = classic.max(quality),
                _ => {}
            }
        }
    }
    if open_metrics > 0.0 && open_metrics >= classic {
        Format::OpenMetrics
    } else {
        Format::Classic
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    let _old = answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
