//! Any ACL file and any client: no panic; mistakes have lines, in order; and what is said of a
//! whole filter is true of each topic below it.
//!
//! The input is a user name, a client id, a filter, a topic and the file, with a NUL between them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use simcast::auth::{Acl, Rights};
use simcast::mqtt::topic;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(5, |byte| *byte == 0);
    let mut text = || parts.next().map(String::from_utf8_lossy);
    let (Some(user), Some(client_id), Some(filter), Some(name)) = (text(), text(), text(), text())
    else {
        return;
    };
    let Some(file) = parts.next() else { return };
    let acl = match Acl::parse(file) {
        Ok(acl) => acl,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(mistakes.is_sorted_by(|a, b| a.line < b.line), "one mistake a line, in order");
            let lines = file.split(|byte| *byte == b'\n').count();
            assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line)));
            return;
        }
    };
    if topic::validate_filter(&filter).is_err() || topic::validate_name(&name).is_err() {
        return;
    }
    for user in [Some(&*user), None] {
        agree(&acl.rights(user, &client_id), &filter, &name);
    }
    let again = Acl::parse(&[file, b"\n# no more\n"].concat()).expect("a comment is no mistake");
    let (rights, same) = (acl.rights(Some(&user), &client_id), again.rights(Some(&user), &client_id));
    assert_eq!(rights.may_read(&name), same.may_read(&name));
    assert_eq!(rights.may_write(&name), same.may_write(&name));
});

/// Deciding on a filter as a whole and on each message comes to the same.
fn agree(rights: &Rights, filter: &str, name: &str) {
    let (covers, overlaps) = (rights.covers(filter), rights.overlaps(filter));
    assert!(overlaps || !covers, "what is covered is something");
    if topic::matches(filter, name) {
        assert!(rights.may_read(name) || !covers, "covered, and may not be read");
        assert!(overlaps || !rights.may_read(name), "may be read, and is not seen");
    }
}
