//! Letters whose time is over: they leave the mail, and their campaigns learn who has not got them.

use std::num::NonZeroU64;
use std::time::Duration;

use super::super::exchange::{due, pay_for};
use super::{Mail, Mailbox, Roll};
use crate::ids::{Gid, Timestamp};

/// Letters that nobody came for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredLetters {
    /// Each for one device.
    pub to_devices: u64,
    /// Each for a group, whatever the number of members it still waited for.
    pub to_groups: u64,
}

/// A campaign that lost a letter.
#[derive(Debug)]
pub(in crate::rsp) struct Bereft {
    pub(in crate::rsp) campaign: u64,
    /// Who had not got it.
    pub(in crate::rsp) whom: Receivers,
}

/// Who a letter was for.
#[derive(Debug)]
pub(in crate::rsp) enum Receivers {
    One(u32),
    All(Roll),
}

impl Mail {
    /// Puts away expired letters, at most `budget` of them; returns how many, and the campaigns
    /// they belong to. A letter its reader has taken is spared until it is acknowledged or goes
    /// back; one to a group is looked at again after [`SPARED_FOR`].
    pub(in crate::rsp) fn sweep(
        &mut self,
        now: Timestamp,
        budget: &mut usize,
    ) -> (ExpiredLetters, Vec<Bereft>) {
        let (mut expired, mut campaigns) = (ExpiredLetters::default(), Vec::new());
        while let Some((at, (id, gid))) = due(&self.group_expiries, now, budget) {
            self.group_expiries.remove(&(at, (id, gid)));
            let Some((campaign, roll)) = self.expire_in_group(gid, id, now, budget) else {
                continue;
            };
            expired.to_groups += 1;
            if campaign.is_some() {
                // It is looked through as well.
                pay_for(roll.len(), budget);
            }
            let (campaign, whom) = (campaign.map(NonZeroU64::get), Receivers::All(roll));
            campaigns.extend(campaign.map(|campaign| Bereft { campaign, whom }));
        }
        while let Some((_, index)) = due(&self.calendar, now, budget) {
            // The look at the mailbox, which is paid, is good for the first letter.
            let ids = self.mailbox(index).map(|mailbox| mailbox.expired(now, *budget + 1));
            let ids = ids.unwrap_or_default();
            *budget -= ids.len().saturating_sub(1);
            for id in ids {
                let Some(letter) = self.remove_own(index, id) else { continue };
                expired.to_devices += 1;
                let campaign = letter.campaign.filter(|id| !self.has_letter_of(index, *id));
                let whom = Receivers::One(index);
                campaigns.extend(campaign.map(|id| Bereft { campaign: id.get(), whom }));
            }
            self.reschedule(index);
        }
        (expired, campaigns)
    }

    /// Takes an expired letter from all members but those who have it on their way, for whom it
    /// stays a while. Gives its campaign, and those who have lost it, if there are some.
    fn expire_in_group(
        &mut self,
        gid: Gid,
        id: u64,
        now: Timestamp,
        budget: &mut usize,
    ) -> Option<(Option<NonZeroU64>, Roll)> {
        let letter = self.logs.get_mut(&gid)?.letter_mut(id)?;
        pay_for(letter.roll.len(), budget);
        let Some(lost) = letter.roll.leave_to_holders() else {
            let letter = self.remove_group_letter(gid, id)?;
            return Some((letter.campaign, letter.roll));
        };
        let campaign = letter.campaign;
        self.notes.moved(gid, letter);
        self.group_expiries.insert((now.after(SPARED_FOR), (id, gid)));
        (lost.remaining() > 0).then_some((campaign, lost))
    }

    /// It was sent again, and waits anew.
    fn has_letter_of(&self, index: u32, campaign: NonZeroU64) -> bool {
        let mut letters = self.mailbox(index).into_iter().flat_map(Mailbox::letters);
        letters.any(|letter| letter.campaign == Some(campaign))
    }

    /// Has the mailbox looked at when its first letter expires.
    pub(super) fn reschedule(&mut self, index: u32) {
        let Some(mailbox) = self.boxes.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        self.calendar.remove(&(mailbox.due, index));
        mailbox.due = mailbox.first_expiry();
        if mailbox.due < Timestamp::NEVER {
            self.calendar.insert((mailbox.due, index));
        }
    }
}

/// After this time it is looked who still has an expired group letter on its way.
const SPARED_FOR: Duration = Duration::from_secs(1);
