//! What waits for the servers, while their clients come and go.

use bytestring::ByteString;

use super::*;
use crate::ids::{Gid, Nid};
use crate::rsp::{Refusal, RspTopic, Scope, ServerScopes};
use crate::session::Origin;

const SHARED: &str = "$share/g/To_SM-SR";

/// A device of group 7, and servers in charge of that group; but `outsider` has another one.
struct Office {
    broker: Broker,
    device: Nid,
}

impl Office {
    fn new() -> Self {
        let [own, other] = [7, 8].map(|group| Scope::groups(Gid::new(group)));
        let scopes = ServerScopes::new([("outsider".into(), other)], own);
        let broker = broker_with(ControlOptions { scopes, ..ControlOptions::default() });
        let device = Nid::new(89_049_032_123_451_234_512_345_678_901_235, NidScheme::Eid).unwrap();
        let group = Gid::new(7).unwrap();
        broker.with_control(|control| control.put_device(device, &[group], "")).unwrap();
        Self { broker, device }
    }

    /// Connects a server whose session outlives its connection by so many seconds.
    async fn attach(&self, name: &'static str, expiry_secs: u32) -> Attached {
        let mut connect = connect(name);
        connect.clean_start = false;
        connect.properties.session_expiry_secs = expiry_secs;
        let limits = SessionLimits { expiry_max: Duration::MAX, ..session_limits() };
        let opening = Opening::new(&connect, &limits, || "fresh".into()).unwrap();
        let identity = Identity::server(name);
        let who = Who { identity: &identity, client_id: name, peer: None };
        self.broker.attach(&who, &opening, None).await.unwrap()
    }

    async fn server(&self, name: &'static str, expiry_secs: u32) -> Attached {
        let attached = self.attach(name, expiry_secs).await;
        subscribe(&self.broker, &attached, SHARED).await;
        assert_eq!(self.gets(&attached), "");
        attached
    }

    fn submit(&self, from: &Identity, topic: RspTopic, kind: &str) -> Result<(), Refusal> {
        let (topics, device) = (&self.broker.options.topics, self.device);
        let name = match topic {
            RspTopic::ToEuicc => &*topics.to_euicc,
            RspTopic::ToSmSr => &*topics.to_sm_sr,
        };
        let payload = format!(r#"{{"nid":"{device}","gid":0,"type":"{kind}","body":"AA=="}}"#);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: ByteString::from(name),
            packet_id: None,
            properties: None,
            payload: payload.into(),
        };
        let who = Who { identity: from, client_id: "any", peer: None };
        let publisher = Publisher { key: None, who, row: None, permit: None };
        self.broker.submit(&publisher, topic, publish).map(|_commit| ())
    }

    /// The server asks in both ways that there are.
    fn ask(&self, server: &Attached) {
        for kind in ["trigger", "msg"] {
            assert_eq!(self.submit(&server.handle.identity, RspTopic::ToEuicc, kind), Ok(()));
        }
    }

    fn answer(&self, kind: &str) {
        assert_eq!(self.try_answer(kind), Ok(()), "{kind}");
    }

    fn try_answer(&self, kind: &str) -> Result<(), Refusal> {
        self.submit(&Identity::device(self.device), RspTopic::ToSmSr, kind)
    }

    /// Fetches like a connection whose window has this much room, and answers calls with that.
    fn fetch(&self, server: &Attached, room: usize) -> Vec<(Origin, &'static str)> {
        server.handle.signal.withdraw(Calls::MAIL);
        let mut batch = Vec::new();
        self.broker.pull(&server.handle, Calls::MAIL, room, 10_000, &mut batch);
        batch.iter().map(|delivery| (delivery.origin, kind(&delivery.message))).collect()
    }

    /// Fetches all, and has it. Gives what it was.
    fn gets(&self, server: &Attached) -> String {
        let fetched = self.fetch(server, 10);
        fetched.iter().for_each(|(origin, _)| {
            self.broker.delivered(&server.handle, *origin, false);
        });
        fetched.iter().map(|(_, kind)| *kind).collect::<Vec<_>>().join(" ")
    }
}

fn kind(message: &crate::mqtt::Message) -> &'static str {
    let text = String::from_utf8_lossy(&message.payload);
    let mut kinds = ["ret(trigger)", "ret(msg)"].into_iter();
    kinds.find(|kind| text.contains(kind)).unwrap()
}

fn is_called(attached: &Attached) -> bool {
    attached.handle.signal.is_up(Calls::MAIL)
}

#[tokio::test]
async fn another_member_of_the_group_has_the_answers_while_the_asker_is_away() {
    let office = Office::new();
    let asker = office.server("asker", 3600).await;
    let replica = office.server("replica", 0).await;
    let outsider = office.server("outsider", 0).await;
    office.ask(&asker);
    office.answer("ret(trigger)");
    assert!(is_called(&asker) && !is_called(&replica) && !is_called(&outsider));
    let held = office.fetch(&asker, 2);
    assert_eq!(held.len(), 1, "on its way to the asker");
    office.answer("ret(msg)");
    assert!(!is_called(&replica));
    assert_eq!(office.gets(&replica), "", "the asker is there");

    office.broker.detach(&Arc::clone(&asker.handle), asker.session, Parting::Ended);
    assert!(is_called(&replica) && !is_called(&outsider));
    assert_eq!(office.gets(&outsider), "");
    assert_eq!(office.gets(&replica), "ret(msg)");

    // Its session has kept what was on its way, and answers are for it again.
    let asker = office.attach("asker", 3600).await;
    assert!(asker.present);
    assert_eq!(office.gets(&asker), "");
    office.broker.delivered(&asker.handle, held[0].0, false);
    assert!(office.broker.inbox.look().is_empty());
    office.ask(&asker);
    office.answer("ret(trigger)");
    assert!(is_called(&asker) && !is_called(&replica));
    assert_eq!(office.gets(&replica), "");
    assert_eq!(office.gets(&asker), "ret(trigger)");
}

#[tokio::test]
async fn another_member_of_the_group_has_all_answers_when_the_session_of_the_asker_ends() {
    let office = Office::new();
    let [asker, replica] = [office.server("asker", 0).await, office.server("replica", 0).await];
    office.ask(&asker);
    office.answer("ret(trigger)");
    assert_eq!(office.fetch(&asker, 10).len(), 1);
    office.answer("ret(msg)");
    assert_eq!(office.gets(&replica), "");
    office.broker.detach(&Arc::clone(&asker.handle), asker.session, Parting::Ended);
    assert!(is_called(&replica));
    assert_eq!(office.gets(&replica), "ret(trigger) ret(msg)");
}

#[tokio::test]
async fn an_asker_that_reads_nothing_holds_up_no_other_server() {
    let office = Office::new();
    let [asker, replica] = [office.server("asker", 0).await, office.server("replica", 0).await];
    let room = office.broker.options.inbox.messages_max;
    for _ in 0..room / 2 {
        office.ask(&asker);
        office.answer("ret(trigger)");
        office.answer("ret(msg)");
    }
    assert_eq!(office.broker.inbox.look().len(), room, "as much as may wait for one server");
    for _ in 0..room {
        office.ask(&replica);
        office.answer("ret(trigger)");
        office.answer("ret(msg)");
        assert_eq!(office.gets(&replica), "ret(trigger) ret(msg)");
    }
    assert_eq!(office.broker.inbox.look().len(), room, "and it waits still");
    office.ask(&asker);
    assert_eq!(
        office.try_answer("ret(msg)"),
        Err(Refusal::OverQuota),
        "its own devices hear of it"
    );
}
