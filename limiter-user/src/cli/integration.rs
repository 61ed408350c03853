//! `integration`.

use super::Failure;
use super::args::{Away, Integration, Part, Proxy};
use super::output::Output;
use crate::integration::{self, Site};
use crate::policy;
use clap::ValueEnum as _;
use std::path::Path;

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
    let files = match arguments.proxy {
        Proxy::Caddy => vec![(None, integration::caddy(&decide, &site))],
        Proxy::Nginx => {
            let (http, server) = integration::nginx(&decide, &site);
            two((Part::Http, http), (Part::Server, server))
        }
        Proxy::Haproxy => {
            let files = integration::haproxy(&decide, &site);
            let (frontend, filter) = files.ok_or_else(|| without_spoe(&arguments.config))?;
            two((Part::Frontend, frontend), (Part::Filter, filter))
        }
        Proxy::Traefik => {
            let files = integration::traefik(&decide, &site);
            let (moving, standing) = files.ok_or_else(|| without_port(&arguments.config))?;
            two((Part::Dynamic, moving), (Part::Static, standing))
        }
    };
    let text = chosen(files, arguments.part)?;
    Ok(output.verbatim(&text)?)
}

/// Files, each by its part; one alone has none.
type Files = Vec<(Option<Part>, String)>;

fn two(first: (Part, String), second: (Part, String)) -> Files {
    let both = [first, second].into_iter();
    both.map(|(part, text)| (Some(part), text)).collect()
}

/// The part that was asked for, or all.
fn chosen(files: Files, part: Option<Part>) -> Result<String, Failure> {
    let Some(part) = part else {
        let texts: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
        return Ok(texts.join("\n"));
    };
    let parts: Vec<Part> = files.iter().filter_map(|(part, _)| *part).collect();
    let found = files.into_iter().find(|(it, _)| *it == Some(part));
    found.map(|(_, text)| text).ok_or_else(|| {
        let name = |part: &Part| part.to_possible_value().map(|it| it.get_name().to_owned());
        let names: Vec<String> = parts.iter().filter_map(name).collect();
        Failure::Words(match names[..] {
            [] => "the proxy takes one file: leave --part out".to_owned(),
            _ => format!("the proxy has no such part; allowed: {}", names.join(", ")),
        })
    })
}

fn without_spoe(config: &Path) -> Failure {
    Failure::Words(format!(
        "{} names no place where HAProxy could ask: add spoe = \"127.0.0.1:4482\" to [decide]",
        config.display()
    ))
}

fn without_port(config: &Path) -> Failure {
    Failure::Words(format!(
        "{} has limiter asked over a Unix socket, and Traefik asks over TCP: let decide.listen be \
         127.0.0.1:4480",
        config.display()
    ))
}
