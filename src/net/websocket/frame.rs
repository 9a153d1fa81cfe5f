//! Frames of RFC 6455 as a server reads and writes them: heads, masks, control frames. No IO.
//!
//! No extension is ever agreed upon, so the reserved bits mean nothing and nobody can send a
//! compressed bomb (case D22).

use std::io;

use bytes::Bytes;

/// Longest head that a server writes: it masks nothing.
const HEAD_BYTES_MAX: usize = 10;
/// Longest head of a client's frame.
const MASKED_HEAD_BYTES_MAX: usize = 14;
/// Payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Longest data frame: MQTT's largest packet. Longer ones could be read as well, for they are never
/// put together; who announces one speaks no MQTT.
const DATA_BYTES_MAX: u64 = 5 + (1 << 28) - 1;

/// "Done" in a close frame.
pub(super) const NORMAL_CLOSURE: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const MESSAGE_TOO_BIG: u16 = 1009;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// What a client did against the WebSocket protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::net) enum FrameError {
    /// `[MQTT-6.0.0-1]`: MQTT travels in binary frames alone.
    #[error("a text frame; MQTT is sent in binary frames")]
    Text,
    /// RFC 6455, 5.1.
    #[error("a frame that is not masked")]
    NotMasked,
    /// RFC 6455, 5.2: nothing was agreed upon that would use them.
    #[error("a frame with reserved bits; no extension was agreed upon")]
    ReservedBits,
    /// RFC 6455, 5.2.
    #[error("a frame with an unknown opcode")]
    Opcode,
    /// RFC 6455, 5.2: beyond 2^63, or not written as short as possible.
    #[error("a frame whose length is not well-formed")]
    Length,
    /// Longer than any MQTT packet.
    #[error("a frame longer than any MQTT packet")]
    TooLong,
    /// RFC 6455, 5.5.
    #[error("a control frame that is long or in pieces")]
    Control,
    /// RFC 6455, 5.4.
    #[error("a continuation of nothing, or a new message within another")]
    Sequence,
    /// RFC 6455, 5.5.1.
    #[error("a close frame that is not well-formed")]
    Close,
}

impl FrameError {
    /// The error of a WebSocket behind that of a stream.
    pub(in crate::net) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).copied()
    }

    /// What the close frame says.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Text => UNSUPPORTED_DATA,
            Self::TooLong => MESSAGE_TOO_BIG,
            Self::NotMasked
            | Self::ReservedBits
            | Self::Opcode
            | Self::Length
            | Self::Control
            | Self::Sequence
            | Self::Close => PROTOCOL_ERROR,
        }
    }
}

/// Takes the frames of a client apart as they come, in whatever pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    head: Head,
    /// The frame that is being read.
    frame: Option<Frame>,
    /// A message has begun and its last frame has not come.
    fragmented: bool,
    /// Payload of the control frame that is being read.
    control: Control,
    /// The last ping, not yet answered.
    pong: Option<Control>,
    /// The code of the client's close frame, as it is to be answered.
    closed: Option<u16>,
    error: Option<FrameError>,
}

/// A head that has come in part.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; MASKED_HEAD_BYTES_MAX],
    len: usize,
}

#[derive(Debug)]
struct Frame {
    opcode: u8,
    left: u64,
    mask: [u8; 4],
    /// Position in the mask.
    turn: usize,
}

/// A control frame.
#[derive(Clone, Debug)]
pub(super) struct Control {
    opcode: u8,
    payload: [u8; CONTROL_BYTES_MAX],
    len: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self { opcode: PONG, payload: [0; CONTROL_BYTES_MAX], len: 0 }
    }
}

