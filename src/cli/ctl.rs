//! `simcast ctl`: the operator's command line over the admin API.
//!
//! To add a command: its file in `ctl/`, its variant of [`Action`], its arm of [`Ctl::act`].

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use crate::client::http::Http;
use crate::client::tls::TlsIdentity;
use crate::config::Token;

mod api;
mod audit;
mod campaigns;
mod devices;
mod events;
mod exchanges;
mod explain;
mod groups;
mod output;
mod sessions;
mod settings;

use api::{Api, CtlError, Means};
use output::{Column, Output, Table};

/// See and change a running broker
///
/// Speaks to the admin address of a broker, by default to that of the broker on this machine. Where
/// the broker wants a token, --token-file names the file with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simcast ctl devices list --gid 42 --online       who of group 42 is there
  simcast ctl devices put $EID --gid 42 --label model=tracker
  simcast ctl devices import fleet.csv             add a registry file to what is known
  simcast ctl settings set ttl.msg=3d mode=multi --group 42
  simcast ctl campaigns list --watch               how far those are that run
  simcast ctl campaigns devices 17 --state delivered    who has it and does not answer
  simcast ctl campaigns retry 17                   send it to those again
  simcast ctl sessions list --json | jq -r .client_id
  simcast ctl sessions kick tracker-7              end its connection
  simcast ctl events --types refused               watch what is refused
  simcast ctl audit --since 1000                   who has changed what since then
  simcast ctl explain spoofed_nid                  what a refusal means
  simcast ctl --url https://broker:9883 --ca ca.pem --token-file token devices list

Exit codes: 0 done, 1 failed or refused, 2 wrong usage")]
pub struct Ctl {
    /// The admin address of the broker
    #[arg(long, env = "SIMCAST_URL", default_value = "http://127.0.0.1:9883", global = true)]
    url: String,
    /// File with the token that the broker wants
    #[arg(long, env = "SIMCAST_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Trust this CA (PEM); https needs it
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", global = true)]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// JSON as the API gives it, one line for each item
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Devices(devices::Devices),
    Groups(groups::Groups),
    Settings(settings::Settings),
    Campaigns(campaigns::Campaigns),
    Exchanges(exchanges::Exchanges),
    Sessions(sessions::Sessions),
    Events(events::Events),
    Audit(audit::Audit),
    Explain(explain::Explain),
}

/// Which items of a list
#[derive(Debug, Args)]
struct Listing {
    /// Only those that are connected; or those that are not, with --online=false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    online: Option<bool>,
    /// At most so many
    #[arg(long)]
    limit: Option<usize>,
}

impl Listing {
    /// For a query.
    fn online(&self) -> (&'static str, Option<String>) {
        ("online", self.online.map(|online| online.to_string()))
    }

    async fn print(
        &self,
        api: &Api,
        output: &mut Output,
        path: &str,
        columns: &'static [Column],
    ) -> Result<(), CtlError> {
        let mut table = Table::new(columns);
        api.pages(path, self.limit, |items| output.rows(&mut table, items)).await
    }
}

impl Ctl {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`] with what is wrong and the exit code.
    pub async fn run(self) -> Result<(), Failure> {
        let api = Api::new(self.http()?, self.means());
        let mut output = Output::new(self.json);
        match self.act(&api, &mut output).await {
            // Whoever reads has seen enough.
            Err(CtlError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(())
            }
            done => done.map_err(Failure::failed),
        }
    }

    async fn act(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        match self.action {
            Action::Devices(command) => command.run(api, output).await,
            Action::Groups(command) => command.run(api, output).await,
            Action::Settings(command) => command.run(api, output).await,
            Action::Campaigns(command) => command.run(api, output).await,
            Action::Exchanges(command) => command.run(api, output).await,
            Action::Sessions(command) => command.run(api, output).await,
            Action::Events(command) => command.run(api, output).await,
            Action::Audit(command) => command.run(api, output).await,
            Action::Explain(command) => command.run(api, output).await,
        }
    }

    fn means(&self) -> Means {
        let scheme = self.url.split("://").next().unwrap_or_default();
        Means {
            over_tls: scheme.eq_ignore_ascii_case("https"),
            certificate: self.cert.is_some(),
            token: self.token_file.is_some(),
        }
    }

    fn http(&self) -> Result<Http, Failure> {
        let tls = match (&self.ca, &self.cert, &self.key) {
            (None, None, None) => None,
            (Some(ca), Some(cert), Some(key)) => Some((ca, Some((&**cert, &**key)))),
            (Some(ca), None, None) => Some((ca, None)),
            _other => {
                let message = "--cert and --key come together, and with --ca";
                return Err(Failure::Usage(message.to_owned()));
            }
        };
        let tls = tls.map(|(ca, own)| TlsIdentity::from_files(ca, own)).transpose();
        let tls = tls.map_err(Failure::failed)?;
        let token = self.token_file.as_ref().map(|path| {
            let token = Token::read(path);
            token.map_err(|error| Failure::failed(format!("{} {error}", path.display())))
        });
        let token = token.transpose()?;
        let token = token.as_ref().map(Token::secret);
        Http::new(&self.url, tls.as_ref(), token).map_err(Failure::failed)
    }
}
