//! What each format can tell.

use super::Format;
use crate::event::draft::Field;

/// A part of an event that not every format tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The TCP peer.
    Peer,
    /// Method and path.
    Request,
    /// The host.
    Host,
    /// The status.
    Status,
    /// Whose login it is.
    Account,
    /// The authentication backend.
    Backend,
    /// What became of a login.
    Outcome,
    /// At least some headers of the request.
    Headers,
    /// At least some headers of the response.
    ResponseHeaders,
}

impl Format {
    /// Whether lines of this format can tell a part of an event. Whether they do is
    /// up to the server's configuration.
    #[must_use]
    pub fn tells(&self, part: Part) -> bool {
        use Part::{
            Account, Backend, Headers, Host, Outcome, Peer, Request, ResponseHeaders, Status,
        };
        match self {
            Self::Json | Self::NginxJson | Self::EnvoyJson => true,
            Self::Nginx => matches!(part, Request | Status | Account | Headers),
            Self::Caddy | Self::Traefik => !matches!(part, Backend | Outcome),
            Self::Haproxy => matches!(part, Request | Host | Status),
            Self::KratosJson => part != Backend,
            Self::Fields(fields) => fields.0.root.fields().into_iter().any(|field| match part {
                Peer => *field == Field::Peer,
                Request => matches!(field, Field::Path | Field::Request),
                Host => *field == Field::Host,
                Status => *field == Field::Status,
                Account => *field == Field::Account,
                Backend => *field == Field::Backend,
                Outcome => *field == Field::Outcome,
                Headers => matches!(field, Field::Headers | Field::Header(_)),
                ResponseHeaders => {
                    matches!(field, Field::ResponseHeaders | Field::ResponseHeader(_))
                }
            }),
        }
    }
}
