//! `simcast serve`: the broker.

#![allow(clippy::print_stdout, reason = "a command speaks to the person who started it")]

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::development::Development;
use crate::config::{Config, Listener, Protocol};
use crate::service::Service;

/// Run the broker
///
/// Without a configuration file it runs in development mode: a plain, anonymous listener on
/// 127.0.0.1:1883, mutual TLS on 127.0.0.1:8883 with certificates made for you in certs/dev/,
/// health, metrics and the API on http://127.0.0.1:9883, and what must outlive it in
/// simcast-data/. Where another broker has one of these
/// ports, stop that, or write a configuration with others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signals: SIGTERM and SIGINT let clients go and end with 0; SIGHUP reads the registry and the
password, ACL and token files again, but not the configuration file: for that, restart.

Examples:
  simcast serve                                  try it: development mode
  simcast serve -c /etc/simcast/simcast.toml     run it
  simcast serve -c simcast.toml --test-config    check everything that start-up would")]
pub struct Serve {
    /// The configuration file; see README.md for its sections
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Add a plain, anonymous listener on this port of 127.0.0.1
    #[arg(short, long, value_name = "PORT")]
    port: Vec<u16>,
    /// Check configuration, files, keys and addresses, say what is wrong and where, and end;
    /// addresses that a running broker has count as taken, its own too
    #[arg(long)]
    test_config: bool,
}

impl Serve {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// [`Failure`] with what is wrong and the exit code.
    pub async fn run(self) -> Result<(), Failure> {
        let development = match &self.config {
            Some(_) => None,
            None => Some(Development::prepare(Path::new("certs/dev")).map_err(Failure::failed)?),
        };
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::development(),
        };
        config.listeners.extend(self.port.iter().map(|port| loopback(*port)));
        config.validate()?;
        if self.test_config {
            return test(config).await;
        }
        crate::log::init(config.log).map_err(Failure::failed)?;
        let mut signals = Signals::listen()?;
        let service = Service::start(config.clone()).await?;
        for (listener, address) in config.listeners.iter().zip(service.addresses()) {
            tracing::info!("listening on {address} ({})", kind(listener));
        }
        if let Some(address) = service.admin_address() {
            let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
            tracing::info!("health, metrics and API on {scheme}://{address}");
        }
        if let Some(development) = development {
            println!("{}", development.banner());
        }
        signals.until_stop(&service).await;
        tracing::info!("stopping");
        if !service.stop().await {
            tracing::warn!("some clients did not go within the drain timeout");
        }
        Ok(())
    }
}

/// What is spoken on a listener, from the socket up.
fn kind(listener: &Listener) -> &'static str {
    match (listener.protocol, listener.tls.is_some()) {
        (Protocol::Mqtt, true) => "MQTT over TLS",
        (Protocol::Mqtt, false) => "plain MQTT",
        (Protocol::Websocket, true) => "WebSocket over TLS",
        (Protocol::Websocket, false) => "plain WebSocket",
    }
}

/// Everything that start-up would do, and nothing that clients would notice.
async fn test(mut config: Config) -> Result<(), Failure> {
    // To open a store is to go on with what is in it.
    config.store.path = None;
    let service = Service::start(config).await?;
    service.stop().await;
    println!("the configuration is in order");
    Ok(())
}

/// What an operator tells the broker. Listened for from before the start: a signal that nobody
/// listens for would end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::failed);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn until_stop(&mut self, service: &Service) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reload(service),
            }
        }
    }
}

fn reload(service: &Service) {
    reload_registry(service);
    reload_files("password", "users", service.reload_passwords());
    reload_files("ACL", "rights", service.reload_acls());
    reload_files("token", "tokens", service.reload_tokens());
}

fn reload_files(kind: &str, kept: &str, result: Result<usize, impl Display>) {
    match result {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "{kind} files read again"),
        Err(error) => {
            // One line of the log for each of the file.
            for line in error.to_string().lines() {
                tracing::error!("all {kept} stay as they were: {line}");
            }
        }
    }
}

fn reload_registry(service: &Service) {
    match service.reload_registry() {
        Ok(Some(report)) => {
            tracing::info!(
                accepted = report.accepted,
                removed = report.removed,
                "registry read again"
            );
        }
        Ok(None) => {}
        Err(error) => tracing::error!("the registry stays as it was: {error}"),
    }
}

fn loopback(port: u16) -> Listener {
    Listener::anonymous(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}
