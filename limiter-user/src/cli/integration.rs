//! `integration`.

use super::Failure;
use super::args::{Away, Integration, Part, Proxy};
use super::output::Output;
use crate::integration::{self, Site};
use crate::policy;

/// Prints the configuration of a proxy for a policy.
pub(super) fn integration(arguments: &Integration, output: &mut Output) -> Result<(), Failure> {
    let loaded = policy::load(&arguments.config);
    let loaded = loaded.map_err(|error| Failure::Words(error.to_string()))?;
    let Some(decide) = loaded.policy.decide else {
        let words = format!(
            "{} has neither [decide] nor rules: there is nothing to ask limiter about",
            arguments.config.display()
        );
        return Err(Failure::Words(words));
    };
    let site = Site {
        origin: &arguments.origin,
        failure: match arguments.away {
            Away {
                fail_closed: true, ..
            } => integration::Failure::Closed,
            Away { .. } => integration::Failure::Open,
        },
    };
    let text = match arguments.proxy {
        Proxy::Caddy => integration::caddy(&decide, &site),
        Proxy::Nginx => {
            let (http, server) = integration::nginx(&decide, &site);
            match arguments.part {
                Some(Part::Http) => http,
                Some(Part::Server) => server,
                None => format!("{http}\n{server}"),
            }
        }
    };
    Ok(output.verbatim(&text)?)
}
