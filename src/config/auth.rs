//! `[auth]` and `[listener.auth]`: user names, passwords and rights.

use std::path::PathBuf;

use serde::Deserialize;

/// Who clients may be, and what they may do with ordinary topics. The two RSP topics are the
/// control unit's alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Users and their passwords, in mosquitto's format.
    pub password_file: Option<PathBuf>,
    /// Rights, in mosquitto's format. Without it everything is permitted.
    pub acl_file: Option<PathBuf>,
    /// What becomes of a subscription that is wider than the client's rights.
    pub subscribe: WiderSubscription,
    /// Failed logins a minute under one user name; from one address ten times as many, for whole
    /// fleets share one.
    pub max_failures: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            password_file: None,
            acl_file: None,
            subscribe: WiderSubscription::Filter,
            max_failures: 10,
        }
    }
}

/// What becomes of a subscription that is wider than the client's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WiderSubscription {
    /// Granted where a part of it may be read; each message is looked at.
    Filter,
    /// Granted even where nothing of it may be read, as mosquitto does.
    Grant,
    /// Refused.
    Deny,
}
