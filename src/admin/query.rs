//! What stands in the address of a request: names in its path, fields behind the `?`.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::extract::path::Path as AxumPath;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::page::Window;
use super::problem::Problem;

/// The fields behind the `?`, as a type that knows all of them: an unknown one is refused.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

/// The names in the path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

/// A type that can be read from fields.
pub(super) trait FromFields: Sized {
    /// Takes the fields that it knows.
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem>;
}

/// No field at all.
#[derive(Debug)]
pub(super) struct NoFields;

/// Names and values that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl FromFields for NoFields {
    fn from_fields(_fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self)
    }
}

impl Fields {
    fn read(query: &str) -> Result<Self, Problem> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_decode_str(&text).decode_utf8();
            text.map(Into::into).map_err(|_| Problem::bad_request("A field is no UTF-8."))
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a field, if it is there; `expected` says what it has to be.
    pub(super) fn take<V: FromStr>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<V>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        let value = value.parse().map(Some);
        value.map_err(|_| Problem::bad_request(format!("`{name}` must be {expected}.")))
    }

    /// `true` or `false`, if it is there.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        self.take(name, "true or false")
    }

    /// One of several values by its name, if it is there.
    pub(super) fn one_of<V: Copy>(
        &mut self,
        name: &str,
        all: &[V],
        name_of: impl Fn(V) -> &'static str,
    ) -> Result<Option<V>, Problem> {
        let Some(given) = self.take::<String>(name, "a text")? else { return Ok(None) };
        let known = all.iter().copied().find(|value| name_of(*value) == given);
        known.map(Some).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|value| name_of(*value)).collect();
            Problem::bad_request(format!("`{name}` must be one of {}.", names.join(", ")))
        })
    }

    /// Which part of a list is wanted.
    pub(super) fn window(&mut self) -> Result<Window, Problem> {
        Window::from_fields(self)
    }

    fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Problem::bad_request(format!("`{name}` is no field here, or there twice.")))
            }
        }
    }
}

impl<T: FromFields, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut fields = Fields::read(parts.uri.query().unwrap_or_default())?;
        let known = T::from_fields(&mut fields)?;
        fields.end()?;
        Ok(Self(known))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = AxumPath::from_request_parts(parts, state).await;
        let AxumPath(names) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_once_and_none_may_be_left() {
        let mut fields = Fields::read("a=1&b=x%20y+z&&c&a=2").unwrap();
        assert_eq!(fields.take::<u8>("a", "a number").unwrap(), Some(1));
        assert_eq!(fields.take::<String>("b", "a text").unwrap(), Some("x y z".to_owned()));
        assert_eq!(fields.take::<u8>("d", "a number").unwrap(), None);
        assert!(fields.flag("c").is_err(), "nothing is neither true nor false");
        assert!(fields.end().is_err(), "a is there twice");
        assert!(Fields::read("a=%ff").is_err());
        assert!(Fields::read("").unwrap().end().is_ok());
    }
}
