//! The description of the API, OpenAPI 3.1: `base.json` and the parts of the resources.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::resource::Resource;

const BASE: &str = include_str!("openapi/base.json");

/// What any operation may answer.
const COMMON_RESPONSES: [(&str, &str); 2] = [("401", "Unauthorized"), ("403", "Forbidden")];

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/openapi.json")).on(
        Method::GET,
        "/api/v1/openapi.json",
        serve,
    )
}

async fn serve(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    let mut document = document(&super::resources());
    if state.access.asks_for_token() {
        document["security"] = json!([{ "token": [] }]);
    }
    ([(CONTENT_TYPE, "application/json")], document.to_string())
}

/// The whole document.
fn document(resources: &[Resource]) -> Value {
    let mut document = parsed(BASE);
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    for resource in resources {
        let mut part = parsed(resource.description);
        add_common_responses(&mut part["paths"]);
        merge(&mut document["paths"], &mut part["paths"]);
        merge(&mut document["components"]["schemas"], &mut part["schemas"]);
    }
    document
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("a test reads every part of the document")
}

fn merge(into: &mut Value, part: &mut Value) {
    if let (Value::Object(into), Value::Object(part)) = (into, part) {
        into.append(part);
    }
}

fn add_common_responses(paths: &mut Value) {
    for operation in operations(paths) {
        for (status, name) in COMMON_RESPONSES {
            let reference = format!("#/components/responses/{name}");
            operation["responses"][status] = json!({ "$ref": reference });
        }
    }
}

/// Every operation of some paths. What else stands in a path is a list, not a map.
fn operations(paths: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = paths.as_object_mut().into_iter().flat_map(Map::values_mut);
    let members = paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    members.filter(|member| member.is_object())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_described_is_there_and_what_is_there_is_described() {
        let resources = super::super::resources();
        let served: BTreeSet<(String, String)> = resources
            .iter()
            .flat_map(|resource| &resource.operations)
            .map(|(method, path)| (method.as_str().to_lowercase(), (*path).to_owned()))
            .collect();
        let document = document(&resources);
        let mut described = BTreeSet::new();
        for (path, members) in document["paths"].as_object().unwrap() {
            let methods = members.as_object().unwrap().iter().filter(|(_, m)| m.is_object());
            described.extend(methods.map(|(method, _)| (method.clone(), path.clone())));
        }
        assert_eq!(served, described);
        let count: usize = resources.iter().map(|resource| resource.operations.len()).sum();
        assert_eq!(served.len(), count, "nothing is there twice");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document(&super::super::resources());
        let mut references = BTreeSet::new();
        collect_references(&document, &mut references);
        for reference in &references {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for kind in ["schemas", "responses", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(references.contains(&reference), "{reference} is not used");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_and_says_what_it_does() {
        let mut document = document(&super::super::resources());
        let mut names = BTreeSet::new();
        for operation in operations(&mut document["paths"]) {
            let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
        assert!(!names.contains(""));
    }

    fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|member| collect_references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
