//! Any password file: no panic; mistakes have lines, in order; and a stored password that is taken
//! is written as one that is taken for the same.
//!
//! No password is checked here: hashing would take all the time there is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use simcast::auth::{Disguise, Passwords, Stored, check_user_name};

fuzz_target!(|file: &[u8]| {
    let lines = file.split(|byte| *byte == b'\n').count();
    let users = match Passwords::parse(file, &Disguise::new(&[1; 32])) {
        Ok(users) => users,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(mistakes.is_sorted_by_key(|mistake| mistake.line));
            assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line)));
            return;
        }
    };
    assert!(users.len() <= lines);
    let text = std::str::from_utf8(file).map_or("", |text| text);
    let mut known = 0;
    for line in text.split('\n').filter(|line| !line.starts_with('#')) {
        let Some((name, stored)) = line.split_once(':') else { continue };
        let (name, stored) = (name.trim_ascii(), stored.trim_ascii());
        check_user_name(name).expect("the file was taken");
        let stored = Stored::parse(stored).expect("the file was taken");
        assert!(Stored::parse(&stored.encoded()) == Ok(stored), "written otherwise than read");
        assert!(users.mark(name).is_some());
        known += 1;
    }
    assert!(known == users.len() || text.is_empty(), "a line is one user");
});
