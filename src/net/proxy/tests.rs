//! Headers of both versions: whole, cut, damaged, foreign.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

/// A header of version 2 with the right length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &len, rest].concat()
}

/// A record of an extension.
fn record(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// What a proxy says of TLS.
fn tls(client: u8, verify: u32, name: Option<&[u8]>) -> Vec<u8> {
    let name = name.map(|name| record(TYPE_TLS_COMMON_NAME, name)).unwrap_or_default();
    let version = record(0x21, b"TLSv1.3");
    record(TYPE_TLS, &[&[client][..], &verify.to_be_bytes(), &version, &name].concat())
}

const IPV4: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0x22, 0xb3];

/// Over TCP with IPv4 addresses and these extensions.
fn over_ipv4(extensions: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&IPV4, extensions].concat())
}

fn peer(text: &str) -> Option<Peer> {
    Some(Peer::Tcp(text.parse().unwrap()))
}

/// Reads a header that comes in pieces of this length, with something behind it; that must be
/// there afterwards.
async fn read_in_pieces(
    header: &[u8],
    version: ProxyProtocol,
    piece: usize,
) -> Result<Proxied, ProxyError> {
    const BEHIND: &[u8] = b"\x10behind";
    let (mut near, mut far) = tokio::io::duplex(piece);
    let sent = [header, BEHIND].concat();
    let writing = tokio::spawn(async move {
        // Whoever is refused is not read to the end.
        let _taken_or_not = far.write_all(&sent).await;
    });
    let result = read(&mut near, version).await;
    if result.is_ok() {
        let mut behind = Vec::new();
        near.read_to_end(&mut behind).await.unwrap();
        assert_eq!(behind, BEHIND, "not a byte of what follows is taken");
    }
    drop(near);
    writing.await.unwrap();
    result
}

#[tokio::test]
async fn headers_of_version_1() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1234 8883\r\n", peer("192.0.2.1:1234")),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", peer("1.1.1.1:0")),
        ("PROXY TCP6 2001:db8::1 ::1 65535 1\r\n", peer("[2001:db8::1]:65535")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    ] {
        for piece in [1, 2, 7, 1000] {
            let read = read_in_pieces(line.as_bytes(), ProxyProtocol::V1, piece).await.unwrap();
            assert_eq!(read, Proxied { peer: expected, tls: None }, "{line}");
        }
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
    assert_eq!(longest.len(), V1_BYTES_MAX);
    assert!(read_in_pieces(longest.as_bytes(), ProxyProtocol::V1, 1000).await.is_ok());
}

#[tokio::test]
async fn what_is_no_header_of_version_1() {
    // case P29
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234 8883 9\r\n",
        "PROXY TCP4 192.0.2.1  192.0.2.2 1234 8883\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1234 8883\r\n",
        "PROXY TCP4 192.0.2.1 x 1234 8883\r\n",
        "PROXY TCP4 ::1 ::1 1234 8883\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1234 8883\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01234 8883\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 8883\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 8883\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1234 8883\r\n",
        "PROXY UNKNOWNS and more\r\n",
        "PROXY \u{e4}\u{f6}\u{fc}\u{e4}\u{f6}\u{fc}\u{e4}\r\n",
    ] {
        let error = read_in_pieces(line.as_bytes(), ProxyProtocol::V1, 1000).await.unwrap_err();
        assert!(matches!(error, Malformed(_)), "{line}: {error}");
    }
    let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 15));
    let error = read_in_pieces(too_long.as_bytes(), ProxyProtocol::V1, 1000).await.unwrap_err();
    assert!(matches!(error, ProxyError::TooLong(V1_BYTES_MAX)), "{error}");
    let error = read_in_pieces(&over_ipv4(&[]), ProxyProtocol::V1, 1000).await.unwrap_err();
    assert!(matches!(error, ProxyError::OtherVersion(2)), "{error}");
    let error = read_in_pieces(b"\x10\x0d\0\x04MQTT", ProxyProtocol::V1, 1).await.unwrap_err();
    assert!(matches!(error, ProxyError::Missing), "{error}");
}

#[tokio::test]
async fn headers_of_version_2() {
    let ipv6 = [[0x20; 16], [0; 16]].concat();
    let ipv6 = [&ipv6[..], &[0, 80, 0, 81]].concat();
    for (header, expected) in [
        (over_ipv4(&[]), peer("10.0.0.1:4660")),
        (over_ipv4(&record(0xE0, b"of our own")), peer("10.0.0.1:4660")),
        (v2(0x21, 0x21, &ipv6), peer("[2020:2020:2020:2020:2020:2020:2020:2020]:80")),
        (v2(0x21, 0x31, &[0; 216]), Some(Peer::Unix)),
        (v2(0x21, 0x00, b""), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, b"LOCAL: nobody looks at this"), None),
    ] {
        for piece in [1, 3, 15, 1000] {
            let read = read_in_pieces(&header, ProxyProtocol::V2, piece).await.unwrap();
            assert_eq!(read, Proxied { peer: expected, tls: None });
        }
    }
}

