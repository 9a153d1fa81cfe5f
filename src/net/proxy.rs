//! The header of the PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): before
//! everything else a proxy says who has connected to it, and in version 2 what it knows of the TLS
//! it has ended.
//!
//! Parsed here, because the library at hand (`ppp`) reads neither the parts of the TLS record,
//! which are what identifies a client, nor checks the checksum.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::broker::Peer;
use crate::config::ProxyProtocol;
use crate::rsp::CertificateFacts;

/// What a proxy says of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proxied {
    /// Who has connected to the proxy; nobody when the proxy speaks for itself, or does not know.
    pub(super) peer: Option<Peer>,
    /// The TLS between the client and the proxy, where there was any.
    pub(super) tls: Option<ProxiedTls>,
}

/// What a proxy says of the TLS it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxiedTls {
    /// Names in the client's certificate, which the proxy has verified.
    pub(super) certificate: Option<CertificateFacts>,
}

/// What is wrong with a header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("no PROXY header on a listener whose `proxy_protocol` needs one")]
    Missing,
    #[error("a PROXY header of version {0}; `proxy_protocol` names the other one")]
    OtherVersion(u8),
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    #[error("a PROXY header longer than {0} bytes")]
    TooLong(usize),
    #[error("the client came to the proxy without TLS, and `proxy_require_tls` is set")]
    WithoutTls,
    #[error("closed within the PROXY header")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
}

use ProxyError::Malformed;

/// Longest header of version 1, as its definition has it.
const V1_BYTES_MAX: usize = 107;
/// Shortest one: `PROXY UNKNOWN` and the end of the line.
const V1_BYTES_MIN: usize = 15;
const V1_PREFIX: &[u8] = b"PROXY ";

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that is always there.
const V2_HEAD_BYTES: usize = 16;
/// Longest rest of version 2: addresses, and extensions for which no proxy needs a quarter of it.
const V2_REST_BYTES_MAX: usize = 4096;

const TYPE_CRC32C: u8 = 0x03;
const TYPE_TLS: u8 = 0x20;
const TYPE_TLS_COMMON_NAME: u8 = 0x22;
/// The client came over TLS.
const CLIENT_TLS: u8 = 0x01;
/// It showed a certificate, on this connection or when the TLS session began.
const CLIENT_CERTIFICATE: u8 = 0x02 | 0x04;

/// Whether bytes that are no MQTT begin like a header of either version.
pub(super) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.starts_with(V1_PREFIX) || bytes.starts_with(V2_SIGNATURE)
}

/// Reads the header and not a byte more: what follows belongs to TLS, HTTP or MQTT. Nothing where
/// the listener expects none.
///
/// # Errors
/// [`ProxyError`]; the connection is to be closed.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    version: ProxyProtocol,
) -> Result<Proxied, ProxyError> {
    match version {
        ProxyProtocol::Off => Ok(Proxied::default()),
        ProxyProtocol::V1 => read_v1(stream).await,
        ProxyProtocol::V2 => read_v2(stream).await,
    }
}

async fn read_v1<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyError> {
    let mut line = [0; V1_BYTES_MAX];
    let mut len = 0;
    while !line[..len].ends_with(b"\r\n") {
        // As many bytes as are certain to belong to the line.
        let certain = match line[..len].last() {
            Some(b'\r') => len + 1,
            _ => V1_BYTES_MIN.max(len + 2),
        };
        if len == V1_BYTES_MAX {
            return Err(ProxyError::TooLong(V1_BYTES_MAX));
        }
        len += some(stream, &mut line[len..certain.min(V1_BYTES_MAX)]).await?;
        begins_like(&line[..len], V1_PREFIX, V2_SIGNATURE, 2)?;
    }
    parse_v1(&line[..len])
}

async fn read_v2<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyError> {
    let mut header = vec![0; V2_HEAD_BYTES];
    let mut len = 0;
    while len < V2_HEAD_BYTES {
        len += some(stream, &mut header[len..]).await?;
        begins_like(&header[..len], V2_SIGNATURE, V1_PREFIX, 1)?;
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > V2_REST_BYTES_MAX {
        return Err(ProxyError::TooLong(V2_HEAD_BYTES + V2_REST_BYTES_MAX));
    }
    header.resize(V2_HEAD_BYTES + rest, 0);
    while len < header.len() {
        len += some(stream, &mut header[len..]).await?;
    }
    parse_v2(&header)
}

async fn some<S: AsyncRead + Unpin>(stream: &mut S, to: &mut [u8]) -> Result<usize, ProxyError> {
    match stream.read(to).await? {
        0 => Err(ProxyError::Closed),
        read => Ok(read),
    }
}

/// Whoever does not speak this protocol is not waited for.
fn begins_like(
    bytes: &[u8],
    prefix: &[u8],
    other: &[u8],
    other_version: u8,
) -> Result<(), ProxyError> {
    let agrees = |prefix: &[u8]| {
        let len = bytes.len().min(prefix.len());
        bytes[..len] == prefix[..len]
    };
    if agrees(prefix) {
        return Ok(());
    }
    if agrees(other) {
        return Err(ProxyError::OtherVersion(other_version));
    }
    Err(ProxyError::Missing)
}

/// A line of version 1, its end included.
fn parse_v1(line: &[u8]) -> Result<Proxied, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed("no text"))?;
    let text = text.strip_suffix("\r\n").and_then(|text| text.strip_prefix("PROXY "));
    let text = text.ok_or(Malformed("no line"))?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Proxied::default());
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [family, source, target, source_port, target_port] = words[..] else {
        return Err(Malformed("not five words"));
    };
    let ports = [port(source_port)?, port(target_port)?];
    let peer = match family {
        "TCP4" => addresses::<Ipv4Addr>(source, target)?.into(),
        "TCP6" => addresses::<Ipv6Addr>(source, target)?.into(),
        _ => return Err(Malformed("neither TCP4 nor TCP6 nor UNKNOWN")),
    };
    let peer = Peer::Tcp(SocketAddr::new(peer, ports[0]));
    Ok(Proxied { peer: Some(peer), tls: None })
}

