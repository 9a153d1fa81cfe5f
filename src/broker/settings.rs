//! Settings as operators see and change them while the broker runs: by merge patches (RFC 7396) on
//! their JSON, for all groups and for one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Broker;
use super::events::BrokerEvent;
use crate::audit::Entry;
use crate::config::explain;
use crate::ids::Gid;
use crate::rsp::settings::merge;
use crate::rsp::{ControlUnit, GroupSettings, Settings};

/// Groups that may deviate from the settings of all.
const DEVIATING_GROUPS_MAX: usize = 100_000;

/// The settings of a group, as operators see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupSettingsInfo {
    /// Which group.
    pub gid: u64,
    /// Where it deviates from the settings of all.
    pub own: GroupSettings,
    /// What holds for it.
    pub effective: Settings,
}

/// Why settings stay as they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSet {
    /// A key that there is not, or a value of a wrong form.
    #[error("{0}")]
    Malformed(String),
    /// A value with which nothing would work.
    #[error("{key}: {why}")]
    Unworkable {
        /// Its key.
        key: String,
        /// What it has to be.
        why: &'static str,
    },
    /// The table of deviations is full.
    #[error("{DEVIATING_GROUPS_MAX} groups deviate already; take another one's deviations away")]
    TooManyGroups,
}

impl NotSet {
    fn unworkable((key, why): (impl Into<String>, &'static str)) -> Self {
        Self::Unworkable { key: key.into(), why }
    }
}

/// Settings before and after a patch.
#[derive(Debug)]
struct Patched<T> {
    now: T,
    /// What differs, by its dotted key; null is what is not there.
    before: Map<String, Value>,
    after: Map<String, Value>,
}

impl Broker {
    /// What holds where no group deviates.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.control.look().settings().common().clone()
    }

    /// What holds for a group, whether it has devices or not.
    #[must_use]
    pub fn group_settings(&self, gid: Gid) -> GroupSettingsInfo {
        of_group(&self.control.look(), gid)
    }

    /// Changes the settings of all; null is the value that a key has by default. Gives what holds
    /// now. What is open stays open. The audit log names the actor, and what was before.
    ///
    /// # Errors
    /// [`NotSet`]; then nothing has changed.
    pub fn patch_settings(
        &self,
        actor: &str,
        patch: &Map<String, Value>,
    ) -> Result<Settings, NotSet> {
        let patched = self.operate(actor, |control| {
            let patched = patched(control.settings().common(), patch)?;
            control.set_settings(patched.now.clone()).map_err(NotSet::unworkable)?;
            Ok(patched)
        })?;
        self.note_settings(actor, None, patched.before, patched.after);
        Ok(patched.now)
    }

    /// Changes where a group deviates from the settings of all; null takes a deviation away. Gives
    /// what holds now. The audit log names the actor, and what was before.
    ///
    /// # Errors
    /// [`NotSet`]; then nothing has changed.
    pub fn patch_group_settings(
        &self,
        actor: &str,
        gid: Gid,
        patch: &Map<String, Value>,
    ) -> Result<GroupSettingsInfo, NotSet> {
        let (patched, info) = self.operate(actor, |control| {
            let groups = control.settings().groups();
            let own = groups.get(&gid).cloned();
            let is_full = own.is_none() && groups.len() >= DEVIATING_GROUPS_MAX;
            let patched = patched(&own.unwrap_or_default(), patch)?;
            if is_full && !patched.after.is_empty() {
                return Err(NotSet::TooManyGroups);
            }
            let set = control.set_group_settings(gid, patched.now.clone());
            set.map_err(NotSet::unworkable)?;
            Ok((patched, of_group(control, gid)))
        })?;
        self.note_settings(actor, Some(gid), patched.before, patched.after);
        Ok(info)
    }

    fn note_settings(
        &self,
        actor: &str,
        gid: Option<Gid>,
        before: Map<String, Value>,
        after: Map<String, Value>,
    ) {
        if after.is_empty() {
            return;
        }
        let gid = gid.map(Gid::get);
        self.audit.record(
            Entry::new("settings", actor)
                .with("gid", gid)
                .with("before", before)
                .with("after", after),
        );
        self.tell(|| BrokerEvent::Settings { gid });
    }
}

fn of_group(control: &ControlUnit, gid: Gid) -> GroupSettingsInfo {
    let table = control.settings();
    GroupSettingsInfo {
        gid: gid.get(),
        own: table.groups().get(&gid).cloned().unwrap_or_default(),
        effective: table.of_group(gid).clone(),
    }
}