impl Decoder {
    /// Takes bytes as they were read and moves the payload among them to their front; gives its
    /// length. What comes behind a close frame or an error is dropped.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() && self.closed.is_none() && self.error.is_none() {
            let Some(frame) = &mut self.frame else {
                at += self.head.take(&bytes[at..]);
                self.begin().unwrap_or_else(|error| self.error = Some(error));
                continue;
            };
            let rest = bytes.len() - at;
            let len = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
            let piece = &mut bytes[at..at + len];
            frame.unmask(piece);
            if frame.opcode == BINARY {
                bytes.copy_within(at..at + len, kept);
                kept += len;
            } else {
                self.control.append(piece);
            }
            at += len;
            self.finish().unwrap_or_else(|error| self.error = Some(error));
        }
        kept
    }

    /// The pong that answers the last ping, once.
    pub(super) fn take_pong(&mut self) -> Option<Control> {
        self.pong.take()
    }

    /// The client has closed, and is to be answered with this code.
    pub(super) fn closed(&self) -> Option<u16> {
        self.closed
    }

    /// The client broke a rule.
    pub(super) fn error(&self) -> Option<FrameError> {
        self.error
    }

    /// Begins a frame when its head is complete. Wrong heads are seen at their second byte.
    fn begin(&mut self) -> Result<(), FrameError> {
        let [first, second, ..] = self.head.bytes;
        if self.head.len < 2 {
            return Ok(());
        }
        if first & RESERVED != 0 {
            return Err(FrameError::ReservedBits);
        }
        if second & MASKED == 0 {
            return Err(FrameError::NotMasked);
        }
        let (fin, opcode) = (first & FIN != 0, first & 0x0F);
        self.check_opcode(opcode, fin, second & !MASKED)?;
        let Some((left, mask)) = self.head.length_and_mask()? else { return Ok(()) };
        self.head.len = 0;
        if opcode < CLOSE {
            self.fragmented = !fin;
        }
        let opcode = if opcode == CONTINUATION { BINARY } else { opcode };
        self.control.len = 0;
        self.frame = Some(Frame { opcode, left, mask, turn: 0 });
        self.finish()
    }

    fn check_opcode(&self, opcode: u8, fin: bool, len: u8) -> Result<(), FrameError> {
        match opcode {
            CLOSE | PING | PONG if !fin || usize::from(len) > CONTROL_BYTES_MAX => {
                Err(FrameError::Control)
            }
            CLOSE | PING | PONG => Ok(()),
            TEXT => Err(FrameError::Text),
            BINARY if self.fragmented => Err(FrameError::Sequence),
            CONTINUATION if !self.fragmented => Err(FrameError::Sequence),
            BINARY | CONTINUATION => Ok(()),
            _ => Err(FrameError::Opcode),
        }
    }

    /// Ends the frame when all of it has come.
    fn finish(&mut self) -> Result<(), FrameError> {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else { return Ok(()) };
        match frame.opcode {
            PING => self.pong = Some(Control { opcode: PONG, ..self.control.clone() }),
            CLOSE => self.closed = Some(self.control.answer_to_close()?),
            _ => {}
        }
        Ok(())
    }
}

impl Head {
    /// Takes as many bytes as the head still lacks; gives how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let len = (self.needed() - self.len).min(bytes.len());
        self.bytes[self.len..self.len + len].copy_from_slice(&bytes[..len]);
        self.len += len;
        len
    }

    /// How long the head is, as far as is known.
    fn needed(&self) -> usize {
        if self.len < 2 {
            return 2;
        }
        2 + self.length_bytes() + 4
    }

    fn length_bytes(&self) -> usize {
        match self.bytes[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn length_and_mask(&self) -> Result<Option<(u64, [u8; 4])>, FrameError> {
        let len_bytes = self.length_bytes();
        if self.len < 2 + len_bytes + 4 {
            return Ok(None);
        }
        let long = &self.bytes[2..2 + len_bytes];
        let len = long.iter().fold(0, |len: u64, byte| len << 8 | u64::from(*byte));
        let len = match len_bytes {
            0 => u64::from(self.bytes[1] & !MASKED),
            2 if len < 126 => return Err(FrameError::Length),
            8 if len <= u64::from(u16::MAX) || len >> 63 == 1 => return Err(FrameError::Length),
            _ if len > DATA_BYTES_MAX => return Err(FrameError::TooLong),
            _ => len,
        };
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.bytes[2 + len_bytes..self.len]);
        Ok(Some((len, mask)))
    }
}

