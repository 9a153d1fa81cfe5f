//! What is known twice is the same, in tests.

use super::Mail;

impl Mail {
    /// What rolls and mailboxes know of letters on their way is the same.
    pub(in crate::rsp) fn expect_agreement(&self) {
        for (index, mailbox) in self.boxes.iter().enumerate() {
            let index = u32::try_from(index).unwrap();
            let has_taken = |id| mailbox.as_ref().is_some_and(|mailbox| mailbox.has_taken(id));
            for letter in self.logs.values().flat_map(|log| &log.letters) {
                let expected = letter.roll.is_pending(index) && has_taken(letter.id);
                assert_eq!(letter.roll.is_out_to(index), expected, "{index} {}", letter.id);
            }
        }
    }
}
