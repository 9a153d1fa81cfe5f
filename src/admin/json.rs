//! Bodies: JSON both ways, CSV one way, each within a size and a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::AdminState;
use super::bounded::Lifetime;
use super::problem::Problem;

/// Largest JSON body.
const JSON_BYTES_MAX: usize = 1 << 20;
/// How long it may take to arrive.
const JSON_PATIENCE: Duration = Duration::from_secs(30);
/// Largest registry file.
const CSV_BYTES_MAX: usize = 64 << 20;
/// How long it may take to arrive.
const CSV_PATIENCE: Duration = Duration::from_secs(300);

/// A JSON body: of a request where it is an argument, of a response where it is returned.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// A CSV body of a request. There is one at a time: it may be large, and so is what is made of it.
#[derive(Debug)]
pub(super) struct Csv {
    pub(super) text: String,
    /// To be kept until the work is done.
    pub(super) turn: OwnedSemaphorePermit,
}

/// The body of a request that has nothing to say: `{}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoMembers {}

/// A JSON merge patch (RFC 7396). Numbers that are whole are so however they are written.
#[derive(Debug)]
pub(super) struct MergePatch(pub(super) Map<String, Value>);

/// The first number that takes more than 64 bits: 2 to the 64th.
const U64_END: f64 = 18_446_744_073_709_551_616.0;

/// A whole number in JSON, where 42.0 is 42.
pub(super) fn whole(number: &Number) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within")]
    let whole = |float: f64| {
        (float.fract() == 0.0 && (0.0..U64_END).contains(&float)).then_some(float as u64)
    };
    number.as_u64().or_else(|| number.as_f64().and_then(whole))
}

fn with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, with_whole_numbers(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Problem::new(status, "Cannot be written", error.to_string()).into_response()
            }
        }
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        expect_type(request.headers(), &["application/json"])?;
        read_object(request).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for MergePatch {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        expect_type(request.headers(), &["application/merge-patch+json", "application/json"])?;
        let patch: Map<String, Value> = read_object(request).await?;
        let members = patch.into_iter().map(|(name, value)| (name, with_whole_numbers(value)));
        Ok(Self(members.collect()))
    }
}

impl FromRequest<Arc<AdminState>> for Csv {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<AdminState>) -> Result<Self, Problem> {
        expect_type(request.headers(), &["text/csv"])?;
        let turn = Arc::clone(&state.imports).try_acquire_owned();
        let turn = turn.map_err(|_| Problem::busy("Another file is being read; try again."))?;
        if let Some(lifetime) = request.extensions().get::<Lifetime>() {
            lifetime.extend();
        }
        let body = read(request.into_body(), CSV_BYTES_MAX, CSV_PATIENCE).await?;
        let text = String::from_utf8(body.into());
        let text = text.map_err(|_| Problem::bad_request("The body is no UTF-8."))?;
        Ok(Self { text, turn })
    }
}

/// Parameters of the type, such as the character set, are not looked at.
fn expect_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
    let is_wanted = |given: &str| wanted.iter().any(|wanted| given.eq_ignore_ascii_case(wanted));
    if media_type(headers).is_some_and(is_wanted) {
        return Ok(());
    }
    let detail = format!("Say \"Content-Type: {}\" and send such a body.", wanted[0]);
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail))
}

/// What the body is said to be, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim())
}

async fn read_object<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let body = read(request.into_body(), JSON_BYTES_MAX, JSON_PATIENCE).await?;
    // To serde, an array may be an object whose members have lost their names.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::bad_request("The body must be a JSON object."));
    }
    let value = serde_json::from_slice(&body);
    value.map_err(|error| Problem::bad_request(format!("The body: {error}.")))
}

async fn read(body: Body, bytes_max: usize, patience: Duration) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A body here has at most {bytes_max} bytes.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", detail)
    };
    // What is said to be too large is not waited for.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let Ok(read) = tokio::time::timeout(patience, to_bytes(body, bytes_max)).await else {
        let detail = format!("The body took longer than {} s.", patience.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Too slow", detail));
    };
    read.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return too_large();
            }
            cause = error.source();
        }
        Problem::bad_request(format!("The body broke off: {error}."))
    })
}
