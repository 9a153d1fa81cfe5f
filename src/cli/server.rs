//! `simcast server`: the reference SM-SR as a program.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::mpsc;

use super::endpoint::{self, Endpoint, EndpointError};
use crate::client::TO_SM_SR;
use crate::client::payload::{BPP_BYTES, bound_profile_package};
use crate::client::server::{Heard, Server as Client, ServerOptions};
use crate::ids::{Gid, GidError};

/// Lines that wait for the terminal.
const LINES_MAX: usize = 4096;

/// Be an SM-SR: trigger and provision devices through any broker
///
/// Subscribes to To_SM-SR and prints one line per message. Exit code 0 means that every device
/// that was asked has answered with success.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples (certificates: see simcast certs --help; … stands for
--ca pki/ca.pem --cert pki/sm-sr.example.pem --key pki/sm-sr.example.key):
  simcast server … listen                              # serve what devices ask for
  simcast server … trigger   --nid $EID                # A1, wait for A2
  simcast server … provision --nid $EID                # B1 with a made-up package, wait for B2
  simcast server … provision --group 42 --expect 25    # C1, wait for 25 C2
  simcast server … campaign  --group 42 --expect 25    # A1, then C1 when all have agreed")]
pub struct Server {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Share the work with other servers: subscribe as $share/<NAME>/To_SM-SR
    #[arg(long, value_name = "NAME")]
    share: Option<String>,
    /// How long to wait for answers, in seconds
    #[arg(long, default_value_t = 30, value_name = "N")]
    patience: u64,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve the requests of devices (D1) until Ctrl-C
    ///
    /// A request of one device is served at once. For a group it needs to know how many members
    /// will agree: say it with --members, or the profile goes out after --patience seconds.
    #[command(after_help = "Example:\n  simcast server … listen --members 42=25")]
    Listen(Listen),
    /// Announce provisioning (A1) and wait for the agreement (A2)
    #[command(after_help = "Example:\n  simcast server … trigger --group 42 --expect 25")]
    Trigger(Target),
    /// Send a profile (B1 or C1) and wait for the results (B2 or C2)
    #[command(after_help = "Example:\n  simcast server … provision --nid $EID --file profile.bpp")]
    Provision(Provision),
    /// Trigger, and send the profile when all have agreed
    #[command(after_help = "Example:\n  simcast server … campaign --group 42 --expect 25")]
    Campaign(Provision),
}

#[derive(Debug, Args)]
struct Listen {
    /// How many members a group has; may be given again
    #[arg(long, value_name = "GID=N", value_parser = group_size)]
    members: Vec<(Gid, usize)>,
}

fn group_size(text: &str) -> Result<(Gid, usize), String> {
    let (gid, size) = text.split_once('=').ok_or("write it like 42=25")?;
    let size = size.parse().map_err(|_| format!("{size:?} is no number of members"))?;
    Ok((gid.parse().map_err(|error: GidError| error.to_string())?, size))
}

/// One device or one group.
#[derive(Debug, Args)]
struct Target {
    /// A device, by its EID
    #[arg(long, value_name = "EID", required_unless_present = "group", conflicts_with = "group")]
    nid: Option<String>,
    /// The number is any number of up to 128 bits instead of an EID
    #[arg(long, requires = "nid")]
    decimal: bool,
    /// A group
    #[arg(long, value_name = "GID", value_parser = endpoint::gid)]
    group: Option<Gid>,
    /// How many members the group has: so many answers are success
    #[arg(long, value_name = "N", default_value_t = 1, requires = "group")]
    expect: usize,
}

#[derive(Debug, Args)]
struct Provision {
    #[command(flatten)]
    target: Target,
    /// The body: any file [default: a made-up Bound Profile Package]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Size of the made-up package, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = BPP_BYTES, conflicts_with = "file",
        value_parser = package_bytes)]
    size: usize,
}

fn package_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().map_err(|_| "not a number".to_owned())?;
    bound_profile_package(0, bytes).map(|_| bytes).map_err(|error| error.to_string())
}

