//! The envelope in CBOR.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the types are minicbor's; what is not named is read as a number or refused"
)]

use minicbor::data::{IanaTag, Type};
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value, json};

use super::{Body, Envelope, EnvelopeError, Kind, Tid};
use crate::client::chunk::Chunk;
use crate::ids::decimal;

/// Major type of a CBOR map, in the upper three bits of the first byte.
pub(super) const MAP: u8 = 5;
/// Deeper bodies are refused.
const DEPTH_MAX: usize = 64;

type Failure = minicbor::decode::Error;

pub(super) fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    put(&mut out, envelope).expect("a vector takes everything");
    out.into_writer()
}

pub(super) fn decode(payload: &[u8]) -> Result<Envelope, EnvelopeError> {
    let mut input = Decoder::new(payload);
    let members = take(&mut input).map_err(|_| EnvelopeError::Cbor)?;
    if input.position() != payload.len() {
        return Err(EnvelopeError::Cbor);
    }
    let gid = members.gid.and_then(|gid| u64::try_from(gid).ok());
    Ok(Envelope {
        nid: members.nid.ok_or(EnvelopeError::Number("nid"))?,
        gid: gid.ok_or(EnvelopeError::Number("gid"))?,
        kind: Kind::parse(&members.kind)?,
        tid: members.tid,
        rc: members.rc,
        src: members.src,
        asks: Map::new(),
        chunk: members.chunk,
        body: members.body.unwrap_or(Body::Value(Value::Null)),
    })
}

/// A body that fills some bytes.
pub(super) fn decode_body(bytes: &[u8]) -> Option<Body> {
    let mut input = Decoder::new(bytes);
    let body = take_body(&mut input).ok()?;
    (input.position() == bytes.len()).then_some(body)
}

type Out = Encoder<Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn put(out: &mut Out, envelope: &Envelope) -> Written {
    let chunk = envelope.chunk.map(|chunk| json!(chunk));
    let (tid, rc, src) = (&envelope.tid, envelope.rc, envelope.src);
    let optional = [tid.is_some(), rc.is_some(), src.is_some(), chunk.is_some()];
    let optional = optional.iter().filter(|there| **there).count();
    out.map((4 + optional + envelope.asks.len()) as u64)?;
    put_number(out.u8(1)?, envelope.nid)?;
    out.u8(2)?.u64(envelope.gid)?;
    out.u8(3)?.str(&envelope.kind.text())?;
    match &envelope.tid {
        Some(Tid::Number(number)) => drop(out.str("tid")?.u64(*number)?),
        Some(Tid::Text(text)) => drop(out.str("tid")?.str(text)?),
        None => {}
    }
    if let Some(rc) = envelope.rc {
        out.str("rc")?.i64(rc)?;
    }
    if let Some(src) = envelope.src {
        put_number(out.str("src")?, src)?;
    }
    for (name, value) in &envelope.asks {
        put_value(out.str(name)?, value)?;
    }
    if let Some(chunk) = &chunk {
        put_value(out.str("chunk")?, chunk)?;
    }
    out.u8(4)?;
    match &envelope.body {
        Body::Bytes(bytes) => drop(out.bytes(bytes)?),
        Body::Value(value) => put_value(out, value)?,
    }
    Ok(())
}

/// An unsigned integer, or a bignum (tag 2) beyond 64 bits.
fn put_number(out: &mut Out, number: u128) -> Written {
    if let Ok(number) = u64::try_from(number) {
        out.u64(number)?;
        return Ok(());
    }
    let bytes = number.to_be_bytes();
    let zeros = number.leading_zeros() as usize / 8;
    out.tag(IanaTag::PosBignum)?.bytes(&bytes[zeros..])?;
    Ok(())
}