/// The first of two addresses; both must be some.
fn addresses<A: FromStr>(source: &str, target: &str) -> Result<A, ProxyError> {
    let parse = |text: &str| text.parse().map_err(|_| Malformed("an address"));
    let _target: A = parse(target)?;
    parse(source)
}

fn port(text: &str) -> Result<u16, ProxyError> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or(Malformed("a port"))
}

/// A whole header of version 2.
fn parse_v2(header: &[u8]) -> Result<Proxied, ProxyError> {
    let (head, rest) = header.split_at_checked(V2_HEAD_BYTES).ok_or(ProxyError::Closed)?;
    if !head.starts_with(V2_SIGNATURE) {
        return Err(ProxyError::Missing);
    }
    if usize::from(u16::from_be_bytes([head[14], head[15]])) != rest.len() {
        return Err(Malformed("its length"));
    }
    match head[12] {
        0x20 => return Ok(Proxied::default()), // LOCAL: the proxy itself, asking how we are
        0x21 => {}
        _ => return Err(Malformed("neither LOCAL nor PROXY of version 2")),
    }
    let (peer, extensions) = parse_addresses(head[13], rest)?;
    let mut tls = None;
    let mut records = Records(extensions);
    while let Some(record) = records.next() {
        match record? {
            (TYPE_CRC32C, value) => check_crc(header, value, header.len() - records.0.len())?,
            (TYPE_TLS, _) if tls.is_some() => return Err(Malformed("two records on TLS")),
            (TYPE_TLS, value) => tls = Some(parse_tls(value)?),
            _ => {}
        }
    }
    Ok(Proxied { peer, tls: tls.flatten() })
}

/// Source address and port, and what follows both addresses.
fn parse_addresses(family: u8, rest: &[u8]) -> Result<(Option<Peer>, &[u8]), ProxyError> {
    let len = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed("neither TCP nor a stream of UNIX")),
    };
    let (block, extensions) = rest.split_at_checked(len).ok_or(Malformed("an address is cut"))?;
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let peer = match family {
        0x11 => {
            let address: [u8; 4] = block[..4].try_into().expect("four of twelve bytes");
            Some(Peer::Tcp(SocketAddr::new(Ipv4Addr::from(address).into(), port(8))))
        }
        0x21 => {
            let address: [u8; 16] = block[..16].try_into().expect("16 of 36 bytes");
            Some(Peer::Tcp(SocketAddr::new(Ipv6Addr::from(address).into(), port(32))))
        }
        0x31 => Some(Peer::Unix),
        _unspecified => None,
    };
    Ok((peer, extensions))
}

/// The record on TLS. `None`: the client did not come over TLS.
fn parse_tls(value: &[u8]) -> Result<Option<ProxiedTls>, ProxyError> {
    let (head, records) = value.split_at_checked(5).ok_or(Malformed("the record on TLS is cut"))?;
    let verified = head[1..5] == [0; 4];
    let mut name = None;
    for record in Records(records) {
        match record? {
            (TYPE_TLS_COMMON_NAME, _) if name.is_some() => return Err(Malformed("two names")),
            (TYPE_TLS_COMMON_NAME, value) => {
                let text =
                    std::str::from_utf8(value).map_err(|_| Malformed("a name that is no text"))?;
                name = Some(text.to_owned());
            }
            _ => {}
        }
    }
    if head[0] & CLIENT_TLS == 0 {
        return Ok(None);
    }
    let shown = head[0] & CLIENT_CERTIFICATE != 0 && verified;
    let certificate = name
        .filter(|name| shown && !name.is_empty())
        .map(|name| CertificateFacts { common_names: vec![name], ..CertificateFacts::default() });
    Ok(Some(ProxiedTls { certificate }))
}

/// Type and value of each record of a list.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u8, &'a [u8]), ProxyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        if rest.is_empty() {
            return None;
        }
        let cut = Some(Err(Malformed("a record is cut")));
        let [kind, high, low, rest @ ..] = rest else { return cut };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, rest)) = rest.split_at_checked(len) else { return cut };
        self.0 = rest;
        Some(Ok((*kind, value)))
    }
}

/// The checksum is that of the header with zeros in the checksum's own place, which ends at `end`.
fn check_crc(header: &[u8], value: &[u8], end: usize) -> Result<(), ProxyError> {
    let sum: [u8; 4] = value.try_into().map_err(|_| Malformed("a checksum that is none"))?;
    let own = end - sum.len()..end;
    let bytes = header.iter().enumerate();
    let zeroed = bytes.map(|(at, byte)| if own.contains(&at) { 0 } else { *byte });
    if crc32c(zeroed) == u32::from_be_bytes(sum) { Ok(()) } else { Err(Malformed("its checksum")) }
}

/// CRC-32C, Castagnoli's polynomial with its bits reversed. Bit by bit: once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 });
        }
    }
    !crc
}

#[cfg(test)]
mod tests;
