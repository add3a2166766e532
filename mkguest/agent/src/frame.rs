//! Frames: a 4-byte big-endian length and that many bytes. What the bytes mean is left
//! to `protocol`, and waiting for them to the caller.

use std::io;

/// The longest frame, in bytes without its length.
pub const LIMIT: usize = 256 * 1024;

const HEADER: usize = 4;

/// A longer frame gets room for the longest at once: that is a mapping of its own, of which
/// only what the peer has sent takes memory, and which leaves no hole when it goes.
const LARGE: usize = 4096;

/// Puts one frame after the other together from whatever pieces arrive.
#[derive(Default)]
pub struct Reader {
    /// Header and body, as far as they came.
    received: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub enum Progress {
    Frame(Vec<u8>),
    /// Nothing more has come yet.
    Waiting,
    /// The peer sends no more; a frame that it began will never be complete.
    Ended,
    /// The frame that begins here says that it has this length.
    TooLong(u32),
}

impl Reader {
    /// Whether a frame has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        !self.received.is_empty()
    }

    /// Takes bytes from `receive` until a frame is complete or none are left. Never takes
    /// more than the frame's own, so that what follows waits with the kernel. Errors are
    /// those of `receive`, but for `WouldBlock` and `Interrupted`.
    pub fn advance(
        &mut self,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Progress> {
        let mut room = [0; 4096];
        loop {
            let wanted = match self.received.first_chunk::<HEADER>() {
                None => HEADER,
                Some(&header) => {
                    let length = u32::from_be_bytes(header);
                    if length as usize > LIMIT {
                        return Ok(Progress::TooLong(length));
                    }
                    HEADER + length as usize
                }
            };
            if wanted > LARGE && self.received.capacity() < LIMIT {
                self.received.reserve_exact(LIMIT);
            }
            let have = self.received.len();
            if have == wanted {
                let mut frame = std::mem::take(&mut self.received);
                frame.drain(..HEADER);
                return Ok(Progress::Frame(frame));
            }
            let missing = (wanted - have).min(room.len());
            match receive(&mut room[..missing]) {
                Ok(0) => return Ok(Progress::Ended),
                Ok(length) => self.received.extend_from_slice(&room[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A frame around what `write` appends; None if that is over the limit.
pub fn around(write: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    write(&mut frame);
    let length = frame.len() - HEADER;
    frame[..HEADER].copy_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    (length <= LIMIT).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands `bytes` out in pieces of at most `piece`, then nothing more.
    fn source(bytes: &[u8], piece: usize) -> impl FnMut(&mut [u8]) -> io::Result<usize> + '_ {
        let mut left = bytes;
        move |buffer| {
            if left.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = piece.min(buffer.len()).min(left.len());
            buffer[..length].copy_from_slice(&left[..length]);
            left = &left[length..];
            Ok(length)
        }
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        around(|frame| frame.extend_from_slice(body)).unwrap()
    }

    #[test]
    fn a_frame_arrives_whole_whatever_the_pieces() {
        let body: Vec<u8> = (0..50_000_u32).map(|number| number as u8).collect();
        let bytes = framed(&body);
        for piece in [1, 3, 4, 5, 4096, 100_000] {
            let mut reader = Reader::default();
            let progress = reader.advance(source(&bytes, piece)).unwrap();
            assert_eq!(progress, Progress::Frame(body.clone()), "pieces of {piece}");
            assert!(!reader.is_midway());
        }
    }

    #[test]
    fn frames_that_follow_each_other_stay_apart() {
        let bytes = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let mut reader = Reader::default();
        let mut receive = source(&bytes, 7);
        for body in ["one", "", "three"] {
            let progress = reader.advance(&mut receive).unwrap();
            assert_eq!(progress, Progress::Frame(body.into()));
        }
        assert_eq!(reader.advance(&mut receive).unwrap(), Progress::Waiting);
    }

    #[test]
    fn a_frame_can_be_waited_for_at_every_byte() {
        let bytes = framed(b"\"Ping\"");
        let mut reader = Reader::default();
        for at in 0..bytes.len() - 1 {
            let progress = reader.advance(source(&bytes[at..=at], 1)).unwrap();
            assert_eq!(progress, Progress::Waiting);
            assert!(reader.is_midway());
        }
        let last = reader
            .advance(source(&bytes[bytes.len() - 1..], 1))
            .unwrap();
        assert_eq!(last, Progress::Frame(b"\"Ping\"".to_vec()));
    }

    #[test]
    fn a_frame_of_the_limit_is_read_and_one_byte_more_is_refused() {
        let bytes = framed(&vec![b' '; LIMIT]);
        let progress = Reader::default().advance(source(&bytes, LIMIT)).unwrap();
        assert!(matches!(progress, Progress::Frame(body) if body.len() == LIMIT));
        for length in [LIMIT as u32 + 1, u32::MAX] {
            let header = length.to_be_bytes();
            let progress = Reader::default().advance(source(&header, 4)).unwrap();
            assert_eq!(progress, Progress::TooLong(length));
        }
    }

    #[test]
    fn a_truncated_frame_ends_the_stream() {
        let bytes = framed(b"\"Ping\"");
        let mut left = &bytes[..7];
        let progress = Reader::default().advance(|buffer| io::Read::read(&mut left, buffer));
        assert_eq!(progress.unwrap(), Progress::Ended);
    }

    #[test]
    fn a_body_over_the_limit_has_no_frame() {
        assert!(around(|frame| frame.resize(frame.len() + LIMIT, b' ')).is_some());
        assert!(around(|frame| frame.resize(frame.len() + LIMIT + 1, b' ')).is_none());
    }
}
