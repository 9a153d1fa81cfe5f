//! The cast of a provisioning test.

use simcast::config::Config;
use simcast::mqtt::{Publish, QoS, Version};
use simcast::rsp::{Campaign, CampaignId, DeviceState, GroupSettings, Settings};

use crate::common::{
    Answer, Client, Dial, Rig, TO_EUICC, TO_SM_SR, gid, rig::STRANGER as STRANGER_NID,
};

/// The SM-SR.
pub(crate) const SERVER: usize = 0;
/// Device 1, group 7. The index of a device is its running number.
pub(crate) const A: usize = 1;
/// Device 2, group 7.
pub(crate) const B: usize = 2;
/// Device 3, group 7.
pub(crate) const C: usize = 3;
/// Device 4, group 8.
pub(crate) const D: usize = 4;
/// Device 5, groups 7 and 8.
pub(crate) const E: usize = 5;
/// Device 6, no group.
pub(crate) const F: usize = 6;
/// A device with a certificate of the right CA that stands in no registry.
pub(crate) const STRANGER: usize = 7;
/// An anonymous client that listens wherever a client may.
pub(crate) const SNOOP: usize = 8;

/// The members of group 7.
pub(crate) const GROUP_7: [usize; 4] = [A, B, C, E];
/// The members of group 8.
pub(crate) const GROUP_8: [usize; 2] = [D, E];

/// Both versions of the protocol.
pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// How settings come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// For all, from the configuration file.
    File,
    /// For group 7, from the configuration file.
    GroupInFile,
    /// For all, while it runs.
    AtRunTime,
    /// For group 7, while it runs.
    GroupAtRunTime,
}

/// All of them.
pub(crate) const WAYS: [Way; 4] =
    [Way::File, Way::GroupInFile, Way::AtRunTime, Way::GroupAtRunTime];

impl Way {
    /// Other groups than 7 have the settings, too.
    pub(crate) fn is_global(self) -> bool {
        matches!(self, Self::File | Self::AtRunTime)
    }
}

/// A broker with everyone connected.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) version: Version,
    clients: Vec<Option<Client>>,
}

impl Stage {
    /// Everybody speaks this version.
    pub(crate) async fn start(version: Version) -> Self {
        Self::with(version, |_config| {}).await
    }

    /// With a changed configuration.
    pub(crate) async fn with(version: Version, change: impl FnOnce(&mut Config)) -> Self {
        let rig = Rig::with(change).await;
        let mut server = rig.server(Dial::new(version, "sm-sr")).await;
        assert!(!server.subscribe(TO_SM_SR, QoS::AtLeastOnce).await.is_error());
        let mut clients = vec![Some(server)];
        for number in [1, 2, 3, 4, 5, 6, STRANGER_NID] {
            let dial = Dial::new(version, &format!("device-{number}"));
            let mut device = rig.device(number, dial).await;
            let granted = device.subscribe(TO_EUICC, QoS::AtLeastOnce).await;
            assert_eq!(granted.is_error(), number == STRANGER_NID);
            listen_everywhere(&mut device).await;
            clients.push(Some(device));
        }
        let mut snoop = rig.client(Dial::new(version, "snoop")).await;
        listen_everywhere(&mut snoop).await;
        clients.push(Some(snoop));
        Self { rig, version, clients }
    }

    /// With these settings, for all or for group 7.
    pub(crate) async fn in_force(version: Version, way: Way, settings: GroupSettings) -> Self {
        let in_file = settings.clone();
        let change = |config: &mut Config| match way {
            Way::File => config.rsp.settings = config.rsp.settings.with(&in_file),
            Way::GroupInFile => drop(config.rsp.groups.insert(gid(7), in_file)),
            Way::AtRunTime | Way::GroupAtRunTime => {}
        };
        let stage = Self::with(version, change).await;
        match way {
            Way::File | Way::GroupInFile => {}
            Way::AtRunTime => stage.set(|common| *common = common.with(&settings)),
            Way::GroupAtRunTime => stage.set_group(7, settings),
        }
        stage
    }

