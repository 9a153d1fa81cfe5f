//! What a listener asks of its clients once they are connected: how high their QoS may be, and what
//! stands before their topics.
//!
//! All of it happens here, between a session's actions and the broker: the broker knows whole
//! topics alone. Not mounted are the two RSP topics, whose messages are addressed, and topics that
//! begin with `$`: nobody publishes to those, and whoever reads `$SYS` means the broker's. The
//! response topic of a message stays as it is, as in mosquitto: it is data of the clients.

use std::sync::Arc;

use bytestring::ByteString;

use super::end::End;
use crate::config::{DropOrDisconnect, Listener, Mqtt};
use crate::mqtt::{Publish, QoS, Subscribe, Unsubscribe, Version, topic};
use crate::rsp::TopicNames;
use crate::session::{Opening, Violation};

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Rules {
    /// What is spoken here.
    pub(super) versions: Vec<Version>,
    /// Highest QoS, both ways.
    pub(super) qos_max: QoS,
    qos_exceeded: DropOrDisconnect,
    /// Ends with `/`.
    mount_point: Option<Arc<str>>,
    topics: TopicNames,
}

/// Whether a message of a client is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Acknowledged and dropped: this version has no way to tell.
    Drop,
}

impl Rules {
    pub(super) fn new(listener: &Listener, mqtt: &Mqtt, topics: &TopicNames) -> Self {
        let mount_point = Some(&*listener.mount_point).filter(|text| !text.is_empty());
        Self {
            versions: listener.versions.clone(),
            qos_max: listener.max_qos,
            qos_exceeded: mqtt.qos_exceeded,
            mount_point: mount_point.map(Arc::from),
            topics: topics.clone(),
        }
    }

    /// Judges a PUBLISH and mounts its topic.
    ///
    /// # Errors
    /// The connection is to be closed `[MQTT-3.2.2-11]`.
    pub(super) fn publish(&self, publish: &mut Publish, version: Version) -> Result<Verdict, End> {
        if publish.qos > self.qos_max {
            let tolerated = self.qos_exceeded == DropOrDisconnect::Drop;
            if version < Version::V5 && tolerated {
                return Ok(Verdict::Drop);
            }
            return Err(Violation::QosExceeded.into());
        }
        self.mount(&mut publish.topic);
        Ok(Verdict::Pass)
    }

    /// Judges a CONNECT; mounts the topic of its Will.
    ///
    /// # Errors
    /// The QoS of its Will is too high `[MQTT-3.2.2-12]`.
    pub(super) fn open(&self, opening: &mut Opening) -> Result<(), Violation> {
        opening.qos_max = self.qos_max;
        opening.mount_point.clone_from(&self.mount_point);
        let Some(will) = &mut opening.will else { return Ok(()) };
        if will.qos > self.qos_max {
            return Err(Violation::QosExceeded);
        }
        self.mount(&mut will.topic);
        Ok(())
    }

    /// Mounts the filters. Any QoS may be asked for, and a lower one is granted `[MQTT-3.2.2-10]`.
    pub(super) fn subscribe(&self, subscribe: &mut Subscribe) {
        for filter in &mut subscribe.filters {
            filter.options.qos = filter.options.qos.min(self.qos_max);
            self.mount(&mut filter.filter);
        }
    }

    /// Mounts the filters.
    pub(super) fn unsubscribe(&self, unsubscribe: &mut Unsubscribe) {
        unsubscribe.filters.iter_mut().for_each(|filter| self.mount(filter));
    }

    /// The topic as a client here knows it. `None`: it has no name here, like the mount point
    /// itself, which `#` matches as its own parent (4.7.1.2); or like `site/To_eUICC`, which is an
    /// ordinary topic and would be taken for what the control unit sends.
    pub(super) fn unmounted<'a>(&self, topic: &'a str) -> Option<&'a str> {
        match &self.mount_point {
            Some(mount_point) if !self.stays(topic) => {
                let rest = topic.strip_prefix(&**mount_point);
                rest.filter(|rest| !rest.is_empty() && !self.stays(rest))
            }
            Some(_) | None => Some(topic),
        }
    }

    /// Puts the mount point before a topic, or before the filter within `$share/<group>/`.
    fn mount(&self, filter: &mut ByteString) {
        let Some(mount_point) = &self.mount_point else { return };
        let (group, inner) = topic::split_shared(filter);
        if self.stays(inner) {
            return;
        }
        let share = &filter[..filter.len() - inner.len()];
        debug_assert_eq!(group.is_none(), share.is_empty());
        *filter = format!("{share}{mount_point}{inner}").into();
    }

    fn stays(&self, topic: &str) -> bool {
        topic.starts_with('$') || self.topics.topic(topic).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    fn rules(mount_point: &str) -> Rules {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener { mount_point: mount_point.to_owned(), ..Listener::anonymous(any) };
        Rules::new(&listener, &Mqtt::default(), &TopicNames::default())
    }

    #[test]
    fn topics_are_mounted_and_taken_down_again() {
        let rules = rules("site/");
        for (topic, mounted) in [
            ("a", "site/a"),
            ("/a", "site//a"),
            ("#", "site/#"),
            ("+/b", "site/+/b"),
            ("site/a", "site/site/a"),
            ("$share/g/a/#", "$share/g/site/a/#"),
            ("$share/g/#", "$share/g/site/#"),
        ] {
            let mut name = ByteString::from(topic);
            rules.mount(&mut name);
            assert_eq!(name, mounted);
            if !topic.starts_with('$') {
                assert_eq!(rules.unmounted(mounted), Some(topic));
            }
        }
        for outside in ["site", "site/", "other/a", "sitea", "site/To_eUICC", "site/$SYS/a"] {
            assert_eq!(rules.unmounted(outside), None, "{outside}");
        }
    }

    #[test]
    fn what_is_addressed_or_the_brokers_own_is_not_mounted() {
        for mount_point in ["site/", ""] {
            let rules = rules(mount_point);
            for topic in [
                "To_eUICC",
                "To_SM-SR",
                "$share/g/To_SM-SR",
                "$SYS/broker/uptime",
                "$SYS/#",
                "$share/g/$SYS/#",
                "$other",
            ] {
                let mut name = ByteString::from(topic);
                rules.mount(&mut name);
                assert_eq!(name, topic);
                if !topic.starts_with("$share") {
                    assert_eq!(rules.unmounted(topic), Some(topic));
                }
            }
        }
    }
}