#[tokio::test]
async fn what_is_no_header_of_version_2() {
    // case P29
    let cases = [
        v2(0x11, 0x11, &IPV4),
        v2(0x22, 0x11, &IPV4),
        v2(0x21, 0x12, &IPV4),
        v2(0x21, 0x41, &IPV4),
        v2(0x21, 0x11, &IPV4[1..]),
        v2(0x21, 0x21, &IPV4),
        v2(0x21, 0x31, &[0; 215]),
        over_ipv4(&[0xE0]),
        over_ipv4(&[0xE0, 0]),
        over_ipv4(&[0xE0, 0, 1]),
        over_ipv4(&record(TYPE_TLS, &[1, 0, 0, 0])),
        over_ipv4(&record(TYPE_TLS, &[1, 0, 0, 0, 0, 0x22, 0, 9])),
        over_ipv4(&tls(7, 0, Some(b"\xff"))),
        over_ipv4(&[tls(7, 0, None), tls(7, 0, None)].concat()),
        over_ipv4(&record(TYPE_CRC32C, &[0; 4])),
        over_ipv4(&record(TYPE_CRC32C, &[0; 3])),
    ];
    for header in cases {
        let error = read_in_pieces(&header, ProxyProtocol::V2, 1000).await.unwrap_err();
        assert!(matches!(error, Malformed(_)), "{error}: {header:02x?}");
    }
    let large = record(0xE0, &vec![0; 65_535 - 12 - 3]);
    let error = read_in_pieces(&over_ipv4(&large), ProxyProtocol::V2, 1000).await.unwrap_err();
    assert!(matches!(error, ProxyError::TooLong(_)), "64 KB: {error}");
    let line = b"PROXY UNKNOWN\r\n";
    let error = read_in_pieces(line, ProxyProtocol::V2, 1).await.unwrap_err();
    assert!(matches!(error, ProxyError::OtherVersion(1)), "{error}");
    let error = read_in_pieces(b"\r\n\r\nGET", ProxyProtocol::V2, 1).await.unwrap_err();
    assert!(matches!(error, ProxyError::Missing), "{error}");
}

#[test]
fn a_name_counts_only_if_the_proxy_has_verified_the_certificate() {
    let name_of = |client, verify, name| {
        let read = parse_v2(&over_ipv4(&tls(client, verify, name))).unwrap();
        read.tls.map(|tls| tls.certificate.map(|facts| facts.common_names))
    };
    let device = Some(vec!["device".to_owned()]);
    assert_eq!(name_of(0x01 | 0x02, 0, Some(b"device")), Some(device.clone()));
    assert_eq!(name_of(0x01 | 0x04, 0, Some(b"device")), Some(device.clone()));
    assert_eq!(name_of(0x07, 0, Some(b"device")), Some(device));
    assert_eq!(name_of(0x07, 1, Some(b"device")), Some(None), "not verified");
    assert_eq!(name_of(0x01, 0, Some(b"device")), Some(None), "no certificate");
    assert_eq!(name_of(0x07, 0, Some(b"")), Some(None), "no name");
    assert_eq!(name_of(0x07, 0, None), Some(None));
    assert_eq!(name_of(0x06, 0, Some(b"device")), None, "no TLS");
    // LOCAL is the proxy itself, whatever else it writes.
    let local = v2(0x20, 0x11, &[&IPV4[..], &tls(0x07, 0, Some(b"device"))].concat());
    assert_eq!(parse_v2(&local).unwrap(), Proxied::default());
}

#[test]
fn a_checksum_is_checked() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283, "the polynomial's check value");
    let mut header = over_ipv4(&[tls(1, 1, None), record(TYPE_CRC32C, &[0; 4])].concat());
    let sum = crc32c(header.iter().copied());
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum.to_be_bytes());
    assert!(parse_v2(&header).is_ok());
    header[20] ^= 1;
    assert!(parse_v2(&header).is_err());
}

#[tokio::test]
async fn a_header_that_is_cut_anywhere_is_never_taken() {
    // case P29
    let v1 = b"PROXY TCP6 2001:db8::1 ::1 65535 1\r\n".to_vec();
    let v2 = over_ipv4(&tls(7, 0, Some(b"device")));
    for (header, version) in [(v1, ProxyProtocol::V1), (v2, ProxyProtocol::V2)] {
        for end in 0..header.len() {
            let error = read(&mut &header[..end], version).await.unwrap_err();
            assert!(matches!(error, ProxyError::Closed), "cut at {end}: {error}");
        }
        assert!(read(&mut &header[..], version).await.is_ok());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_header_or_an_error(
        command: u8,
        family: u8,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        line in "PROXY (TCP4|TCP6|UNKNOWN)?[ 0-9a-f:.]{0,60}\r\n",
    ) {
        let _header_or_error = parse_v2(&v2(0x20 | command & 1, family, &rest));
        let _header_or_error = parse_v1(line.as_bytes());
        let _header_or_error = parse_v1(&rest);
    }

    #[test]
    fn what_a_proxy_says_is_read(
        address: [u8; 4],
        port: u16,
        name in "[a-z0-9 .]{1,64}",
        verify in 0u32..2,
        extra in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut block = IPV4;
        block[..4].copy_from_slice(&address);
        block[8..10].copy_from_slice(&port.to_be_bytes());
        let extensions = [record(0xEA, &extra), tls(7, verify, Some(name.as_bytes()))].concat();
        let read = parse_v2(&v2(0x21, 0x11, &[&block[..], &extensions].concat())).unwrap();
        prop_assert_eq!(read.peer, Some(Peer::Tcp((address, port).into())));
        let names = read.tls.unwrap().certificate.map(|facts| facts.common_names);
        prop_assert_eq!(names, (verify == 0).then(|| vec![name]));
        let [a, b, c, d] = address;
        let line = format!("PROXY TCP4 {a}.{b}.{c}.{d} 10.0.0.2 {port} 8883\r\n");
        prop_assert_eq!(parse_v1(line.as_bytes()).unwrap().peer, read.peer);
    }
}