    /// Changes the settings of all while it runs.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        self.rig.service.broker().with_control(|control| {
            let mut settings = control.settings().common().clone();
            change(&mut settings);
            control.set_settings(settings).unwrap();
        });
    }

    /// Changes the settings of a group while it runs.
    pub(crate) fn set_group(&self, number: u64, settings: GroupSettings) {
        let broker = self.rig.service.broker();
        broker.with_control(|control| control.set_group_settings(gid(number), settings)).unwrap();
    }

    /// The campaign that was opened last.
    pub(crate) fn newest(&self) -> CampaignId {
        let broker = self.rig.service.broker();
        let now = broker.now();
        broker.with_control(|control| control.campaigns(None, now).next().unwrap().id)
    }

    /// A campaign as it stands.
    pub(crate) fn campaign(&self, id: CampaignId) -> Campaign {
        let broker = self.rig.service.broker();
        let now = broker.now();
        broker.with_control(|control| control.campaign(id, now)).unwrap()
    }

    /// How far each of its devices is, in the order of their running numbers.
    pub(crate) fn states(&self, id: CampaignId) -> Vec<DeviceState> {
        let broker = self.rig.service.broker();
        broker.with_control(|control| {
            control.campaign_devices(id, 0).map(|device| device.state).collect()
        })
    }

    /// What time alone does, at once.
    pub(crate) async fn sweep(&self) {
        self.rig.service.broker().sweep().await;
    }

    /// Waits until the control unit has decided something by itself so many times.
    pub(crate) async fn decided(&self, reason: &str, times: u64) {
        let series = format!("simcast_rsp_decisions_total{{reason=\"{reason}\"}}");
        self.rig.until_counter(&series, times).await;
    }

    /// One of the cast.
    pub(crate) fn client(&mut self, who: usize) -> &mut Client {
        self.clients[who].as_mut().expect("still connected")
    }

    /// It is connected.
    pub(crate) fn is_here(&self, who: usize) -> bool {
        self.clients[who].is_some()
    }

    /// Takes one off the stage.
    pub(crate) fn take(&mut self, who: usize) -> Client {
        self.clients[who].take().expect("still connected")
    }

    /// Publishes, whatever becomes of it.
    pub(crate) async fn publish(
        &mut self,
        who: usize,
        topic: &str,
        payload: impl AsRef<[u8]>,
    ) -> Answer {
        self.client(who).publish(topic, payload, QoS::AtLeastOnce).await
    }

    /// Publishes what must be taken.
    pub(crate) async fn tell(&mut self, who: usize, topic: &str, payload: impl AsRef<[u8]>) {
        let answer = self.publish(who, topic, &payload).await;
        let text = String::from_utf8_lossy(payload.as_ref());
        assert!(answer.is_ok(), "{answer:?} to {who} for {text}");
    }

    /// Exactly these receive the payload, once; nobody receives anything else.
    pub(crate) async fn reaches(&mut self, receivers: &[usize], payload: impl AsRef<[u8]>) {
        let expected: Vec<_> = receivers.iter().map(|who| (*who, payload.as_ref())).collect();
        self.receives(&expected).await;
    }

    /// Exactly these receive exactly this; nobody receives anything else. Gives what they got, in
    /// the order of `expected`.
    pub(crate) async fn receives(&mut self, expected: &[(usize, &[u8])]) -> Vec<Publish> {
        let mut received = Vec::new();
        for (who, payload) in expected {
            let publish = self.client(*who).expect_publish().await;
            let text = String::from_utf8_lossy(&publish.payload).into_owned();
            assert_eq!(publish.payload, payload, "{who} received {text}");
            assert_eq!(&*publish.topic, if *who == SERVER { TO_SM_SR } else { TO_EUICC });
            assert!(!publish.retain, "provisioning messages are never retained");
            received.push(publish);
        }
        self.nobody_else().await;
        received
    }

    /// As [`Self::receives`], of texts.
    pub(crate) async fn each_receives(&mut self, expected: &[(usize, String)]) -> Vec<Publish> {
        let expected: Vec<_> = expected.iter().map(|(who, text)| (*who, text.as_bytes())).collect();
        self.receives(&expected).await
    }

    /// Publishes on the right topic what must be taken, and looks who receives it.
    pub(crate) async fn step(&mut self, by: usize, payload: &str, receivers: &[usize]) {
        let topic = if receivers == [SERVER] { TO_SM_SR } else { TO_EUICC };
        self.tell(by, topic, payload).await;
        self.reaches(receivers, payload).await;
    }

    /// Publishes what must be refused by this name; nobody receives anything.
    pub(crate) async fn refused(
        &mut self,
        by: usize,
        topic: &str,
        payload: impl AsRef<[u8]>,
        name: &str,
    ) {
        let before = self.rig.refusals(name).await;
        let answer = self.publish(by, topic, &payload).await;
        let text = String::from_utf8_lossy(payload.as_ref()).into_owned();
        match self.version {
            Version::V5 => {
                let told = answer.text.as_deref().and_then(|told| told.split("; ").next());
                assert_eq!(told, Some(name), "{by}: {text}");
            }
            _ => assert!(answer.is_ok(), "3.1.1 has no word for it"),
        }
        assert_eq!(self.rig.refusals(name).await, before + 1, "{by}: {text}");
        self.nobody_else().await;
    }

    /// As [`Self::step`] where it is permitted, else refused by this name.
    pub(crate) async fn step_or(
        &mut self,
        refusal: Option<&str>,
        by: usize,
        payload: &str,
        receivers: &[usize],
    ) {
        let topic = if receivers == [SERVER] { TO_SM_SR } else { TO_EUICC };
        match refusal {
            Some(name) => self.refused(by, topic, payload, name).await,
            None => self.step(by, payload, receivers).await,
        }
    }

    /// Nobody has anything, and nothing is on its way. Devices first: what they acknowledge may
    /// concern the server.
    pub(crate) async fn nobody_else(&mut self) {
        for who in (0..self.clients.len()).rev() {
            let Some(client) = &mut self.clients[who] else { continue };
            let surprise = client.arrived().await;
            assert!(surprise.is_empty(), "{who} received {surprise:?}");
        }
    }

    /// Takes everything that is on its way.
    pub(crate) async fn drain(&mut self) {
        for who in (0..self.clients.len()).rev() {
            let Some(client) = &mut self.clients[who] else { continue };
            client.arrived().await;
        }
    }
}

/// Everything that a client may subscribe to and that looks as if it held provisioning messages.
async fn listen_everywhere(client: &mut Client) {
    for filter in ["#", "+", "To_eUICC/#", "To_SM-SR/#", "+/#"] {
        assert!(!client.subscribe(filter, QoS::AtLeastOnce).await.is_error(), "{filter}");
    }
}