impl Server {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`EndpointError`], worded for the terminal.
    pub async fn run(self) -> Result<(), EndpointError> {
        let (observer, mut lines) = mpsc::channel(LINES_MAX);
        let options = ServerOptions {
            filter: match &self.share {
                Some(name) => format!("$share/{name}/{TO_SM_SR}"),
                None => TO_SM_SR.into(),
            },
            qos: self.endpoint.qos(),
            wire: self.endpoint.wire(),
            patience: Duration::from_secs(self.patience),
            serves_requests: matches!(self.action, Action::Listen(_)),
            group_sizes: match &self.action {
                Action::Listen(listen) => listen.members.iter().copied().collect(),
                Action::Trigger(_) | Action::Provision(_) | Action::Campaign(_) => HashMap::new(),
            },
            observer: Some(observer),
        };
        let server = Client::start(self.endpoint.link(self.action.client_id())?, options).await?;
        self.say("connected", "SM-SR, subscribed to To_SM-SR");
        let json = self.json;
        let work = async {
            let result = self.act(&server).await;
            server.stop().await;
            result
        };
        let printing = async {
            while let Some(heard) = lines.recv().await {
                print(&heard, json);
            }
        };
        // Printing ends when the connection has, and so prints what came last, too.
        let (result, ()) = tokio::join!(work, printing);
        self.say("sent", &format!("{} bytes of MQTT", server.traffic().sent_bytes()));
        result
    }

    async fn act(&self, server: &Client) -> Result<(), EndpointError> {
        match &self.action {
            Action::Listen(_) => listen(server).await,
            Action::Trigger(target) => target.trigger(server).await,
            Action::Provision(provision) => provision.send(server).await,
            Action::Campaign(campaign) => {
                campaign.target.trigger(server).await?;
                self.say("agreed", "now the profile");
                campaign.send(server).await
            }
        }
    }

    fn say(&self, event: &str, text: &str) {
        if self.json {
            println!("{}", json!({"event": event, "text": text}));
        } else {
            println!("{event}: {text}");
        }
    }
}

async fn listen(server: &Client) -> Result<(), EndpointError> {
    tokio::select! {
        reason = server.link().closed() => Err(EndpointError::Closed(reason)),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

impl Action {
    /// Each its own, so that one that listens and one that triggers do not take each other's
    /// session.
    fn client_id(&self) -> &'static str {
        match self {
            Self::Listen(_) => "sm-sr-listen",
            Self::Trigger(_) => "sm-sr-trigger",
            Self::Provision(_) => "sm-sr-provision",
            Self::Campaign(_) => "sm-sr-campaign",
        }
    }
}

impl Target {
    async fn trigger(&self, server: &Client) -> Result<(), EndpointError> {
        if let Some(gid) = self.group {
            return self.judge(&server.trigger_group(gid, self.expect).await?);
        }
        let nid = endpoint::nid(self.nid.as_deref().unwrap_or_default(), self.decimal)?;
        server.trigger_device(nid).await?;
        Ok(())
    }

    fn judge(&self, answers: &[Heard]) -> Result<(), EndpointError> {
        let done = answers.iter().filter(|answer| answer.rc == 0).count();
        if done < self.expect {
            return Err(EndpointError::Incomplete { done, wanted: self.expect });
        }
        Ok(())
    }
}

impl Provision {
    async fn send(&self, server: &Client) -> Result<(), EndpointError> {
        let body = self.body()?;
        if let Some(gid) = self.target.group {
            let answers = server.provision_group(gid, body, self.target.expect).await?;
            return self.target.judge(&answers);
        }
        let digits = self.target.nid.as_deref().unwrap_or_default();
        server.provision_device(endpoint::nid(digits, self.target.decimal)?, body).await?;
        Ok(())
    }

    fn body(&self) -> Result<Vec<u8>, EndpointError> {
        let Some(path) = &self.file else {
            return Ok(bound_profile_package(1, self.size).unwrap_or_default());
        };
        std::fs::read(path)
            .map_err(|source| EndpointError::Unreadable { path: path.clone(), source })
    }
}

fn print(heard: &Heard, as_json: bool) {
    let kind = heard.kind.text();
    let sender = heard.sender.map_or_else(|| "?".to_owned(), |nid| nid.to_string());
    if as_json {
        let line = json!({"event": "received", "type": kind, "nid": heard.nid.to_string(),
            "gid": heard.gid, "sender": sender, "tid": heard.tid, "rc": heard.rc,
            "body_bytes": heard.body_bytes, "profile_change": heard.profile_change});
        return println!("{line}");
    }
    let (gid, rc, bytes) = (heard.gid, heard.rc, heard.body_bytes);
    let moved = if heard.profile_change { "  profile moved" } else { "" };
    println!("received {kind}  from {sender} gid {gid}  rc {rc}  body {bytes} B{moved}");
}
