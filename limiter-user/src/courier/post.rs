//! Requests.

use std::io::Read as _;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::job::{Answer, MOST_BODY, Post};
use super::trust;

pub(super) fn carry_out(post: &Post) -> Answer {
    match send(post) {
        Ok(answer) => answer,
        Err(ureq::Error::BadUri(why)) => Answer::Refused(why),
        Err(ureq::Error::Timeout(_)) => {
            let seconds = Duration::from_millis(post.timeout_ms).as_secs_f64();
            Answer::Later(format!("no answer within {seconds} s"))
        }
        Err(error) => Answer::Later(error.to_string()),
    }
}

fn send(post: &Post) -> Result<Answer, ureq::Error> {
    let mut tls = TlsConfig::builder();
    if post.url.starts_with("https:") {
        let roots = match trust::roots(post.certificates.as_deref()) {
            Ok(roots) => roots,
            Err(why) => return Ok(Answer::Later(why.to_owned())),
        };
        let roots = roots.iter().map(|it| Certificate::from_der(it).to_owned());
        let roots: Vec<Certificate<'static>> = roots.collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&roots));
    }
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(post.timeout_ms)))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // What the environment says is not the policy's.
        .proxy(None)
        .user_agent(concat!("limiter/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build()
        .into();
    let mut request = agent.post(&post.url);
    for (name, value) in &post.headers {
        request = request.header(name, value);
    }
    let mut response = request.send(&post.body)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let reader = response.body_mut().as_reader();
    // The status says what came of it, also where the rest does not come.
    let _read = reader.take(MOST_BODY as u64).read_to_end(&mut body);
    Ok(Answer::Replied { status, body })
}
