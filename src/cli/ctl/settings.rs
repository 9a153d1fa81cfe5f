//! `simcast ctl settings`.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, CtlError};
use super::output::{Column, Output, Table, text};
use crate::cli::endpoint;
use crate::ids::Gid;

/// What the control unit permits and does by itself
///
/// Changes hold from the next message on, and until the broker is restarted: the configuration
/// file stays as it is.
#[derive(Debug, Args)]
pub(super) struct Settings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the settings of all groups, or those that hold for one
    Get {
        /// What holds for this group
        #[arg(long, visible_alias = "gid", value_name = "GID", value_parser = endpoint::gid)]
        group: Option<Gid>,
    },
    /// Change settings: mode=multi, ttl.msg=3d, conditions='["model"]'
    Set {
        /// Keys and values as in simcast.toml; texts need no quotes
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
        settings: Vec<(String, Value)>,
        /// For this group alone
        #[arg(long, visible_alias = "gid", value_name = "GID", value_parser = endpoint::gid)]
        group: Option<Gid>,
    },
    /// Give settings their defaults again, or take away where a group deviates
    Unset {
        /// Keys such as mode or ttl.msg
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// For this group alone
        #[arg(long, visible_alias = "gid", value_name = "GID", value_parser = endpoint::gid)]
        group: Option<Gid>,
    },
}

const COLUMNS: &[Column] =
    &[("KEY", |setting| text(&setting["key"])), ("VALUE", |setting| text(&setting["value"]))];

/// With what a group has of its own.
const GROUP_COLUMNS: &[Column] =
    &[COLUMNS[0], COLUMNS[1], ("DEVIATES", |setting| text(&setting["deviates"]))];

impl Settings {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let (group, settings) = match self.action {
            Action::Get { group } => (group, None),
            Action::Set { settings, group } => (group, Some(settings)),
            Action::Unset { keys, group } => {
                (group, Some(keys.into_iter().map(|key| (key, Value::Null)).collect()))
            }
        };
        let path = match group {
            Some(gid) => format!("/api/v1/groups/{gid}/settings"),
            None => "/api/v1/settings".to_owned(),
        };
        let answer = match settings {
            None => api.get(&path).await?,
            Some(settings) => api.call(Method::PATCH, &path, Some(&patch(settings))).await?,
        };
        show(output, &answer, group.is_some())
    }
}

fn show(output: &mut Output, answer: &Value, of_group: bool) -> Result<(), CtlError> {
    if output.is_json() {
        return Ok(output.value(answer)?);
    }
    let (settings, columns) =
        if of_group { (&answer["effective"], GROUP_COLUMNS) } else { (answer, COLUMNS) };
    let mut rows = Vec::new();
    list("", settings, of_group.then_some(&answer["own"]), &mut rows);
    Ok(output.rows(&mut Table::new(columns), &rows)?)
}

/// Members of members by their dotted keys.
fn list(key: &str, value: &Value, own: Option<&Value>, rows: &mut Vec<Value>) {
    let Value::Object(members) = value else {
        let deviates = own.is_some_and(|own| !own.is_null());
        rows.push(json!({ "key": key, "value": value, "deviates": deviates }));
        return;
    };
    for (name, value) in members {
        let dot = if key.is_empty() { "" } else { "." };
        list(&format!("{key}{dot}{name}"), value, own.map(|own| &own[name]), rows);
    }
}

/// The merge patch of some settings by their dotted keys.
fn patch(settings: Vec<(String, Value)>) -> Value {
    let mut patch = Map::new();
    for (key, value) in settings {
        let mut members = &mut patch;
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                members.insert(name.to_owned(), value);
                break;
            }
            let inner = members.entry(name).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            let Value::Object(inner) = inner else { break };
            members = inner;
        }
    }
    Value::Object(patch)
}

fn assignment(argument: &str) -> Result<(String, Value), &'static str> {
    let (key, value) = argument.split_once('=').ok_or("a setting is KEY=VALUE")?;
    Ok((key.trim().to_owned(), value_of(value.trim())))
}

/// A value as simcast.toml has it; what is none is a text.
fn value_of(written: &str) -> Value {
    let table = format!("value = {written}").parse::<toml::Table>();
    let value = table.ok().filter(|table| table.len() == 1).and_then(|mut t| t.remove("value"));
    value.and_then(in_json).unwrap_or_else(|| written.into())
}

fn in_json(value: toml::Value) -> Option<Value> {
    match value {
        // Nothing here is a date.
        toml::Value::Datetime(_) => None,
        other => serde_json::to_value(other).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_in_the_configuration_file_or_without_quotes() {
        for (written, value) in [
            ("multi", json!("multi")),
            ("\"multi\"", json!("multi")),
            ("3d", json!("3d")),
            ("60/1m", json!("60/1m")),
            ("20", json!(20)),
            ("[\"model\", 'plan']", json!(["model", "plan"])),
            ("{ msg = \"3d\" }", json!({"msg": "3d"})),
            ("", json!("")),
            ("2026-01-01", json!("2026-01-01")),
            ("1\nmode = 2", json!("1\nmode = 2")),
        ] {
            assert_eq!(value_of(written), value, "{written:?}");
        }
        assert!(assignment("mode").is_err());
    }

    #[test]
    fn dotted_keys_are_members_of_members() {
        let settings = ["ttl.msg=3d", "mode=multi", "ttl.trigger=1h"]
            .map(|argument| assignment(argument).unwrap());
        let expected = json!({"ttl": {"msg": "3d", "trigger": "1h"}, "mode": "multi"});
        assert_eq!(patch(settings.into()), expected);
        let odd = ["mode=any", "mode.x=1"].map(|argument| assignment(argument).unwrap());
        assert_eq!(patch(odd.into()), json!({"mode": {"x": 1}}), "for the broker to refuse");
    }
}
