//! Logging in: who a client is, by its certificate, its password, or a method of several packets.
//!
//! What was proven beats what is said: a user name that contradicts the certificate is logged and
//! counts for nothing (case S15).

use std::future::poll_fn;
use std::net::IpAddr;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::Link;
use super::failures::Source;
use super::greeting::{Entry, Unwelcome};
use super::users::{Next, NotProven, Proven, Running};
use crate::broker::Broker;
use crate::config::UserNameFrom;
use crate::ids::Nid;
use crate::log::Shown;
use crate::mqtt::decode::{Sender, decode};
use crate::mqtt::{Auth, AuthProperties, Connect, Packet, ReasonCode, Version, fitted};
use crate::rsp::{CertificateFacts, Identity, NameFrom};
use crate::session::Violation;

/// Largest packet of a client that is logging in, in bytes.
const AUTH_BYTES_MAX: usize = 16 * 1024;

/// A client that may come in.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) identity: Identity,
    /// The user that it has shown to be, if a password file was asked.
    pub(super) proven: Option<Proven>,
    /// The last data of its authentication method, for the CONNACK.
    pub(super) data: Option<Bytes>,
}

impl Entry {
    /// Who the certificate says the client is, where the listener goes by certificates.
    fn by_certificate(
        &self,
        certificate: Option<&CertificateFacts>,
        version: Version,
    ) -> Result<Option<Identity>, Unwelcome> {
        let Some(facts) = certificate else { return Ok(None) };
        let from = match self.user_name_from {
            UserNameFrom::Certificate => NameFrom::EidOrCommonName,
            UserNameFrom::Cn => NameFrom::CommonName,
            UserNameFrom::Subject => NameFrom::Subject,
            UserNameFrom::San => NameFrom::AlternativeName,
            UserNameFrom::Serial => NameFrom::Serial,
            UserNameFrom::Password => return Ok(None),
        };
        let identity = Identity::named(from, facts, &self.server_rules, self.scheme);
        identity.map(Some).map_err(|error| Unwelcome::Identity(version, error))
    }

    /// Whether the password fits the user name. A client without a user name has nothing to show.
    async fn by_password(
        &self,
        broker: &Broker,
        address: Option<IpAddr>,
        connect: &Connect,
    ) -> Result<Option<Proven>, Unwelcome> {
        let name = connect.username.as_deref();
        let name = name.filter(|name| !(name.is_empty() && self.empty_user_name_is_anonymous));
        let (Some(users), Some(name)) = (&self.access.users, name) else { return Ok(None) };
        let source = Source { user: name, address };
        // No password is a wrong one, and takes as long.
        let password = connect.password.clone().unwrap_or_default();
        let checked = self.hashers.check(users, source, password, || broker.now()).await;
        checked.map(Some).map_err(|why| Unwelcome::not_proven(connect, why))
    }

    /// Who a client is that has shown nothing.
    fn without_proof(&self, connect: &Connect) -> Result<Identity, Unwelcome> {
        if self.trust_client_id {
            if self.servers_by_client_id.iter().any(|server| **server == *connect.client_id) {
                return Ok(Identity::server(&connect.client_id));
            }
            if let Ok(nid) = Nid::parse(&connect.client_id, self.scheme) {
                return Ok(Identity::device(nid));
            }
        }
        if self.allow_anonymous {
            // No certificate or user can have this name: anonymous clients share no session.
            return Ok(Identity::anonymous(""));
        }
        Err(Unwelcome::Anonymous(connect.version))
    }

    /// The CONNECT with the client id that the listener takes for the client's.
    pub(super) fn with_client_id(
        &self,
        identity: &Identity,
        mut connect: Connect,
    ) -> Result<Connect, Unwelcome> {
        if self.client_id_is_user_name {
            if identity.name.is_empty() {
                return Err(Unwelcome::Anonymous(connect.version));
            }
            connect.client_id = ByteString::from(&*identity.name);
        }
        Ok(connect)
    }

    /// Whether clients with this id may come in here.
    pub(super) fn takes_client_id(&self, client_id: &str) -> bool {
        let prefixes = &self.client_id_prefixes;
        prefixes.is_empty() || prefixes.iter().any(|prefix| client_id.starts_with(prefix))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Finds out who the client is. The future may be dropped; then the client is to be turned
    /// away.
    pub(super) async fn log_in(
        &mut self,
        broker: &Broker,
        entry: &Entry,
        certificate: Option<&CertificateFacts>,
        connect: &Connect,
    ) -> Result<Login, Unwelcome> {
        let certified = entry.by_certificate(certificate, connect.version)?;
        let (proven, data) = if let Some(method) = &connect.properties.authentication_method {
            let (proven, data) = self.run_method(broker, entry, connect, method).await?;
            (Some(proven), Some(data))
        } else if certified.is_some() {
            (None, None)
        } else {
            (entry.by_password(broker, self.address(), connect).await?, None)
        };
        let identity = match (certified, &proven) {
            (Some(identity), _) => identity,
            (None, Some(proven)) => proven.identity(),
            (None, None) => entry.without_proof(connect)?,
        };
        self.note_contradiction(broker, &identity, connect);
        Ok(Login { identity, proven, data })
    }

    /// What failed logins are counted by.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.peer.ip()
    }

