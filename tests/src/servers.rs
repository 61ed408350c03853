//! Servers as they are on a host.

use crate::{
    clients,
    netns::Namespace,
    process::{Process, Scratch},
    wait,
};
use anyhow::{Context as _, Result, bail};
use std::{fs, net::SocketAddr, time::Duration};

/// An nginx (`nginx-light`), stopped when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    scratch: Scratch,
}

impl Nginx {
    /// Starts one in `namespace` and waits until it answers on `address`.
    /// `servers` is what goes into its `http` block, with a `listen` for
    /// `address`; see [`Nginx::plain`].
    pub fn start(namespace: &Namespace, address: SocketAddr, servers: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let configuration = scratch.path("nginx.conf");
        fs::write(&configuration, configure(&scratch, servers))?;
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&configuration);
        command.arg("-e").arg(scratch.path("error.log"));
        let mut nginx = Self {
            process: Process::start(&mut command, &scratch.path("output"))?,
            scratch,
        };
        wait::until("nginx", wait::SOON, || {
            if let Some(status) = nginx.process.ended()? {
                bail!("nginx ended ({status}): {}", nginx.log("error.log")?);
            }
            Ok(clients::connect(namespace, address, Duration::from_secs(1)).ok())
        })?;
        Ok(nginx)
    }

    /// Starts one that answers 200 and `ok` to everything.
    pub fn plain(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let server = format!("server {{ listen {address}; return 200 \"ok\\n\"; }}");
        Self::start(namespace, address, &server)
    }

    /// Its process, the only one.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it wrote to one of its logs: `access.log`, `error.log`.
    pub fn log(&self, name: &str) -> Result<String> {
        let path = self.scratch.path(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// An HAProxy, stopped when dropped.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    scratch: Scratch,
}

impl Haproxy {
    /// Starts one in `namespace` and waits until it answers on `address`. `sections` is what
    /// follows `global` and `defaults`, as `limiter integration` writes it; `spoe` is what its
    /// filter reads.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        sections: &str,
        spoe: &str,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let (configuration, filter) = (scratch.path("haproxy.cfg"), scratch.path("spoe.cfg"));
        let sections = sections
            .replace("/etc/haproxy/limiter.cfg", &filter.display().to_string())
            .replace("bind :80", &format!("bind {address}"));
        // One thread suffices, and its connections are then few.
        let text = format!(
            "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode http\n\
             \x20 timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{sections}\n"
        );
        fs::write(&configuration, text)?;
        fs::write(&filter, spoe)?;
        let mut command = namespace.command("haproxy");
        command.arg("-db").arg("-f").arg(&configuration);
        let mut haproxy = Self {
            process: Process::start(&mut command, &scratch.path("output"))?,
            scratch,
        };
        wait::until("HAProxy", wait::SOON, || {
            if let Some(status) = haproxy.process.ended()? {
                bail!("HAProxy ended ({status}): {}", haproxy.output()?);
            }
            Ok(clients::connect(namespace, address, Duration::from_secs(1)).ok())
        })?;
        Ok(haproxy)
    }

    /// Its process, the only one.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said.
    pub fn output(&self) -> Result<String> {
        let path = self.scratch.path("output");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// A Caddy, stopped when dropped.
#[derive(Debug)]
pub struct Caddy {
    process: Process,
    scratch: Scratch,
}

impl Caddy {
    /// Starts one in `namespace` and waits until it answers on `address`. `site` is what
    /// goes into the block of its one site, which listens on the port of `address`.
    pub fn start(namespace: &Namespace, address: SocketAddr, site: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let configuration = scratch.path("Caddyfile");
        let text = format!(
            "{{\nadmin off\nauto_https off\n}}\nhttp://:{} {{\n{site}\n}}\n",
            address.port()
        );
        fs::write(&configuration, text)?;
        let mut command = namespace.command("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]);
        command.arg(&configuration);
        // What it keeps goes away with this.
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env(name, scratch.path("."));
        }
        let mut caddy = Self {
            process: Process::start(&mut command, &scratch.path("output"))?,
            scratch,
        };
        wait::until("caddy", wait::SOON, || {
            if let Some(status) = caddy.process.ended()? {
                bail!("caddy ended ({status}): {}", caddy.log()?);
            }
            Ok(clients::connect(namespace, address, Duration::from_secs(1)).ok())
        })?;
        Ok(caddy)
    }

    /// What it printed.
    pub fn log(&self) -> Result<String> {
        let path = self.scratch.path("output");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// One process, so that killing it leaves none.
fn configure(scratch: &Scratch, servers: &str) -> String {
    let file = |name| scratch.path(name).display().to_string();
    format!(
        "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\n\
         access_log {};\nclient_body_temp_path {};\nproxy_temp_path {};\n\
         fastcgi_temp_path {};\nuwsgi_temp_path {};\nscgi_temp_path {};\n{servers}\n}}\n",
        file("pid"),
        file("access.log"),
        file("body"),
        file("proxy"),
        file("fastcgi"),
        file("uwsgi"),
        file("scgi"),
    )
}
