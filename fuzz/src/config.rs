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
                let line = mistake.line.unwrap_or_else(|| panic!("no line: {mistake}"));
                assert!((1..=lines).contains(&line), "{line} of {lines}: {mistake}");
                assert!(!mistake.message.is_empty());
            }
        }
    }
});
