//! The client's side, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::Refusal;
use super::routes::{PREFER, SSH_CONNECTION, ssh_connection};

/// How long the daemon may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no limiter answers on {} ({cause}); is the daemon running (`limiter run`), and is this its socket (--socket)?",
        socket.display()
    )]
    NoDaemon {
        /// Where.
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// This user may not.
    #[error("{} may not be used by this user; become root; members of control.group and control.read_group need to reach its directory", .0.display())]
    Forbidden(PathBuf),
    /// The daemon refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What came back is no answer.
    #[error("{} gave no proper answer: {cause}", socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
}

/// Asks the daemon behind a socket, one request on a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
    is_minimal: bool,
    is_forced: bool,
    login: Option<HeaderValue>,
}

impl Client {
    /// A client; it connects with each request.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            patience: PATIENCE,
            is_minimal: false,
            is_forced: false,
            login: None,
        }
    }

    /// The same for somebody who is logged in by this SSH connection, as `sshd`
    /// says it in `SSH_CONNECTION`. What says nothing is left out.
    #[must_use]
    pub fn logged_in(self, connection: Option<&str>) -> Self {
        let said = connection.filter(|text| ssh_connection(text).is_some());
        let login = said.and_then(|text| HeaderValue::from_str(text).ok());
        Self { login, ..self }
    }

    /// The same for orders that are to be carried out although they cut SSH
    /// connections off.
    #[must_use]
    pub fn forced(&self, is_forced: bool) -> Self {
        Self {
            is_forced,
            ..self.clone()
        }
    }

    /// The same for answers that take `longer` than others.
    #[must_use]
    pub fn patient(&self, longer: Duration) -> Self {
        Self {
            patience: PATIENCE.saturating_add(longer),
            ..self.clone()
        }
    }

    /// The same for orders of which the answers need not list what they changed.
    #[must_use]
    pub fn minimal(&self) -> Self {
        Self {
            is_minimal: true,
            ..self.clone()
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.request(&Method::GET, path, parameters, Bytes::new())
    }

    /// Orders something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.post_with(path, &[], body)
    }

    /// Orders something with parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let parameters = self.with_force(parameters);
        self.request(&Method::POST, path, &parameters, Bytes::from(body))
    }

    fn with_force<'a>(&self, parameters: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let force = self.is_forced.then_some(("force", "true"));
        parameters.iter().copied().chain(force).collect()
    }

    /// Takes something away.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let parameters = self.with_force(parameters);
        self.request(&Method::DELETE, path, &parameters, Bytes::new())
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Bytes,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.broken(error))?;
        runtime.block_on(async {
            let exchange = self.exchange(method, path, parameters, body);
            match tokio::time::timeout(self.patience, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(self.broken(format!("nothing within {} s", self.patience.as_secs()))),
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Bytes,
    ) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| self.unreachable(cause))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // The sender reports what goes wrong here.
        let _task = tokio::spawn(async move {
            let _ended = connection.await;
        });
        let mut uri = path.to_owned();
        if !parameters.is_empty() {
            let mut query = form_urlencoded::Serializer::new(String::new());
            uri.push('?');
            uri.push_str(&query.extend_pairs(parameters).finish());
        }
        let mut request = Request::builder().method(method).uri(uri);
        if self.is_minimal {
            request = request.header(PREFER, "return=minimal");
        }
        if let Some(login) = &self.login {
            request = request.header(SSH_CONNECTION, login);
        }
        let request = request
            .header(HOST, "localhost")
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))?;
        let is_done = answer.status().is_success();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| self.broken(error))?.to_bytes();
        if !is_done {
            let refusal: Refusal =
                serde_json::from_slice(&body).map_err(|error| self.broken(error))?;
            return Err(refusal.into());
        }
        serde_json::from_slice(&body).map_err(|error| self.broken(error))
    }

    fn unreachable(&self, cause: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match cause.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket),
            _ => ClientError::NoDaemon { socket, cause },
        }
    }

    fn broken(&self, cause: impl std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        }
    }
}
