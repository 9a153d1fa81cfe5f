//! Refusals: every way a message or a subscription can break the provisioning rules, by name.
//!
//! One table holds all there is to say about a refusal: its variant, the name that metrics, audit
//! log and Reason Strings carry, the MQTT 5 reason code, and a sentence for whoever reads it.

use std::fmt;

use crate::mqtt::ReasonCode;

macro_rules! refusals {
    ($($variant:ident $name:literal $code:ident $explain:literal;)+) => {
        /// Why the control unit refuses a message or a subscription. Nothing refused is ever
        /// delivered to anyone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Refusal {
            $(#[doc = $explain] $variant,)+
        }

        impl Refusal {
            /// Every refusal there is, for metrics that must exist before they are needed.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in metrics, audit log and Reason String.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What MQTT 5 is told in PUBACK, PUBREC or SUBACK.
            #[must_use]
            pub fn reason_code(self) -> ReasonCode {
                match self {
                    $(Self::$variant => ReasonCode::$code,)+
                }
            }

            /// One sentence that says what to do about it.
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self {
                    $(Self::$variant => $explain,)+
                }
            }
        }
    };
}

refusals! {
    RoleNotPermitted "role_not_permitted" NotAuthorized
        "Only a device or server may use these topics; a server stands in [listener.tls] servers.";
    SubscriptionNotPermitted "subscription_not_permitted" NotAuthorized
        "A device subscribes to To_eUICC as it stands, a server to To_SM-SR; use that filter.";
    RetainNotPermitted "retain_not_permitted" ImplementationSpecificError
        "Provisioning messages are never retained; publish without the retain flag.";
    TooLarge "too_large" QuotaExceeded
        "The message is larger than the control unit takes; split the body into several messages.";
    UnreadableEnvelope "unreadable_envelope" PayloadFormatInvalid
        "No JSON object or CBOR map with nid, gid, type and body, each once; or one of its \
         optional members, or the property wave, is wrong or too long (tid and campaign: at most \
         64 bytes).";
    UnknownType "unknown_type" PayloadFormatInvalid
        "Use trigger, msg, ret(trigger), ret(msg), req(n) or profile(n) as type.";
    BadEid "bad_eid" PayloadFormatInvalid
        "The nid is no valid EID (32 digits, 1 modulo 97) or number; check the digits.";
    WrongTopic "wrong_topic" TopicNameInvalid
        "This type does not belong on this topic; publish it on the other provisioning topic.";
    ServerTypeFromDevice "server_type_from_device" NotAuthorized
        "Only a server sends this type on this topic; a device must not.";
    DeviceTypeFromServer "device_type_from_server" NotAuthorized
        "Only a device sends this type on this topic; a server must not.";
    BothZero "both_zero" PayloadFormatInvalid
        "The message names nobody; set either nid or gid.";
    BothNonzero "both_nonzero" PayloadFormatInvalid
        "Only req and profile name both a device and a group; set the other number to 0.";
    ExchangeNeedsBoth "exchange_needs_both" PayloadFormatInvalid
        "req and profile name the other device and the common group; set both nid and gid.";
    NotRegistered "not_registered" NotAuthorized
        "The publishing device is not in the registry; import it first.";
    UnknownNid "unknown_nid" ImplementationSpecificError
        "No such device in the registry; import it first.";
    UnknownGid "unknown_gid" ImplementationSpecificError
        "No such group, or it has no members; put devices into it first.";
    OutOfScope "out_of_scope" NotAuthorized
        "The device or group is not in the server's scope; leave it to the server in charge of it.";
    SpoofedNid "spoofed_nid" NotAuthorized
        "The nid is not the publisher's own; a device speaks for itself alone.";
    ForeignGid "foreign_gid" NotAuthorized
        "The publisher is no member of that group; use one of its own groups.";
    WrongPeer "wrong_peer" NotAuthorized
        "The number in req(n) or profile(n) is the publisher's own; put that number there.";
    SamePeer "same_peer" PayloadFormatInvalid
        "A device exchanges profiles with another device; name another one as nid.";
    CrossGroupExchange "cross_group_exchange" NotAuthorized
        "Both devices of an exchange must be members of its group; choose a common group.";
    ModeNotPermitted "mode_not_permitted" NotAuthorized
        "The mode setting forbids this form of address; use the single or the group form instead.";
    InitiatorNotPermitted "initiator_not_permitted" NotAuthorized
        "The initiator setting gives the first step to the other side; wait for its trigger.";
    PeerNotPermitted "peer_not_permitted" NotAuthorized
        "The peer setting does not permit this exchange; it may need a server's trigger first.";
    OptionMisplaced "option_misplaced" PayloadFormatInvalid
        "parts and wave belong to group messages, chunks to msg, reinstate to a server's trigger.";
    UnreadableParts "unreadable_parts" PayloadFormatInvalid
        "The body is not {\"parts\": {nid: …}, \"common\": …} with each device once; correct it.";
    ForeignPart "foreign_part" ImplementationSpecificError
        "A part is for a device that is no member of the group; leave it out.";
    SrcReserved "src_reserved" PayloadFormatInvalid
        "The member src is the broker's, which writes the proven sender there; leave it out.";
    ConsentMissing "consent_missing" NotAuthorized
        "The device has not agreed; trigger it and wait for its ret(trigger) with rc 0.";
    TriggerRate "trigger_rate" QuotaExceeded
        "Too many triggers or requests lately; wait as long as told and try again.";
    TooLargeForDevice "too_large_for_device" QuotaExceeded
        "A receiver takes no packet of this size; add \"chunks\": true, or send less at a time.";
    DeviceReplaced "device_replaced" NotAuthorized
        "This device has given its profile to another one; reinstate it first.";
    ConditionsDiffer "conditions_differ" NotAuthorized
        "The two devices do not have the labels in common that this group's exchanges need.";
    ProofMissing "proof_missing" NotAuthorized
        "The body lacks the old eUICC's signed delete notification; put it there.";
    ProofInvalid "proof_invalid" NotAuthorized
        "The delete notification does not prove that this eUICC deleted its profile, or was used.";
    UnsolicitedAnswer "unsolicited_answer" ImplementationSpecificError
        "No request waits for this answer; nobody asked, or it was too long ago.";
    LateAnswer "late_answer" ImplementationSpecificError
        "The request was given up before this answer came; the server must ask again.";
    DuplicateAnswer "duplicate_answer" ImplementationSpecificError
        "This device has answered that request already; answer once.";
    ExchangeAlreadyOpen "exchange_already_open" ImplementationSpecificError
        "The same exchange is still open; wait for its profile or its end.";
    ExchangeRepeated "exchange_repeated" ImplementationSpecificError
        "The profile of this exchange was delivered already; send it once.";
    ExchangeLate "exchange_late" ImplementationSpecificError
        "The exchange was over before the profile came; the new device must ask again.";
    ExchangeUnsolicited "exchange_unsolicited" ImplementationSpecificError
        "The other device has not asked for this profile in this group.";
    OverQuota "over_quota" QuotaExceeded
        "The receiver's mail, or what may be open at a time, is full; try again when it drained.";
}

