//! AUTH packets of a connected client: the turns of a re-authentication (section 4.12.1).
//!
//! The shell knows the methods; here is only whose turn it is. Messages keep flowing meanwhile.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Action, Actions, Violation};
use crate::mqtt::{Auth, AuthProperties, Packet, ReasonCode, Sender};

/// Where in an exchange the client's data belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It begins one.
    First,
    /// It answers what the broker has sent.
    Next,
}

/// What the method says to the client's data, if it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The client has to answer this.
    Continue(Bytes),
    /// The client is who it was.
    Done(Bytes),
}

/// What one connection may do with AUTH.
#[derive(Debug, Default)]
pub(super) struct Reauth {
    /// Of the CONNECT.
    method: Option<ByteString>,
    running: bool,
}

impl Reauth {
    /// Of a connection that begins.
    pub(super) fn open(method: Option<ByteString>) -> Self {
        Self { method, running: false }
    }

    pub(super) fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// An AUTH of the client.
    pub(super) fn on_auth(&mut self, auth: Auth, actions: &mut Actions) -> Result<(), Violation> {
        let method = self.method.as_ref().ok_or(Violation::UnexpectedAuth)?;
        auth.check(Sender::Client)?;
        let properties = auth.properties.unwrap_or_default();
        if properties.authentication_method.as_ref() != Some(method) {
            return Err(Violation::AuthenticationMethodChanged);
        }
        let turn = match (auth.reason, self.running) {
            (ReasonCode::ReAuthenticate, false) => Turn::First,
            (ReasonCode::ContinueAuthentication, true) => Turn::Next,
            _out_of_turn => return Err(Violation::AuthOutOfTurn),
        };
        self.running = true;
        let data = properties.authentication_data.unwrap_or_default();
        actions.push(Action::Authenticate(turn, data));
        Ok(())
    }

    /// The method has judged the client's data.
    pub(super) fn on_verdict(&mut self, verdict: Judged, actions: &mut Actions) {
        let (reason, data) = match verdict {
            Judged::Continue(data) => (ReasonCode::ContinueAuthentication, data),
            Judged::Done(data) => {
                self.running = false;
                (ReasonCode::Success, data)
            }
        };
        // [MQTT-4.12.0-5]: the method of the CONNECT in each.
        let properties = AuthProperties {
            authentication_method: self.method.clone(),
            authentication_data: Some(data),
            ..AuthProperties::default()
        };
        let properties = Some(Box::new(properties));
        actions.push(Action::Send(Packet::Auth(Auth { reason, properties })));
    }
}
