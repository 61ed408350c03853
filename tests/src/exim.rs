//! A mail server as Debian has it (`exim4-daemon-light`): it takes mail for `example.com` from
//! whoever has logged in over TLS, and keeps it.

use crate::{
    clients,
    netns::Namespace,
    process::{Process, Scratch},
    wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Who may log in, and with what.
pub const USER: &str = "limiter";
/// See [`USER`].
pub const PASSWORD: &str = "correct horse";

/// A certificate for `localhost`, and the one that has signed it.
#[derive(Debug)]
pub struct Certificates {
    scratch: Scratch,
}

impl Certificates {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let script = "set -e; new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'\n\
            openssl req -x509 $new -days 2 -subj /CN=test -keyout ca.key -out ca.pem\n\
            openssl req $new -subj /CN=localhost -keyout key.pem -out request.pem\n\
            echo subjectAltName=DNS:localhost > names\n\
            openssl x509 -req -days 2 -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial \
            -extfile names -out cert.pem\n\
            chmod 644 key.pem\n";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(scratch.path("."));
        let made = command.output().context("running openssl")?;
        let errors = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "openssl: {errors}");
        Ok(Self { scratch })
    }

    /// What is to be trusted.
    pub fn root(&self) -> PathBuf {
        self.scratch.path("ca.pem")
    }
}

/// A running server, stopped when dropped. What it has taken goes with it.
#[derive(Debug)]
pub struct Exim {
    process: Process,
    scratch: Scratch,
}

impl Exim {
    /// Starts one in `namespace` on this port of 127.0.0.1 and waits until it answers.
    pub fn start(namespace: &Namespace, port: u16, certificates: &Certificates) -> Result<Self> {
        let scratch = Scratch::new()?;
        let spool = scratch.path("spool");
        fs::create_dir(&spool).context("making a directory")?;
        let owner = Command::new("chown")
            .arg("Debian-exim")
            .arg(&spool)
            .status();
        ensure!(
            owner.context("running chown")?.success(),
            "no user Debian-exim"
        );
        let file = scratch.path("exim.conf");
        fs::write(&file, configuration(&scratch, port, &certificates.scratch))?;
        let mut command = namespace.command("exim4");
        command.arg("-bdf").arg("-C").arg(&file);
        let mut exim = Self {
            process: Process::start(&mut command, &scratch.path("output"))?,
            scratch,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until("exim", wait::SOON, || {
            if let Some(status) = exim.process.ended()? {
                let output = fs::read_to_string(exim.scratch.path("output"))?;
                bail!("exim ended ({status}): {output}");
            }
            Ok(clients::connect(namespace, address, Duration::from_secs(1)).ok())
        })?;
        Ok(exim)
    }

    /// What it has taken, each mail as it keeps it: envelope, headers and text.
    pub fn mails(&self) -> Result<Vec<String>> {
        let mut mails = Vec::new();
        let directory = self.scratch.path("spool").join("input");
        let Ok(files) = fs::read_dir(directory) else {
            return Ok(mails);
        };
        for file in files {
            let path = file.context("looking for mail")?.path();
            let name = path.to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix("-H") {
                let text = |path: &Path| fs::read(path).context("reading a mail");
                let [head, body] = [text(&path)?, text(Path::new(&format!("{id}-D")))?];
                mails.push(String::from_utf8_lossy(&[head, body].concat()).into_owned());
            }
        }
        Ok(mails)
    }
}

fn configuration(scratch: &Scratch, port: u16, certificates: &Scratch) -> String {
    let of = |scratch: &Scratch, name: &str| scratch.path(name).display().to_string();
    format!(
        "primary_hostname = mail.example.com\n\
         spool_directory = {}\nlog_file_path = {}\npid_file_path = {}\n\
         local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\nqueue_only = true\n\
         keep_environment =\nhost_lookup =\nrfc1413_query_timeout = 0s\n\
         tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}\n\
         auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}\n\
         acl_smtp_rcpt = rcpt\n\
         begin acl\nrcpt:\n\
         \x20 deny !authenticated = *\n    message = log in first\n\
         \x20 accept domains = example.com\n\
         \x20 deny message = no such receiver\n\
         begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n\
         \x20 server_prompts = :\n\
         \x20 server_condition = ${{if and{{{{eq{{$auth2}}{{{USER}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}\n\
         \x20 server_set_id = $auth2\n",
        of(scratch, "spool"),
        of(scratch, "spool/%slog"),
        of(scratch, "spool/exim.pid"),
        of(certificates, "cert.pem"),
        of(certificates, "key.pem"),
    )
}
