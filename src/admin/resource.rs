//! What a resource of the API consists of: its operations, and their description.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, on};

use super::AdminState;
use super::auth::no_form;

/// The operations of one resource.
pub(super) struct Resource {
    /// Its part of the OpenAPI document: `paths` and `schemas`.
    pub(super) description: &'static str,
    /// Method and path of each.
    pub(super) operations: Vec<(Method, &'static str)>,
    pub(super) router: Router<Arc<AdminState>>,
}

impl Resource {
    pub(super) fn new(description: &'static str) -> Self {
        Self { description, operations: Vec::new(), router: Router::new() }
    }

    /// One operation more. Whatever is no GET changes something: it needs the right to.
    pub(super) fn on<H, T>(mut self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<AdminState>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method of HTTP");
        let mut guarded = on(filter, handler);
        if method == Method::POST {
            guarded = guarded.route_layer(from_fn(no_form));
        }
        self.operations.push((method, path));
        Self { router: self.router.route(path, guarded), ..self }
    }
}
