//! Property blocks: every property in every packet, repeated, cut and with impossible values.

use simcast::mqtt::property::Property;
use simcast::mqtt::{DecodeError, ReasonCode};

use crate::build::{Place, varint};

/// Table 2-4 of the standard once more, from the properties' side: where each may stand, and a
/// value it may have there.
fn table(property: Property) -> (&'static [Place], &'static [u8]) {
    use Place::{
        Auth, ConnAck, Connect, Disconnect, PubAck, PubComp, PubRec, PubRel, PublishIn, PublishOut,
        SubAck, Subscribe, UnsubAck, Unsubscribe, Will,
    };
    const TEXT: &[u8] = b"\0\x01t";
    match property {
        Property::PayloadFormatIndicator => (&[PublishIn, PublishOut, Will], &[1]),
        Property::MessageExpiryInterval => (&[PublishIn, PublishOut, Will], &[0, 0, 0, 0]),
        Property::ContentType | Property::ResponseTopic | Property::CorrelationData => {
            (&[PublishIn, PublishOut, Will], TEXT)
        }
        Property::SubscriptionIdentifier => (&[PublishOut, Subscribe], &[0x80, 0x01]),
        Property::SessionExpiryInterval => (&[Connect, ConnAck, Disconnect], &[0, 0, 0, 0]),
        Property::AssignedClientIdentifier => (&[ConnAck], TEXT),
        Property::ServerKeepAlive => (&[ConnAck], &[0, 0]),
        Property::AuthenticationMethod | Property::AuthenticationData => {
            (&[Connect, ConnAck, Auth], TEXT)
        }
        Property::RequestProblemInformation => (&[Connect], &[0]),
        Property::WillDelayInterval => (&[Will], &[0, 0, 0, 0]),
        Property::RequestResponseInformation => (&[Connect], &[1]),
        Property::ResponseInformation => (&[ConnAck], TEXT),
        Property::ServerReference => (&[ConnAck, Disconnect], TEXT),
        Property::ReasonString => {
            (&[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth], TEXT)
        }
        Property::ReceiveMaximum => (&[Connect, ConnAck], &[0, 1]),
        Property::TopicAliasMaximum => (&[Connect, ConnAck], &[0, 0]),
        Property::TopicAlias => (&[PublishIn, PublishOut], &[0xFF, 0xFF]),
        Property::MaximumQoS => (&[ConnAck], &[1]),
        Property::RetainAvailable => (&[ConnAck], &[0]),
        Property::UserProperty => (
            &[
                Connect,
                Will,
                ConnAck,
                PublishIn,
                PublishOut,
                PubAck,
                PubRec,
                PubRel,
                PubComp,
                Subscribe,
                SubAck,
                Unsubscribe,
                UnsubAck,
                Disconnect,
                Auth,
            ],
            b"\0\x01k\0\x01v",
        ),
        Property::MaximumPacketSize => (&[Connect, ConnAck], &[0, 0, 0, 1]),
        Property::WildcardSubscriptionAvailable
        | Property::SubscriptionIdentifierAvailable
        | Property::SharedSubscriptionAvailable => (&[ConnAck], &[0]),
    }
}

/// One property on the wire.
fn property(id: Property, value: &[u8]) -> Vec<u8> {
    [&[id as u8][..], value].concat()
}

/// What has to stand beside a property so that it alone decides.
fn companion(place: Place, id: Property) -> Vec<u8> {
    let method = property(Property::AuthenticationMethod, b"\0\x01m");
    match (place, id) {
        (_, Property::AuthenticationMethod) => Vec::new(),
        (Place::Auth, _) => method,
        (Place::Connect | Place::ConnAck, Property::AuthenticationData) => method,
        _ => Vec::new(),
    }
}

// case P11
#[test]
fn each_property_stands_where_the_standard_puts_it_and_once() {
    let (mut allowed, mut forbidden) = (0, 0);
    for id in Property::ALL {
        let (places, value) = table(id);
        let one = property(id, value);
        for place in Place::ALL {
            let once = place.decode(&[companion(place, id), one.clone()].concat());
            if !places.contains(&place) {
                forbidden += 1;
                let error = match (place, id) {
                    (Place::PublishIn, Property::SubscriptionIdentifier) => {
                        DecodeError::SubscriptionIdFromClient
                    }
                    _ => DecodeError::PropertyNotAllowed(id),
                };
                assert_eq!(once, Err(error), "{id:?} in {place:?}");
                continue;
            }
            allowed += 1;
            assert!(once.is_ok(), "{id:?} in {place:?}: {once:?}");
            let twice = place.decode(&[companion(place, id), one.clone(), one.clone()].concat());
            let repeatable = id == Property::UserProperty
                || (place, id) == (Place::PublishOut, Property::SubscriptionIdentifier);
            if repeatable {
                assert!(twice.is_ok(), "{id:?} in {place:?}: {twice:?}");
            } else {
                assert_eq!(twice, Err(DecodeError::PropertyRepeated(id)), "{place:?}");
            }
        }
    }
    assert_eq!((allowed, allowed + forbidden), (71, 27 * 15));
}

