//! `notify`.

use super::args::{Json, NotifyVerb};
use super::output::Output;
use super::{Client, Failure};
use crate::control::api::NotifyTested;
use std::time::Duration;

/// How much longer than others an answer may take: a mail server has a time for each step.
const SERVERS: Duration = Duration::from_secs(60);

pub(super) fn notify(
    client: &Client,
    verb: NotifyVerb,
    output: &mut Output,
) -> Result<(), Failure> {
    let NotifyVerb::Test(Json { json }) = verb;
    let client = client.patient(SERVERS);
    let tested: NotifyTested = client.post("/v1/notify/test", &())?;
    if json {
        output.json(&tested)?;
    } else {
        for it in &tested.tried {
            let how = if it.sent { "sent" } else { "not sent" };
            output.line(&format!(
                "{} to {}: {how}: {}",
                it.channel, it.to, it.answer
            ))?;
        }
    }
    match tested.tried.iter().all(|it| it.sent) {
        true => Ok(()),
        false => Err(Failure::Words(
            "not everybody was told; mend [notify], or the server that it names".to_owned(),
        )),
    }
}
