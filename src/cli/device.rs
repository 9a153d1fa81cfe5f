//! `simcast device`: the reference device as a program.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::endpoint::{self, Endpoint, EndpointError};
use crate::client::device::{Addressed, Device as Client, DeviceOptions, Received};
use crate::ids::{Gid, Nid};

/// Lines that wait for the terminal.
const LINES_MAX: usize = 1024;

/// Be an IoT device with an eUICC: the reference device, for any broker
///
/// Subscribes to To_eUICC, answers what is addressed to it and prints one line per message:
/// A1 is answered with A2, B1 and C1 with B2 and C2 (a Bound Profile Package is checked to
/// the last byte first), E1 with E2. Ends with Ctrl-C, or after --seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples (certificates: see simcast certs --help):
  # wait for the server
  simcast device --ca pki/ca.pem --cert pki/$EID.pem --key pki/$EID.key --nid $EID --group 42

  # ask the server for a profile (D1), for itself or for its group
  simcast device … --nid $EID --trigger
  simcast device … --nid $EID --group 42 --trigger-group

  # ask another device of group 42 for its profile (E1)
  simcast device … --nid $EID --group 42 --exchange-with $OTHER_EID

  # count what arrives, as JSON lines
  simcast device … --nid $EID --json | jq -r .type | sort | uniq -c")]
pub struct Device {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Its EID: 32 digits with valid check digits
    #[arg(long, value_name = "EID")]
    nid: String,
    /// Devices are numbered by any number of up to 128 bits instead of EIDs
    #[arg(long)]
    decimal: bool,
    /// A group it belongs to, to tell what is foreign; may be repeated
    #[arg(long = "group", value_name = "GID", value_parser = endpoint::gid)]
    groups: Vec<Gid>,
    /// Refuse triggers: answer A1 with result code 1
    #[arg(long)]
    refuse: bool,
    /// Send a D1 for this device
    #[arg(long)]
    trigger: bool,
    /// Send a D1 for the first --group
    #[arg(long, requires = "groups")]
    trigger_group: bool,
    /// Ask this device for its profile (E1), within the first --group
    #[arg(long, value_name = "EID", requires = "groups")]
    exchange_with: Option<String>,
    /// Send the E1 only when the server triggers it
    #[arg(long, requires = "exchange_with")]
    after_trigger: bool,
    /// End after this time
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

impl Device {
    /// Runs until Ctrl-C, the time given, or the end of the connection.
    ///
    /// # Errors
    /// [`EndpointError`], worded for the terminal.
    pub async fn run(self) -> Result<(), EndpointError> {
        let nid = endpoint::nid(&self.nid, self.decimal)?;
        let (observer, lines) = mpsc::channel(LINES_MAX);
        let mut options = DeviceOptions::new(nid, &self.groups);
        options.qos = self.endpoint.qos();
        options.wire = self.endpoint.wire();
        options.agrees = !self.refuse;
        options.observer = Some(observer);
        let exchange = self.exchange()?;
        if self.after_trigger {
            options.exchange_on_trigger = exchange;
        }
        let device = Client::start(self.endpoint.link(&nid.to_string())?, options).await?;
        self.say("connected", &format!("device {nid}, subscribed to To_eUICC"));
        self.open(&device, exchange).await?;
        self.watch(&device, lines).await
    }

    fn exchange(&self) -> Result<Option<(Nid, Gid)>, EndpointError> {
        let Some(digits) = &self.exchange_with else { return Ok(None) };
        let old = endpoint::nid(digits, self.decimal)?;
        Ok(self.groups.first().map(|gid| (old, *gid)))
    }

    /// What the device does of its own accord.
    async fn open(
        &self,
        device: &Client,
        exchange: Option<(Nid, Gid)>,
    ) -> Result<(), EndpointError> {
        if self.trigger {
            device.request_trigger().await?;
            self.say("sent", "D1 for this device");
        }
        if let (true, Some(gid)) = (self.trigger_group, self.groups.first()) {
            device.request_group_trigger(*gid).await?;
            self.say("sent", &format!("D1 for group {gid}"));
        }
        if let (false, Some((old, gid))) = (self.after_trigger, exchange) {
            device.request_profile(old, gid).await?;
            self.say("sent", &format!("E1 to {old} in group {gid}"));
        }
        Ok(())
    }

    async fn watch(
        &self,
        device: &Client,
        mut lines: mpsc::Receiver<Received>,
    ) -> Result<(), EndpointError> {
        let printing = async {
            while let Some(received) = lines.recv().await {
                self.print(&received);
            }
        };
        let limit = Duration::from_secs(self.seconds.unwrap_or(u64::MAX));
        let ended = tokio::select! {
            // Printing ends with the connection.
            result = timeout(limit, printing) => match result {
                Ok(()) => Some(device.link().closed().await),
                Err(_) => None,
            },
            _ = tokio::signal::ctrl_c() => None,
        };
        device.stop().await;
        self.summary(device);
        ended.map_or(Ok(()), |reason| Err(EndpointError::Closed(reason)))
    }

    fn print(&self, received: &Received) {
        let whose = match received.addressed {
            Addressed::ToMe => "mine",
            Addressed::ToMyGroup => "group",
            Addressed::Foreign => "FOREIGN",
        };
        let kind = received.kind.text();
        if self.json {
            let line = json!({"event": "received", "type": kind, "nid": received.nid.to_string(),
                "gid": received.gid, "tid": received.tid, "body_bytes": received.body_bytes,
                "body_digest": format!("{:016x}", received.body_digest), "addressed": whose,
                "duplicate": received.duplicate, "pieces": received.pieces});
            return println!("{line}");
        }
        let double = if received.duplicate { "  DOUBLE" } else { "" };
        let pieces = match received.pieces {
            1 => String::new(),
            pieces => format!(" in {pieces} pieces"),
        };
        let (nid, gid, bytes) = (received.nid, received.gid, received.body_bytes);
        println!("received {kind}  nid {nid} gid {gid}  body {bytes} B{pieces}  {whose}{double}");
    }

    fn say(&self, event: &str, text: &str) {
        if self.json {
            println!("{}", json!({"event": event, "text": text}));
        } else {
            println!("{event}: {text}");
        }
    }

    fn summary(&self, device: &Client) {
        let report = device.report();
        if self.json {
            let line = json!({"event": "summary", "received": report.received,
                "answered": report.answered, "unanswered": report.unanswered,
                "foreign": report.foreign, "duplicates": report.duplicates,
                "unreadable": report.unreadable, "packages": report.packages});
            return println!("{line}");
        }
        println!(
            "{} received, {} answered, {} packages, {} foreign, {} doubles, {} unreadable",
            report.received,
            report.answered,
            report.packages,
            report.foreign,
            report.duplicates,
            report.unreadable
        );
    }
}
