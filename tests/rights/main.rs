//! Rights of clients on ordinary topics, over real sockets and in both versions.
//!
//! Users are common names of certificates; whoever comes to the plain port is anonymous.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod files;
mod names;
mod programs;
mod publishing;
mod retained;
mod subscribing;
mod wills;

use std::path::PathBuf;

use common::{Client, Denied, Dial, Rig, nid};
use simcast::config::Config;
use simcast::mqtt::{QoS, ReasonCode, Version};
use simcast::pki::LeafTemplate;
use simcast::service::FileError;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

const ONE: QoS = QoS::AtLeastOnce;

/// A broker with an ACL file.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
}

impl Stage {
    /// With this ACL for all listeners.
    pub(crate) async fn start(acl: &str) -> Self {
        Self::with(acl, |_config| {}).await
    }

    /// With this ACL, and a changed configuration.
    pub(crate) async fn with(acl: &str, change: impl FnOnce(&mut Config)) -> Self {
        let rig = Rig::with(|config| {
            let path = config.rsp.registry.as_ref().unwrap().with_file_name("acl");
            std::fs::write(&path, acl).unwrap();
            config.auth.acl_file = Some(path);
            change(config);
        });
        Self { rig: rig.await }
    }

    pub(crate) fn acl_file(&self) -> PathBuf {
        self.rig.dir.path().join("acl")
    }

    /// Another ACL takes the place of the first.
    pub(crate) fn change(&self, acl: &str) {
        self.try_change(acl).unwrap();
    }

    pub(crate) fn try_change(&self, acl: &str) -> Result<usize, FileError> {
        std::fs::write(self.acl_file(), acl).unwrap();
        self.rig.service.reload_acls()
    }

    /// The user of this name.
    pub(crate) async fn user(&self, name: &str, dial: Dial) -> Client {
        self.try_user(name, dial).await.expect("a connection")
    }

    pub(crate) async fn try_user(&self, name: &str, dial: Dial) -> Result<Client, Denied> {
        let leaf = LeafTemplate {
            common_name: name.to_owned(),
            serial_number: None,
            uris: Vec::new(),
            ..LeafTemplate::device(nid(1))
        };
        self.rig.with_leaf(&leaf, dial).await
    }

    /// How often the ACL denied this.
    pub(crate) async fn denied(&self, action: &str) -> u64 {
        self.rig.counter(&format!("simcast_acl_denied_total{{action=\"{action}\"}}")).await
    }
}

/// What a denied PUBLISH is answered: version 3.1.1 has no word for it.
pub(crate) fn denial(version: Version) -> ReasonCode {
    match version {
        Version::V31 | Version::V311 => ReasonCode::Success,
        Version::V5 => ReasonCode::NotAuthorized,
    }
}

/// What a denied filter is answered.
pub(crate) fn filter_denial(version: Version) -> ReasonCode {
    match version {
        Version::V31 | Version::V311 => ReasonCode::UnspecifiedError,
        Version::V5 => ReasonCode::NotAuthorized,
    }
}
