//! What a mosquitto.conf says, as a whole: its listeners, its users, its bounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::keys::{self, Outcome};
use super::source::{Directive, Place};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Something that people have to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) place: Place,
    /// The directive, without its value: that may be a password.
    pub(super) key: String,
    pub(super) text: String,
}

/// A listener of mosquitto.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) place: Place,
    /// What it was made by: `listener`, or the first key of the listener without a name.
    pub(super) key: String,
    pub(super) port: u16,
    /// A host, or the path of a socket where the port is 0.
    pub(super) address: Option<String>,
    /// `ipv4` or `ipv6`.
    pub(super) domain: Option<String>,
    pub(super) protocol: Protocol,
    pub(super) tls: Tls,
    pub(super) names: Names,
    /// Keys of `[[listener]]` that are carried over as they are.
    pub(super) keys: BTreeMap<&'static str, Set<String>>,
    pub(super) origins: Vec<String>,
    pub(super) proxy_version: u8,
    pub(super) users: Users,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    #[default]
    Mqtt,
    WebSocket,
    /// Nothing that simcast speaks.
    Other,
}

/// The certificates of a listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) cafile: Option<Set<String>>,
    pub(super) capath: Option<Set<String>>,
    pub(super) certfile: Option<Set<String>>,
    pub(super) keyfile: Option<Set<String>>,
    pub(super) crlfile: Option<Set<String>>,
    pub(super) requires_certificate: bool,
    pub(super) version_1_3: bool,
    /// Keys that simcast has no counterpart of, and without which nobody gets in.
    pub(super) psk: Option<Place>,
    pub(super) engine: Option<Place>,
}

/// Where the user name comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// Of the CONNECT.
    #[default]
    Client,
    /// `use_identity_as_username`
    CommonName,
    /// `use_subject_as_username`
    Subject,
}

/// Who may come in, and with which rights: of the broker, or of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    pub(super) allow_anonymous: Option<bool>,
    pub(super) password_file: Option<Set<String>>,
    pub(super) acl_file: Option<Set<String>>,
    pub(super) plugin: Option<Place>,
}

/// The whole.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) per_listener: bool,
    pub(super) doors: Vec<Door>,
    /// The listener of each file that following keys belong to.
    current: Vec<(Arc<Path>, usize)>,
    default_door: Option<usize>,
    /// Whether anything asks for more than this machine to be served.
    pub(super) has_listener: bool,
    pub(super) users: Users,
    /// Keys of `[limits]`, `[mqtt]` and `[sys]`, by section and name.
    pub(super) keys: BTreeMap<(&'static str, &'static str), Set<String>>,
    pub(super) client_id_prefix: Option<Set<String>>,
    pub(super) log_types: Vec<String>,
    /// Where it is switched on.
    pub(super) persistence: Option<Place>,
    pub(super) persistence_location: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) left: Vec<Note>,
    /// What mosquitto itself would not start with.
    pub(super) broken: Vec<Note>,
}

impl Plan {
    /// Reads all directives.
    pub(super) fn of(directives: &[Directive]) -> Self {
        // It matters for keys that stand before it as well.
        let per_listener = directives.iter().rev().find(|d| d.key == "per_listener_settings");
        let per_listener = per_listener.is_some_and(|d| d.word() == "true");
        let mut plan = Self { per_listener, ..Self::default() };
        directives.iter().for_each(|directive| plan.take(directive));
        plan
    }

    fn take(&mut self, directive: &Directive) {
        let note = |text| Note { place: directive.place.clone(), key: directive.key.clone(), text };
        match keys::read(self, directive) {
            Outcome::Taken => {}
            Outcome::Left(why) => self.left.push(note(why)),
            Outcome::Broken(why) => self.broken.push(note(why)),
            Outcome::Unknown => {
                self.broken.push(note("unknown; mosquitto would not start with it either".into()));
            }
        }
    }

    /// A new listener, which following keys of this file belong to.
    pub(super) fn open(&mut self, directive: &Directive, port: u16, address: Option<String>) {
        self.has_listener = true;
        let at = self.add(directive, port, address);
        self.current.retain(|(file, _)| *file != directive.place.file);
        self.current.push((Arc::clone(&directive.place.file), at));
    }

    /// The listener that a key belongs to: the last one of its file, or the one without a name,
    /// which comes to be by its first key.
    pub(super) fn door(&mut self, directive: &Directive) -> &mut Door {
        let of_file = self.current.iter().find(|(file, _)| *file == directive.place.file);
        match of_file {
            Some((_, at)) => &mut self.doors[*at],
            None => self.default_door(directive),
        }
    }

    /// The listener without a name, wherever the key stands.
    pub(super) fn default_door(&mut self, directive: &Directive) -> &mut Door {
        let at = match self.default_door {
            Some(at) => at,
            None => self.add(directive, 1883, None),
        };
        self.default_door = Some(at);
        &mut self.doors[at]
    }

    /// The users that a key belongs to.
    pub(super) fn users(&mut self, directive: &Directive) -> &mut Users {
        if self.per_listener { &mut self.door(directive).users } else { &mut self.users }
    }

    fn add(&mut self, directive: &Directive, port: u16, address: Option<String>) -> usize {
        self.doors.push(Door {
            place: directive.place.clone(),
            key: directive.key.clone(),
            port,
            address,
            domain: None,
            protocol: Protocol::default(),
            tls: Tls::default(),
            names: Names::default(),
            keys: BTreeMap::new(),
            origins: Vec::new(),
            proxy_version: 0,
            users: Users::default(),
        });
        self.doors.len() - 1
    }

    /// Carries a value over to a key of ours; the last one counts.
    pub(super) fn set(
        &mut self,
        section: &'static str,
        name: &'static str,
        value: &impl ToString,
        directive: &Directive,
    ) {
        let set = Set { value: value.to_string(), place: directive.place.clone() };
        self.keys.insert((section, name), set);
    }
}
