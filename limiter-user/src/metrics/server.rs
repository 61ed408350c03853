//! `GET /metrics`, in the format that the client takes.

use std::collections::BTreeMap;
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
use crate::keeper::{Handle, Snapshot};

/// For whoever scrapes.
pub const LIMITS: Limits = Limits {
    connections: 16,
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

/// What is remembered between scrapes.
#[derive(Debug, Default)]
pub struct Metrics {
    rows: Mutex<Rows>,
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Metrics {
    /// A scrape as text.
    ///
    /// # Errors
    /// The text cannot be written, which takes a defect.
    pub(super) fn text(
        &self,
        snapshot: Snapshot,
        format: Format,
    ) -> Result<String, std::fmt::Error> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let scrape = Scrape {
            counters: rows.update(&snapshot),
            answers: answers.clone(),
            snapshot,
        };
        drop((rows, answers));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &registry)?;
        Ok(match format {
            Format::OpenMetrics => open_metrics,
            Format::Classic => classic(&open_metrics),
        })
    }

    fn count(&self, status: StatusCode) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status.as_u16()).or_default() += 1;
    }
}

/// Serves metrics for ever; drop the future to stop.
pub async fn serve(listener: TcpListener, limits: Limits, keeper: Handle) {
    let metrics = Arc::new(Metrics::default());
    let busy = || plain(StatusCode::SERVICE_UNAVAILABLE, "no file descriptors\n");
    http::serve(listener, limits, busy, move |request, _peer| {
        let (metrics, keeper) = (Arc::clone(&metrics), keeper.clone());
        async move {
            let answer = answer(&metrics, &keeper, &request).await;
            metrics.count(answer.status());
            answer
        }
    })
    .await;
}

async fn answer(metrics: &Metrics, keeper: &Handle, request: &Request<Incoming>) -> Answer {
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
    let format = accepted(request.headers());
    let snapshot = match keeper.ask(|keeper| keeper.snapshot()).await {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(refusal)) => {
            tracing::warn!(reason = refusal.detail, "no metrics");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log\n");
        }
        Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{error}\n")),
    };
    let Ok(text) = metrics.text(snapshot, format) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot write metrics\n");
    };
    let kind = match format {
        Format::OpenMetrics => OPEN_METRICS,
        Format::Classic => CLASSIC,
    };
    respond(StatusCode::OK, kind, text)
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
