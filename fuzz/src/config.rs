//! Any text as simcast.toml: no panic; each mistake is on a line of the text; and what is taken
//! holds together.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use simcast::config::Config;

fuzz_target!(|text: &str| {
    // Files that it names are not there.
    match Config::from_toml(text, Path::new("/nonexistent")) {
        Ok(config) => {
            assert!(config.validate().is_ok());
            assert!(!config.listeners.is_empty(), "a broker that listens nowhere");
        }
        Err(errors) => {
            assert!(!errors.mistakes.is_empty());
            let lines = text.split('\n').count();
            for mistake in &errors.mistakes {
                // Of what is too deep the parser does not know where it began.
                let deep = mistake.key.is_empty() && mistake.message.contains("too deep");
                let line = mistake.line.or(deep.then_some(1));
                assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "where? {mistake}");
                assert!(!mistake.message.is_empty());
            }
        }
    }
});
