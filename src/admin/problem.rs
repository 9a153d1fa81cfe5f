//! Errors of the HTTP side as problem+json (RFC 9457).

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// One error. Its type is `about:blank`: the status says it all.
#[derive(Debug)]
pub(super) struct Problem {
    /// Status of the response.
    pub(super) status: StatusCode,
    /// The same for each problem of a kind.
    pub(super) title: &'static str,
    /// What happened this time.
    pub(super) detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let header = [(CONTENT_TYPE, "application/problem+json")];
        (self.status, header, body.to_string()).into_response()
    }
}
