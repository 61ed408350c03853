//! Mail.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{
    Certificate, CertificateStore, Tls as ClientTls, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, SmtpTransport};
use lettre::{Address, Transport as _};

use super::job::{Answer, Mail, Tls};
use super::trust;

/// Replies that are about this host and what the policy says, not about the mail: somebody
/// may mend that within the day (RFC 4954, section 6; RFC 3207).
const ABOUT_US: [u16; 6] = [530, 534, 535, 538, 504, 523];

pub(super) fn carry_out(mail: &Mail) -> Answer {
    let message = match message(mail) {
        Ok(message) => message,
        Err(why) => return Answer::Refused(why),
    };
    let transport = match transport(mail) {
        Ok(transport) => transport,
        Err(why) => return Answer::Later(why),
    };
    match transport.send(&message) {
        Ok(response) => {
            let words: Vec<&str> = response.message().collect();
            Answer::Accepted(format!("{} {}", response.code(), words.join(" ")))
        }
        Err(error) => judge(&error),
    }
}

fn judge(error: &Error) -> Answer {
    let words = crate::keeper::in_full(error);
    let code = error.status().map(u16::from);
    match error.is_permanent() && !code.is_some_and(|code| ABOUT_US.contains(&code)) {
        true => Answer::Refused(words),
        false => Answer::Later(words),
    }
}

/// The mail itself. Nothing that a client has sent is in a header: addresses are parsed.
fn message(mail: &Mail) -> Result<Message, String> {
    let from: Mailbox = mail.from.parse().map_err(|_| "the sender is no address")?;
    let to: Address = mail.to.parse().map_err(|_| "the receiver is no address")?;
    let subject: String = mail.subject.chars().filter(|c| !c.is_control()).collect();
    let raw = |name| HeaderName::new_from_ascii_str(name);
    let message = Message::builder()
        .from(from)
        .to(Mailbox::new(None, to))
        .date(SystemTime::UNIX_EPOCH + Duration::from_secs(mail.date_s))
        .message_id(Some(format!("<{}>", mail.id)))
        .subject(subject)
        // No answers by machines (RFC 3834).
        .raw_header(HeaderValue::new(
            raw("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text.clone());
    message.map_err(|error| error.to_string())
}

fn transport(mail: &Mail) -> Result<SmtpTransport, String> {
    let tls = match mail.tls {
        Tls::None => ClientTls::None,
        Tls::StartTls => ClientTls::Required(parameters(mail)?),
        Tls::Wrapped => ClientTls::Wrapper(parameters(mail)?),
    };
    let mut builder = SmtpTransport::builder_dangerous(&mail.host)
        .port(mail.port)
        .tls(tls)
        .hello_name(ClientId::Domain(mail.own_name.clone()))
        .timeout(Some(Duration::from_millis(mail.timeout_ms)));
    if let Some((user, password)) = &mail.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
    }
    Ok(builder.build())
}

fn parameters(mail: &Mail) -> Result<TlsParameters, String> {
    let roots = trust::roots(mail.certificates.as_deref())?;
    let mut builder =
        TlsParameters::builder(mail.host.clone()).certificate_store(CertificateStore::None);
    for root in roots {
        // One that this library does not understand is one that is not believed.
        if let Ok(root) = Certificate::from_der(root.to_vec()) {
            builder = builder.add_root_certificate(root);
        }
    }
    builder.build().map_err(|error| error.to_string())
}