fn put_value(out: &mut Out, value: &Value) -> Written {
    match value {
        Value::Null => drop(out.null()?),
        Value::Bool(value) => drop(out.bool(*value)?),
        Value::String(text) => drop(out.str(text)?),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => drop(out.u64(number)?),
            (None, Some(number), _) => drop(out.i64(number)?),
            (None, None, number) => drop(out.f64(number.unwrap_or_default())?),
        },
        Value::Array(items) => {
            out.array(items.len() as u64)?;
            for item in items {
                put_value(out, item)?;
            }
        }
        Value::Object(members) => {
            out.map(members.len() as u64)?;
            for (name, member) in members {
                out.str(name)?;
                put_value(out, member)?;
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Members {
    nid: Option<u128>,
    gid: Option<u128>,
    kind: String,
    tid: Option<Tid>,
    rc: Option<i64>,
    src: Option<u128>,
    chunk: Option<Chunk>,
    body: Option<Body>,
}

fn take(input: &mut Decoder<'_>) -> Result<Members, Failure> {
    let count = input.map()?.ok_or_else(|| Failure::message("map without a length"))?;
    let mut members = Members::default();
    for _ in 0..count {
        match key(input)?.as_str() {
            "nid" => members.nid = Some(take_number(input)?),
            "gid" => members.gid = Some(take_number(input)?),
            "type" => members.kind = input.str()?.into(),
            "body" => members.body = Some(take_body(input)?),
            "rc" => members.rc = Some(input.i64()?),
            "src" => members.src = Some(take_number(input)?),
            "chunk" => {
                let value = take_value(input, DEPTH_MAX)?;
                let chunk = serde_json::from_value(value);
                members.chunk = Some(chunk.map_err(|_| Failure::message("no chunk"))?);
            }
            "tid" => {
                members.tid = Some(match input.datatype()? {
                    Type::String => Tid::Text(input.str()?.into()),
                    _ => Tid::Number(input.u64()?),
                });
            }
            _ => input.skip()?,
        }
    }
    Ok(members)
}

/// A text key, or the word that an integer key stands for.
fn key(input: &mut Decoder<'_>) -> Result<String, Failure> {
    if input.datatype()? == Type::String {
        return Ok(input.str()?.into());
    }
    let name = match input.i64()? {
        1 => "nid",
        2 => "gid",
        3 => "type",
        4 => "body",
        5 => "tid",
        6 => "rc",
        12 => "src",
        13 => "chunk",
        _ => "",
    };
    Ok(name.into())
}

/// An unsigned integer, a bignum, digits, or the 16 bytes of an EID in BCD.
fn take_number(input: &mut Decoder<'_>) -> Result<u128, Failure> {
    let bad = || Failure::message("no number");
    match input.datatype()? {
        Type::String => decimal(input.str()?).ok_or_else(bad),
        Type::Bytes => {
            let bytes = input.bytes()?;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if bytes.len() == 16 { decimal(&digits).ok_or_else(bad) } else { Err(bad()) }
        }
        Type::Tag => {
            if input.tag()? != IanaTag::PosBignum.tag() {
                return Err(bad());
            }
            let bytes = input.bytes()?;
            if bytes.len() > 16 {
                return Err(bad());
            }
            Ok(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
        }
        _ => Ok(input.u64()?.into()),
    }
}

fn take_body(input: &mut Decoder<'_>) -> Result<Body, Failure> {
    if input.datatype()? == Type::Bytes {
        return Ok(Body::Bytes(input.bytes()?.into()));
    }
    Ok(Body::Value(take_value(input, DEPTH_MAX)?))
}

fn take_value(input: &mut Decoder<'_>, depth: usize) -> Result<Value, Failure> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(Failure::message("too deep"));
    };
    let unknown_length = || Failure::message("item without a length");
    match input.datatype()? {
        Type::Null => input.null().map(|()| Value::Null),
        Type::Bool => Ok(input.bool()?.into()),
        Type::String => Ok(input.str()?.into()),
        Type::Array => {
            let count = input.array()?.ok_or_else(unknown_length)?;
            (0..count).map(|_| take_value(input, deeper)).collect()
        }
        Type::Map => {
            let count = input.map()?.ok_or_else(unknown_length)?;
            let mut members = Map::new();
            for _ in 0..count {
                let name = input.str()?.to_owned();
                members.insert(name, take_value(input, deeper)?);
            }
            Ok(Value::Object(members))
        }
        Type::F16 | Type::F32 | Type::F64 => {
            Ok(Number::from_f64(input.f64()?).map_or(Value::Null, Value::Number))
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Ok(input.u64()?.into()),
        _ => Ok(input.i64()?.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EID: u128 = 89_049_032_123_451_234_512_345_678_901_235;

    #[test]
    fn a_nid_may_be_the_bcd_of_the_euicc() {
        let mut out = Encoder::new(Vec::new());
        let bcd: Vec<u8> = (0..16u32).rev().map(|at| (EID / 100u128.pow(at) % 100) as u8).collect();
        let bcd: Vec<u8> = bcd.iter().map(|pair| pair / 10 * 16 + pair % 10).collect();
        out.map(3).unwrap().str("nid").unwrap().bytes(&bcd).unwrap();
        out.str("gid").unwrap().u8(0).unwrap().u8(3).unwrap().str("msg").unwrap();
        assert_eq!(decode(&out.into_writer()).unwrap().nid, EID);
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let mut deep = vec![0xa4, 1, 1, 2, 0, 3, 0x63, b'm', b's', b'g', 4];
        deep.extend([0x81; 100]);
        deep.push(0);
        assert_eq!(decode(&deep), Err(EnvelopeError::Cbor));
        // An array that claims 2^60 items.
        let long = [0xa1, 4, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(&long), Err(EnvelopeError::Cbor));
    }
}
