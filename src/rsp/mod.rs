//! The provisioning control unit: who may send what to whom on the two provisioning topics, and
//! the mail of every device.
//!
//! Pure: no IO, no lock, no clock; time is an argument. The contract with whoever drives it:
//!
//! 1. A publish on one of the two topics: [`envelope::read`] its head, ask
//!    [`ControlUnit::decide`], and [`ControlUnit::commit`] before anything else
//!    ([`ControlUnit::publish`] does both). A refusal changes nothing and reaches nobody.
//! 2. [`Outcome::wake`] names the readers that have mail; each *pulls* when its window has room.
//!    [`Outcome::to_servers`] hands the message to the subscribers of `To_SM-SR`.
//! 3. A device's subscription of `To_eUICC` is an [`attach`](ControlUnit::attach) of its session,
//!    the end of subscription or connection a [`detach`](ControlUnit::detach). What was pulled by
//!    then and had no [`acknowledge`](ControlUnit::acknowledge) is pulled again, by whoever reads
//!    next.
//! 4. [`ControlUnit::sweep`] now and then puts away what has expired. Expired mail is never pulled
//!    and an expired request never answered, swept or not; but only a sweep makes room.
//!
//! | module | what it knows |
//! |---|---|
//! | [`identity`] | who is at the other end |
//! | [`envelope`], `json`, `cbor`, `outline` | the routing head of a message |
//! | [`parts`], [`chunk`], [`stamp`], [`gathered`] | envelopes made from others |
//! | [`registry`], `nids`, [`import`], `intake` | which devices and groups exist |
//! | [`policy`], `rules` | the table of ten messages, and the rules of each |
//! | `ledger`, `request`, `track`, [`campaign`] | A1, B1 and C1: how far each device is with each |
//! | `ascending`, `filed` | where they lie |
//! | `untold` | profile changes that the servers had no room to be told of |
//! | `wishes`, `gathering` | D1s, and those that wait for others of their group |
//! | `merging` | B1s that wait for their equals |
//! | [`exchange`] | E1 and E2, and what follows |
//! | [`proof`], `spent` | whether an old eUICC has deleted the profile, and said so once |
//! | `rate` | how often devices may start something |
//! | `mail`, [`mailbox`], `group_log`, `roll` | what waits for whom |
//! | `shape` | what of it each gets |
//! | [`inbox`] | what waits for the servers |
//! | [`scope`] | which server is responsible for which groups |
//! | [`settings`], [`options`], [`refusal`] | permissions; bounds; the names of refusals |
//! | [`control`], `operate` | all of it behind one door: for messages, and for operators |
//! | [`event`] | what is told to who watches |
//! | [`rows`] | what is written down of all this, to be there after a restart |

pub mod campaign;
pub mod chunk;
pub mod control;
pub mod envelope;
pub mod event;
pub mod exchange;
pub mod gathered;
pub mod identity;
pub mod import;
pub mod inbox;
pub mod mailbox;
pub mod options;
pub mod parts;
pub mod policy;
pub mod proof;
pub mod refusal;
pub mod registry;
pub mod rows;
pub mod scope;
pub mod settings;
pub mod stamp;

mod ascending;
mod cbor;
mod filed;
mod gathering;
mod group_log;
mod intake;
mod json;
mod ledger;
mod mail;
mod merging;
mod nids;
mod operate;
mod outline;
mod package;
mod rate;
mod request;
mod roll;
mod rules;
mod shape;
mod spent;
#[cfg(test)]
mod tests;
mod track;
mod untold;
mod wishes;

pub use campaign::{Campaign, CampaignId, CampaignState, Target, WaveView};
pub use control::{ControlRows, ControlStats, ControlUnit, Discarded, Outcome, Put, Swept};
pub use envelope::{Head, Kind, Tid, Wave};
pub use event::{CampaignStep, Event, Reason};
pub use exchange::{Exchange, ExchangeState, Pair};
pub use identity::{CertificateFacts, Identity, IdentityError, NameFrom, Role, ServerRule};
pub use import::{ImportReport, LineError, LineReason};
pub use inbox::{Addressee, Handout, Inbox, InboxLimits, InboxRows, InboxSwept, Posted};
pub use intake::Intake;
pub use ledger::RetryError;
pub use mail::ExpiredLetters;
pub use mailbox::{Acknowledged, Arrival, Letter, ProfileChange, Reader};
pub use operate::{CampaignDevice, ForServers, Servers};
pub use options::{ControlOptions, RspLimits, RspTopic, TopicNames};
pub use policy::{Audience, Decision, Form, MessageId, Submission, Subscription};
pub use refusal::Refusal;
pub use registry::{Device, DeviceKey, Registry};
pub use scope::{Scope, ServerScopes};
pub use settings::{
    Auto, Flow, GroupSettings, GroupTriggerRate, GroupTtl, Initiator, Mode, Peer, PeerProof, Rate,
    Settings, SettingsTable, TriggerRate, Ttl,
};
pub use track::{DeviceState, Tally};
