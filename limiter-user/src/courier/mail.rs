//! Mail.

use std::time::{Duration, SystemTime};

use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    Certificate, CertificateStore, SmtpConnection, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;

use super::job::{Answer, Mail, Tls};
use super::trust;

/// How long a server may take to say goodbye.
const LEAVE: Duration = Duration::from_secs(5);

/// Replies that are about this host and what the policy says, not about the mail: somebody
/// may mend that within the day (RFC 4954, section 6; RFC 3207).
const ABOUT_US: [u16; 6] = [530, 534, 535, 538, 504, 523];

pub(super) fn carry_out(mail: &Mail) -> Answer {
    let message = match message(mail) {
        Ok(message) => message,
        Err(why) => return Answer::Refused(why),
    };
    let tls = match mail.tls {
        Tls::None => Ok(None),
        Tls::StartTls | Tls::Wrapped => parameters(mail).map(Some),
    };
    let tls = match tls {
        Ok(tls) => tls,
        Err(why) => return Answer::Later(why),
    };
    match send(mail, &message, tls.as_ref()) {
        Ok(response) => {
            let words: Vec<&str> = response.message().collect();
            Answer::Accepted(format!("{} {}", response.code(), words.join(" ")))
        }
        Err(Unsent::Smtp(error)) => judge(&error),
        Err(Unsent::Here(why)) => Answer::Later(why),
    }
}

/// Why a mail was not sent.
enum Unsent {
    /// The server, or the way to it.
    Smtp(Error),
    /// What this side wants.
    Here(String),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self::Smtp(error)
    }
}

/// Sends a mail over a connection of its own. The library's transport has one time-out for
/// everything.
fn send(mail: &Mail, message: &Message, tls: Option<&TlsParameters>) -> Result<Response, Unsent> {
    let step = Duration::from_millis(mail.timeout_ms);
    let name = ClientId::Domain(mail.own_name.clone());
    let wrapped = tls.filter(|_| mail.tls == Tls::Wrapped);
    let server = (mail.host.as_str(), mail.port);
    let mut connection = SmtpConnection::connect(server, Some(step), &name, wrapped, None)?;
    if mail.tls == Tls::StartTls
        && let Some(tls) = tls
    {
        // Where the server does not offer it, nothing is sent in the clear.
        connection.starttls(tls, &name)?;
    }
    if let Some((user, password)) = &mail.login {
        let credentials = Credentials::new(user.clone(), password.clone());
        connection.auth(DEFAULT_MECHANISMS, &credentials)?;
    }
    // The server may have taken the mail long before it says so.
    let end = connection.set_timeout(Some(step * 2));
    end.map_err(|error| Unsent::Here(error.to_string()))?;
    let response = connection.send(message.envelope(), &message.formatted())?;
    // It has the mail; how it takes leave does not matter.
    if connection.set_timeout(Some(LEAVE)).is_ok() {
        let _left = connection.quit();
    }
    Ok(response)
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

fn parameters(mail: &Mail) -> Result<TlsParameters, String> {
    let roots = trust::roots(mail.certificates.as_deref())?;
    let mut builder =
        TlsParameters::builder(mail.host.clone()).certificate_store(CertificateStore::None);
    for root in roots {
        let root = Certificate::from_der(root.to_vec()).map_err(|error| error.to_string())?;
        builder = builder.add_root_certificate(root);
    }
    builder.build().map_err(|error| error.to_string())
}
