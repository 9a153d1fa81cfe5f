//! `simcast demo`: the whole main job on this machine, over real sockets and mutual TLS.
#![allow(clippy::print_stdout, reason = "the output of a command")]

mod attacks;
mod cast;
mod flows;
mod policies;
mod relay;
mod stage;

use clap::Args;
use serde_json::json;

use crate::clock::Clock;
use attacks::Attack;
use flows::{Flow, FlowError};
use stage::{Stage, StageError};

/// See every flow of the patent on this machine, with real TLS
///
/// Makes certificates, starts a broker, an SM-SR and devices in four groups, lets them provision
/// each other in every way there is, and then attacks. Some more devices come for what groups can
/// be set to: consent, requests as one, packages in parts and in pieces, proofs, a retry. Nothing
/// stays behind. Exit code 0 means that every device got exactly what was its own, and that no
/// attack got through.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simcast demo\n  simcast demo --devices 1000 --json")]
pub struct Demo {
    /// How many devices, in four groups
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(16..=10_000))]
    devices: u32,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
}

/// Why a demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The stage could not be set.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A party could not do its part.
    #[error("{flow}: {source}")]
    Flow {
        /// Which flow.
        flow: &'static str,
        /// What went wrong.
        source: FlowError,
    },
    /// A device missed, doubled or saw what is not its own, or an attack got through.
    #[error("faults: {0}; the first: {1}")]
    Faults(usize, String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Demo {
    /// Runs the demonstration.
    ///
    /// # Errors
    /// [`DemoError`], worded for the terminal.
    pub async fn run(self) -> Result<(), DemoError> {
        // Dropping the stage removes its keys: the process must not end before.
        tokio::select! {
            result = self.perform() => result,
            _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
        }
    }

    async fn perform(&self) -> Result<(), DemoError> {
        let clock = Clock::start();
        self.say(&format!("{} devices in 4 groups, mutual TLS, one SM-SR", self.devices));
        let stage = Stage::set(self.devices, !self.json, clock.now()).await?;
        let result = self.play(&stage, &clock).await;
        stage.tear_down().await;
        let (flows, attacks) = result?;
        if self.json {
            println!("{}", as_json(&flows, &attacks));
        } else {
            print_table(&flows, &attacks);
        }
        let flow_faults = flows.iter().flat_map(|flow| flow.faults.iter());
        let attack_faults = attacks.iter().filter_map(|attack| attack.fault.as_ref());
        let faults: Vec<&String> = flow_faults.chain(attack_faults).collect();
        match faults.first() {
            Some(first) => Err(DemoError::Faults(faults.len(), (*first).clone())),
            None => Ok(()),
        }
    }

    async fn play(
        &self,
        stage: &Stage,
        clock: &Clock,
    ) -> Result<(Vec<Flow>, Vec<Attack>), DemoError> {
        let mut flows = flows::play(stage, clock).await?;
        flows.extend(policies::play(stage, clock).await?);
        self.say("ten attacks, by members of the fleet");
        Ok((flows, attacks::play(stage).await?))
    }

    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }
}

fn print_table(flows: &[Flow], attacks: &[Attack]) {
    println!();
    println!(
        "{:<8} {:>9} {:>10} {:>9} {:>8} {:>8} {:>9} {:>15}",
        "flow", "requests", "delivered", "answered", "foreign", "doubled", "time", "by server"
    );
    for flow in flows {
        println!(
            "{:<8} {:>9} {:>10} {:>9} {:>8} {:>8} {:>6} ms {:>13} B",
            flow.name,
            flow.requests,
            format!("{}/{}", flow.delivered, flow.expected),
            flow.answered,
            flow.foreign,
            flow.doubled,
            flow.took_ms,
            flow.server_bytes
        );
    }
    println!();
    for flow in flows.iter().filter(|flow| !flow.found.says.is_empty()) {
        println!("{:<8} {}", flow.name, flow.found.says);
    }
    println!();
    println!("{:<44} {:<26} result", "attack", "refused as");
    for attack in attacks {
        let result = if attack.fault.is_none() { "nobody noticed" } else { "FAULT, see below" };
        println!("{:<44} {:<26} {result}", attack.name, attack.reason);
    }
    for fault in flows.iter().flat_map(|flow| &flow.faults) {
        println!("FAULT {fault}");
    }
    for fault in attacks.iter().filter_map(|attack| attack.fault.as_ref()) {
        println!("FAULT {fault}");
    }
    println!();
    if let Some((single, multi)) = saving(flows) {
        let times = single as f64 / multi.max(1) as f64;
        println!(
            "The server sent {single} B in single mode, {multi} B in multi mode: 1/{times:.0}"
        );
    }
}

/// Bytes that the server sent in A→B and in A→C, the same work in single and in multi mode.
fn saving(flows: &[Flow]) -> Option<(u64, u64)> {
    let bytes = |name| flows.iter().find(|flow| flow.name == name).map(|flow| flow.server_bytes);
    bytes("A→B").zip(bytes("A→C"))
}

fn facts(flow: &Flow) -> serde_json::Map<String, serde_json::Value> {
    flow.found.facts.iter().map(|(name, number)| ((*name).into(), (*number).into())).collect()
}

fn as_json(flows: &[Flow], attacks: &[Attack]) -> serde_json::Value {
    let flows: Vec<_> = flows
        .iter()
        .map(|flow| {
            json!({"flow": flow.name, "requests": flow.requests, "expected": flow.expected,
                "delivered": flow.delivered, "answered": flow.answered, "foreign": flow.foreign,
                "doubled": flow.doubled, "took_ms": flow.took_ms,
                "server_bytes": flow.server_bytes, "says": flow.found.says,
                "facts": facts(flow), "faults": flow.faults})
        })
        .collect();
    let attacks: Vec<_> = attacks
        .iter()
        .map(
            |attack| json!({"attack": attack.name, "reason": attack.reason, "fault": attack.fault}),
        )
        .collect();
    json!({"flows": flows, "attacks": attacks})
}
