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
//! | [`envelope`], `json`, `cbor` | the routing head of a message |
//! | [`parts`], [`chunk`], `package`, `outline` | what is made of an envelope for one receiver |
//! | [`stamp`], [`gathered`] | … and for the servers or a group |
//! | [`registry`], [`import`] | which devices and groups exist |
//! | [`policy`] | the rules: the table of ten messages |
//! | `flow`, `exchange` | which requests and exchanges are open |
//! | `mail`, [`mailbox`], `roll` | what waits for whom |
//! | [`inbox`] | what waits for the servers |
//! | [`settings`], [`refusal`] | permissions and limits; the names of refusals |
//! | [`control`] | all of it behind one door |

pub mod chunk;
pub mod control;
pub mod envelope;
pub mod gathered;
pub mod identity;
pub mod import;
pub mod inbox;
pub mod mailbox;
pub mod parts;
pub mod policy;
pub mod refusal;
pub mod registry;
pub mod settings;
pub mod stamp;

mod cbor;
mod exchange;
mod flow;
mod json;
mod mail;
mod outline;
mod package;
mod roll;
#[cfg(test)]
mod tests;

pub use control::{ControlStats, ControlUnit, Outcome, Put, Swept};
pub use envelope::{Head, Kind, Tid};
pub use identity::{CertificateFacts, Identity, IdentityError, NameFrom, Role, ServerRule};
pub use import::{ImportReport, LineError, LineReason};
pub use inbox::{Inbox, InboxLimits};
pub use mail::ExpiredLetters;
pub use mailbox::{Arrival, Letter, ProfileChange};
pub use policy::{Audience, Decision, Form, MessageId, Submission, Subscription};
pub use refusal::Refusal;
pub use registry::{Device, DeviceKey, Registry};
pub use settings::{
    ControlOptions, GroupSettings, Initiator, Mode, Peer, RspLimits, RspTopic, Settings,
    TopicNames, Ttl,
};