impl Refusal {
    /// The publisher claimed to be somebody else: closes an MQTT 3.1.1 connection, which cannot be
    /// told otherwise.
    #[must_use]
    pub fn is_identity_violation(self) -> bool {
        self == Self::SpoofedNid || self == Self::ForeignGid
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rsp::envelope::{CAMPAIGN_BYTES_MAX, TID_BYTES_MAX};

    #[test]
    fn names_are_unique_snake_case_and_explained() {
        let names: HashSet<_> = Refusal::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert!(refusal.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(refusal.explain().ends_with('.'), "{refusal}");
            assert!(refusal.reason_code().is_error(), "{refusal}");
        }
    }

    #[test]
    fn who_writes_too_long_a_member_is_told_its_bound() {
        assert_eq!(TID_BYTES_MAX, CAMPAIGN_BYTES_MAX, "one bound is told for both");
        let bound = format!("(tid and campaign: at most {TID_BYTES_MAX} bytes)");
        assert!(Refusal::UnreadableEnvelope.explain().contains(&bound));
    }

    #[test]
    fn only_false_claims_of_identity_close_a_connection() {
        let closing: Vec<_> =
            Refusal::ALL.iter().filter(|r| r.is_identity_violation()).map(|r| r.name()).collect();
        assert_eq!(closing, ["spoofed_nid", "foreign_gid"]);
    }
}
