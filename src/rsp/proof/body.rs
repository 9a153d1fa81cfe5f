//! Where in an envelope the notification stands.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{PROOF_BYTES_MAX, ProofError};
use crate::rsp::{cbor, json};

/// Name of the notification among other things, as in ES9+ (SGP.22, section 6.5.2.9).
const MEMBER: &str = "pendingNotification";
/// The longest base64 of what is not too large.
const BASE64_BYTES_MAX: usize = PROOF_BYTES_MAX.div_ceil(3) * 4;

/// The body of an envelope, as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// One JSON value.
    Json(&'a str),
    /// One CBOR item.
    Cbor(&'a [u8]),
}

/// The body of an envelope that [`read`](crate::rsp::envelope::read) takes.
#[must_use]
pub fn body(payload: &[u8]) -> Option<Body<'_>> {
    match payload.first()? {
        0xa0..=0xbf => cbor::body(payload).map(Body::Cbor),
        _ => json::body(payload).map(Body::Json),
    }
}

/// The notification in a body: a JSON string in base64 or a CBOR byte string, or an object or map
/// that has it under the name `pendingNotification`, beside anything else.
///
/// # Errors
/// [`ProofError::Missing`], also where it is there twice; [`ProofError::NotBase64`] and
/// [`ProofError::TooLarge`].
pub fn extract(body: Body<'_>) -> Result<Cow<'_, [u8]>, ProofError> {
    match body {
        Body::Cbor(item) => {
            cbor::bytes_in(item, MEMBER).map(Cow::Borrowed).ok_or(ProofError::Missing)
        }
        Body::Json(value) => {
            let text = text_in(value).ok_or(ProofError::Missing)?;
            if text.len() > BASE64_BYTES_MAX {
                return Err(ProofError::TooLarge);
            }
            STANDARD.decode(&*text).map(Cow::Owned).map_err(|_error| ProofError::NotBase64)
        }
    }
}

/// A text; without escapes, it is where it was.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// serde refuses a member that is there twice.
#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "pendingNotification")]
    notification: Text<'a>,
}

fn text_in(value: &str) -> Option<Cow<'_, str>> {
    if value.starts_with('{') {
        return serde_json::from_str::<Members<'_>>(value).ok().map(|m| m.notification.0);
    }
    serde_json::from_str::<Text<'_>>(value).ok().map(|text| text.0)
}