impl Frame {
    /// Takes the mask off the next bytes of the payload.
    fn unmask(&mut self, bytes: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(self.turn);
        let (fours, rest) = bytes.as_chunks_mut::<4>();
        for four in fours {
            *four = (u32::from_ne_bytes(*four) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
        }
        rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        self.turn = (self.turn + bytes.len()) % 4;
        self.left -= bytes.len() as u64;
    }
}

impl Control {
    pub(super) fn close(code: u16) -> Self {
        let mut close = Self { opcode: CLOSE, ..Self::default() };
        close.append(&code.to_be_bytes());
        close
    }

    /// The frame as a server writes it.
    pub(super) fn frame(&self) -> Bytes {
        let len = u8::try_from(self.len).expect("at most 125 bytes");
        let mut frame = vec![FIN | self.opcode, len];
        frame.extend_from_slice(&self.payload[..self.len]);
        frame.into()
    }

    fn append(&mut self, bytes: &[u8]) {
        self.payload[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// The code to answer a close frame with: its own.
    fn answer_to_close(&self) -> Result<u16, FrameError> {
        let (code, text) = match &self.payload[..self.len] {
            [] => return Ok(NORMAL_CLOSURE),
            [_] => return Err(FrameError::Close),
            [high, low, text @ ..] => (u16::from_be_bytes([*high, *low]), text),
        };
        let known = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        if known && std::str::from_utf8(text).is_ok() { Ok(code) } else { Err(FrameError::Close) }
    }
}

/// The head of a binary frame with this much payload.
pub(super) fn data_head(len: usize) -> Bytes {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    head.push(FIN | BINARY);
    if let Ok(len) = u8::try_from(len)
        && len < 126
    {
        head.push(len);
    } else if let Ok(len) = u16::try_from(len) {
        head.push(126);
        head.extend_from_slice(&len.to_be_bytes());
    } else {
        head.push(127);
        head.extend_from_slice(&(len as u64).to_be_bytes());
    }
    head.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x1f, 0x2e, 0x3d, 0x4c];
        let mut frame = data_head(payload.len()).to_vec();
        frame[0] = first;
        frame[1] |= MASKED;
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// What is read when bytes come in pieces of this length.
    fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Decoder) {
        let (mut decoder, mut payload) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let kept = decoder.decode(&mut piece);
            payload.extend_from_slice(&piece[..kept]);
        }
        (payload, decoder)
    }