    /// Enhanced authentication between CONNECT and CONNACK (section 4.12).
    async fn run_method(
        &mut self,
        broker: &Broker,
        entry: &Entry,
        connect: &Connect,
        method: &ByteString,
    ) -> Result<(Proven, Bytes), Unwelcome> {
        let running = entry.access.users.as_ref().and_then(|users| Running::begin(users, method));
        // [MQTT-4.12.0-1]
        let unknown = Violation::UnknownAuthenticationMethod;
        let mut running = running.ok_or(Unwelcome::Violation(Version::V5, unknown))?;
        let mut data = connect.properties.authentication_data.clone().unwrap_or_default();
        loop {
            let next = running.step(&data, self.address(), broker.now());
            match next.map_err(|why| Unwelcome::not_proven(connect, why))? {
                Next::Done(proven, data) => return Ok((proven, data)),
                Next::Continue(challenge) => {
                    self.challenge(broker, method, challenge).await?;
                    data = self.read_answer(broker, method).await?;
                }
            }
        }
    }

    /// Sends an AUTH `[MQTT-4.12.0-2]`.
    async fn challenge(
        &mut self,
        broker: &Broker,
        method: &ByteString,
        data: Bytes,
    ) -> Result<(), Unwelcome> {
        let properties = AuthProperties {
            authentication_method: Some(method.clone()),
            authentication_data: Some(data),
            ..AuthProperties::default()
        };
        let reason = ReasonCode::ContinueAuthentication;
        let packet = Packet::Auth(Auth { reason, properties: Some(Box::new(properties)) });
        let packet = fitted(packet, Version::V5, self.packet_bytes_max)
            .ok_or(Unwelcome::Violation(Version::V5, Violation::PacketSizeTooSmall))?;
        broker.metrics().packet_out((&packet).into());
        let Self { stream, output, .. } = self;
        output.packet(&packet, Version::V5);
        poll_fn(|context| output.poll_write(stream, context)).await?;
        Ok(())
    }

    /// Waits for the client's AUTH `[MQTT-4.12.0-3]`; nothing else may come but its goodbye
    /// `[MQTT-3.1.2-30]`.
    async fn read_answer(
        &mut self,
        broker: &Broker,
        method: &ByteString,
    ) -> Result<Bytes, Unwelcome> {
        let frame = loop {
            if let Some(frame) = self.input.next_frame(AUTH_BYTES_MAX)? {
                break frame;
            }
            let Self { stream, input, .. } = self;
            if poll_fn(|context| input.poll_read(stream, context)).await? == 0 {
                return Err(Unwelcome::Closed);
            }
        };
        let violation = |violation| Unwelcome::Violation(Version::V5, violation);
        let packet = decode(frame, Version::V5, Sender::Client)?;
        broker.metrics().packet_in((&packet).into());
        let auth = match packet {
            Packet::Auth(auth) => auth,
            Packet::Disconnect(_) => return Err(Unwelcome::Closed),
            _other => return Err(violation(Violation::NotAuthenticated)),
        };
        if auth.reason != ReasonCode::ContinueAuthentication {
            return Err(violation(Violation::AuthOutOfTurn));
        }
        let properties = auth.properties.unwrap_or_default();
        // [MQTT-4.12.0-5]
        if properties.authentication_method.as_ref() != Some(method) {
            return Err(violation(Violation::AuthenticationMethodChanged));
        }
        Ok(properties.authentication_data.unwrap_or_default())
    }

    /// A user name that is not the proven one counts for nothing, and an operator should know.
    fn note_contradiction(&self, broker: &Broker, identity: &Identity, connect: &Connect) {
        let Some(said) = connect.username.as_deref().filter(|said| !said.is_empty()) else {
            return;
        };
        if identity.name.is_empty() || *said == *identity.name {
            return;
        }
        if let Some(repeats) = broker.complain("user_name_contradicts") {
            tracing::warn!(
                peer = %self.peer,
                said = %Shown(said),
                identity = %Shown(&identity.name),
                repeats = repeats.field(),
                "the user name contradicts the proven identity, which holds"
            );
        }
    }
}

impl Unwelcome {
    fn not_proven(connect: &Connect, why: NotProven) -> Self {
        let user = connect.username.clone().unwrap_or_default();
        Self::NotProven(connect.version, why, user)
    }
}
