//! Bodies of requests, not larger and not slower than allowed.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than this.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Not whole within this.
    #[error("the body did not arrive within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The connection broke, or what came is no body.
    #[error("the body cannot be read: {0}")]
    Broken(String),
}

/// Reads a body of at most `limit_bytes` within `time`. One that announces to
/// be longer is refused before a byte of it is read.
///
/// # Errors
/// See [`BodyError`].
pub async fn read_body(
    body: Incoming,
    limit_bytes: usize,
    time: Duration,
) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(BodyError::TooLarge(limit_bytes));
    }
    let whole = Limited::new(body, limit_bytes).collect();
    match tokio::time::timeout(time, whole).await {
        Err(_) => Err(BodyError::TooSlow(time)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit_bytes)),
        Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
    }
}