    #[test]
    fn payload_is_whole_in_whatever_pieces_it_comes() {
        // case P28
        let long: Vec<u8> = (0..70_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let bytes = [
            frame(FIN | BINARY, b"one"),
            frame(BINARY, b"in "),
            frame(FIN | PING, b"are you there"),
            frame(CONTINUATION, b""),
            frame(FIN | CONTINUATION, b"pieces"),
            frame(FIN | PONG, b"nobody asked"),
            frame(FIN | BINARY, &long[..126]),
            frame(FIN | BINARY, &long),
        ]
        .concat();
        let expected = [b"onein pieces", &long[..126], &long].concat();
        for piece in [1, 2, 3, 5, 7, 1000, bytes.len()] {
            let (payload, mut decoder) = read(&bytes, piece);
            assert!(payload == expected, "in pieces of {piece}");
            assert_eq!((decoder.error(), decoder.closed()), (None, None));
            let pong = decoder.take_pong().unwrap().frame();
            assert_eq!(pong, [&[FIN | PONG, 13][..], b"are you there"].concat());
            assert!(decoder.take_pong().is_none());
        }
    }

    #[test]
    fn each_broken_rule_has_its_name_and_code() {
        // case P28
        let long = |len: [u8; 8]| [&[FIN | BINARY, MASKED | 127][..], &len, &[0; 4]].concat();
        let unmasked = data_head(3).to_vec();
        let cases = [
            (frame(FIN | TEXT, b"x"), FrameError::Text, 1003),
            (unmasked, FrameError::NotMasked, 1002),
            (frame(FIN | 0x40 | BINARY, b"x"), FrameError::ReservedBits, 1002),
            (frame(FIN | 0x3, b"x"), FrameError::Opcode, 1002),
            (frame(FIN | 0xB, b"x"), FrameError::Opcode, 1002),
            (long([0x80, 0, 0, 0, 0, 0, 0, 0]), FrameError::Length, 1002),
            (long([0, 0, 0, 0, 0, 0, 0xff, 0xff]), FrameError::Length, 1002),
            (long([0x7f; 8]), FrameError::TooLong, 1009),
            (long([0, 0, 0, 0, 0x10, 0, 0, 5]), FrameError::TooLong, 1009),
            (vec![FIN | BINARY, MASKED | 126, 0, 125, 0, 0, 0, 0], FrameError::Length, 1002),
            (frame(PING, b"x"), FrameError::Control, 1002),
            (frame(FIN | PING, &[0; 126]), FrameError::Control, 1002),
            (frame(FIN | CONTINUATION, b"x"), FrameError::Sequence, 1002),
            ([frame(BINARY, b""), frame(FIN | BINARY, b"")].concat(), FrameError::Sequence, 1002),
            (frame(FIN | CLOSE, b"x"), FrameError::Close, 1002),
            (frame(FIN | CLOSE, &1005u16.to_be_bytes()), FrameError::Close, 1002),
            (frame(FIN | CLOSE, &[0x03, 0xe8, 0xff]), FrameError::Close, 1002),
        ];
        for (bytes, error, code) in cases {
            for piece in [1, bytes.len()] {
                let before = [frame(FIN | BINARY, b"before"), bytes.clone()].concat();
                let (payload, decoder) = read(&before, piece);
                assert_eq!(payload, b"before", "{error}");
                assert_eq!(decoder.error(), Some(error));
                assert_eq!(error.close_code(), code);
            }
        }
    }

    #[test]
    fn nothing_counts_behind_a_close_frame() {
        for (payload, code) in [(&b""[..], 1000), (b"\x03\xe9bye", 1001)] {
            let bytes = [frame(FIN | CLOSE, payload), frame(FIN | BINARY, b"late")].concat();
            let (read, decoder) = read(&bytes, bytes.len());
            assert_eq!((read.len(), decoder.closed()), (0, Some(code)));
        }
        assert_eq!(Control::close(1003).frame(), &[0x88, 2, 0x03, 0xeb][..]);
    }

    #[test]
    fn heads_are_as_short_as_possible() {
        for (len, head) in [
            (125, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(data_head(len), head);
        }
    }

    /// Mostly one that may be, in whatever order.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            6 => Just(FIN | BINARY),
            3 => Just(BINARY),
            3 => Just(CONTINUATION),
            3 => Just(FIN | CONTINUATION),
            3 => Just(FIN | PING),
            1 => Just(FIN | CLOSE),
            1 => any::<u8>(),
        ];
        let payload = proptest::collection::vec(any::<u8>(), 0..140);
        (first, payload).prop_map(|(first, payload)| frame(first, &payload))
    }

    proptest! {
        // case P31
        #[test]
        fn it_makes_no_difference_where_bytes_are_cut(
            frames in proptest::collection::vec(any_frame(), 0..8),
            junk in proptest::collection::vec(any::<u8>(), 0..40),
            piece in 1..50_usize,
        ) {
            let bytes = [frames.concat(), junk].concat();
            let (whole, mut a) = read(&bytes, bytes.len().max(1));
            let (cut, mut b) = read(&bytes, piece);
            prop_assert!(whole.len() <= bytes.len(), "nothing is made up");
            prop_assert_eq!(whole, cut);
            prop_assert_eq!((a.error(), a.closed()), (b.error(), b.closed()));
            let pongs = [&mut a, &mut b].map(|d| d.take_pong().map(|pong| pong.frame()));
            prop_assert_eq!(&pongs[0], &pongs[1]);
        }
    }
}