fn patched<T>(current: &T, patch: &Map<String, Value>) -> Result<Patched<T>, NotSet>
where
    T: Serialize + DeserializeOwned,
{
    if let Some(culprit) = culprit::<T>(patch) {
        return Err(NotSet::Malformed(culprit));
    }
    let malformed = |error: serde_json::Error| NotSet::Malformed(explain(&error.to_string()));
    let written = |settings: &T| serde_json::to_value(settings).map_err(malformed);
    let old = written(current)?;
    let mut new = old.clone();
    merge(&mut new, &Value::Object(patch.clone()));
    let now: T = serde_json::from_value(new).map_err(malformed)?;
    let (old, new) = (flat(&old), flat(&written(&now)?));
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    let differs = keys.filter(|key| old.get(*key) != new.get(*key));
    let of = |side: &Map<String, Value>, key: &String| side.get(key).cloned().unwrap_or_default();
    let (before, after) =
        differs.map(|key| ((key.clone(), of(&old, key)), (key.clone(), of(&new, key)))).unzip();
    Ok(Patched { now, before, after })
}

/// The first member of a patch that cannot be set even alone, and why. Null takes away, but only
/// what there is.
fn culprit<T: DeserializeOwned>(patch: &Map<String, Value>) -> Option<String> {
    let members = flat(&Value::Object(patch.clone()));
    members.into_iter().find_map(|(key, value)| {
        let takes_away = value.is_null();
        let nest = |inner, name: &str| Value::Object(Map::from_iter([(name.to_owned(), inner)]));
        let alone = key.rsplit('.').fold(value, nest);
        let error = serde_json::from_value::<T>(alone).err()?.to_string();
        let is_known = takes_away && error.starts_with("invalid type: null");
        (!is_known).then(|| format!("{key}: {}", explain(&error)))
    })
}

/// Members of members by their dotted keys.
fn flat(value: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    collect(String::new(), value, &mut found);
    found
}

fn collect(key: String, value: &Value, found: &mut Map<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() || key.is_empty() => {
            for (name, value) in members {
                let dot = if key.is_empty() { "" } else { "." };
                collect(format!("{key}{dot}{name}"), value, found);
            }
        }
        _ => {
            found.insert(key, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(members) = value else { panic!("{value}") };
        members
    }

    #[test]
    fn a_patch_changes_what_it_names_and_tells_both_values() {
        let patch = object(json!({"ttl": {"msg": "3d"}, "mode": "any"}));
        let patched = patched(&Settings::default(), &patch).unwrap();
        assert_eq!(patched.before, object(json!({"ttl.msg": "21d"})));
        assert_eq!(patched.after, object(json!({"ttl.msg": "3d"})));
        let back = super::patched(&patched.now, &object(json!({"ttl": null}))).unwrap();
        assert_eq!(back.now, Settings::default());
    }

    #[test]
    fn null_takes_away_every_key_that_there_is() {
        fn check<T>(current: &T, key: &str)
        where
            T: Serialize + DeserializeOwned + Default + PartialEq + std::fmt::Debug,
        {
            let nest = |inner: Value, name: &str| json!({ name: inner });
            let patch = object(key.rsplit('.').fold(Value::Null, nest));
            assert_eq!(patched(current, &patch).unwrap().now, T::default(), "{key}");
        }
        let keys: Vec<String> = flat(&json!(Settings::default())).keys().cloned().collect();
        assert!(keys.len() > 12, "{keys:?}");
        for key in keys.iter().map(String::as_str).chain(["ttl", "trigger_rate"]) {
            check(&Settings::default(), key);
            check(&GroupSettings::default(), key);
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (patch, words) in [
            (json!({"mode": "any", "ttl": {"msg": "soon"}}), "ttl.msg: "),
            (json!({"colour": "red"}), "colour"),
            (json!({"ttl": {"mgs": "3d"}}), "mgs"),
            (json!({"trigger_rate": "9/1h"}), "trigger_rate: "),
            (json!({"mode": {}}), "mode: "),
            (json!({"mode": {"a": {"b": 1}}}), "mode.a.b: "),
            (json!({"chunk": -1}), "chunk: "),
            (json!({"colour": null}), "unknown key `colour`; known here: initiator, mode, "),
            (json!({"mode": "any", "mdoe": null}), "did you mean `mode`?"),
            (json!({"ttl": {"mgs": null}}), "ttl.mgs: unknown key `mgs`; known here: trigger, "),
            (json!({"colour": {"dark": null}}), "unknown key `colour`"),
            (json!({"mode": {"a": null}}), "mode.a: "),
            (json!({"chunk": {"a": null}}), "chunk.a: "),
            (json!({"ttl": "3d"}), "ttl: invalid type: string \"3d\", expected a table"),
            (json!({"conditions": "model"}), "expected a list"),
            (json!({"mode": "both"}), "mode: unknown value `both`; known here: any, single, multi"),
        ] {
            for error in [
                patched(&Settings::default(), &object(patch.clone())).unwrap_err(),
                patched(&GroupSettings::default(), &object(patch)).unwrap_err(),
            ] {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
    }
}