// case P11
#[test]
fn unknown_properties_are_malformed() {
    let known: Vec<_> = Property::ALL.iter().map(|&id| id as usize).collect();
    for place in Place::ALL {
        for id in (0..300).filter(|id| !known.contains(id)) {
            let error = place.decode(&[varint(id), vec![0; 8]].concat());
            assert_eq!(error, Err(DecodeError::PropertyUnknown(id)), "{place:?}");
        }
    }
    assert_eq!(DecodeError::PropertyUnknown(0).reason(), ReasonCode::MalformedPacket);
}

// case P10
#[test]
fn a_block_ends_with_its_last_property() {
    for id in Property::ALL {
        let (places, value) = table(id);
        for &place in places {
            let full = [companion(place, id), property(id, value)].concat();
            for cut in full.len() - value.len()..full.len() {
                let error = place.decode(&full[..cut]);
                assert_eq!(error, Err(DecodeError::Truncated), "{id:?} in {place:?} at {cut}");
            }
        }
    }
}

// case P10
#[test]
fn a_block_ends_inside_its_packet() {
    for place in Place::ALL {
        let user = property(Property::UserProperty, b"\0\x01k\0\x01v");
        for claimed in [user.len() + 20, 127, 128, 16_384, 268_435_455] {
            let block = [varint(claimed), user.clone()].concat();
            let error = place.decode_block(&block);
            assert_eq!(error, Err(DecodeError::Truncated), "{claimed} in {place:?}");
        }
        for len in [&[0x80, 0x00][..], &[0x87, 0x80, 0x00]] {
            let error = place.decode_block(&[len, &user].concat());
            assert_eq!(error, Err(DecodeError::VarintNotMinimal), "{place:?}");
        }
        let error = place.decode_block(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
        assert_eq!(error, Err(DecodeError::VarintTooLong), "{place:?}");
    }
}

// case P12
#[test]
fn zero_is_no_value_for_some() {
    let value = DecodeError::PropertyValue;
    let zeros: [(Property, &[u8], DecodeError); 4] = [
        (Property::ReceiveMaximum, &[0, 0], value(Property::ReceiveMaximum)),
        (Property::MaximumPacketSize, &[0; 4], value(Property::MaximumPacketSize)),
        (Property::SubscriptionIdentifier, &[0], value(Property::SubscriptionIdentifier)),
        (Property::TopicAlias, &[0, 0], DecodeError::TopicAliasZero),
    ];
    for (id, zero, error) in zeros {
        for &place in table(id).0 {
            assert_eq!(place.decode(&property(id, zero)), Err(error), "{place:?}");
        }
    }
    assert_eq!(DecodeError::TopicAliasZero.reason(), ReasonCode::TopicAliasInvalid);
    assert_eq!(value(Property::ReceiveMaximum).reason(), ReasonCode::ProtocolError);
}

#[test]
fn a_boolean_is_0_or_1() {
    let booleans = [
        Property::PayloadFormatIndicator,
        Property::RequestProblemInformation,
        Property::RequestResponseInformation,
        Property::MaximumQoS,
        Property::RetainAvailable,
        Property::WildcardSubscriptionAvailable,
        Property::SubscriptionIdentifierAvailable,
        Property::SharedSubscriptionAvailable,
    ];
    for id in booleans {
        for &place in table(id).0 {
            for byte in 0..=255 {
                let decoded = place.decode(&property(id, &[byte]));
                if byte < 2 {
                    assert!(decoded.is_ok(), "{id:?} {byte}");
                } else {
                    assert_eq!(decoded, Err(DecodeError::PropertyValue(id)), "{byte}");
                }
            }
        }
    }
}

#[test]
fn authentication_data_needs_its_method() {
    let data = property(Property::AuthenticationData, b"\0\x01d");
    for place in [Place::Connect, Place::ConnAck, Place::Auth] {
        assert_eq!(place.decode(&data), Err(DecodeError::AuthDataWithoutMethod), "{place:?}");
    }
    assert_eq!(Place::Auth.decode(b""), Err(DecodeError::AuthMethodMissing));
}
