//! The tables held against the tests and the README.
