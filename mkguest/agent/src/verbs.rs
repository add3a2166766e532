//! What listener and broker say to each other: messages of a fixed size, made of numbers
//! alone, each checked when it is read. What follows from them is left to the two.

use crate::sys::{self, Exit};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The longest message and one byte, so that a longer one shows.
const ROOM: usize = 5;

/// What the listener may ask of the broker. Checks go by their index in the list of
/// definitions, which both have from before they parted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    Start(u8),
    Kill(u8),
    /// A host's first request has been answered.
    Answered,
    Shutdown,
}

/// What the broker tells the listener.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The check runs; the reading end of its output comes with this.
    Started(u8),
    /// The check, and everything that it left behind, has ended.
    Ended(u8, Exit),
    /// The check could not be started, for this error number.
    Refused(u8, u8),
}

impl Verb {
    /// Sends the verb without waiting; the error is that of the socket.
    pub fn send(self, socket: BorrowedFd) -> io::Result<()> {
        let message = match self {
            Verb::Start(check) => [1, check],
            Verb::Kill(check) => [2, check],
            Verb::Answered => [3, 0],
            Verb::Shutdown => [4, 0],
        };
        sys::send_message(socket, &message, None)
    }

    /// Receives a verb about one of `checks` checks without waiting: None at the end of
    /// the stream, `InvalidData` for any other message.
    pub fn receive(socket: BorrowedFd, checks: usize) -> io::Result<Option<Verb>> {
        let mut room = [0; ROOM];
        let (length, _) = sys::receive_message(socket, &mut room)?;
        let known = |check: u8| usize::from(check) < checks;
        match room[..length] {
            [] => Ok(None),
            [1, check] if known(check) => Ok(Some(Verb::Start(check))),
            [2, check] if known(check) => Ok(Some(Verb::Kill(check))),
            [3, 0] => Ok(Some(Verb::Answered)),
            [4, 0] => Ok(Some(Verb::Shutdown)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Event {
    /// Sends the event without waiting, with a descriptor if it is `Started`.
    pub fn send(self, socket: BorrowedFd, output: Option<BorrowedFd>) -> io::Result<()> {
        let message = match self {
            Event::Started(check) => [1, check, 0],
            Event::Ended(check, Exit::Code(code)) => [2, check, code],
            Event::Ended(check, Exit::Signal(signal)) => [3, check, signal],
            Event::Refused(check, number) => [4, check, number],
        };
        sys::send_message(socket, &message, output)
    }

    /// Receives an event without waiting: None at the end of the stream, `InvalidData`
    /// for any other message.
    pub fn receive(socket: BorrowedFd) -> io::Result<Option<(Event, Option<OwnedFd>)>> {
        let mut room = [0; ROOM];
        let (length, output) = sys::receive_message(socket, &mut room)?;
        let event = match room[..length] {
            [] => return Ok(None),
            [1, check, 0] => Event::Started(check),
            [2, check, code] => Event::Ended(check, Exit::Code(code)),
            [3, check, signal] => Event::Ended(check, Exit::Signal(signal)),
            [4, check, number] => Event::Refused(check, number),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some((event, output)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn verbs_arrive_as_they_were_sent() {
        let (one, other) = sys::message_pair().unwrap();
        let verbs = [
            Verb::Start(0),
            Verb::Kill(2),
            Verb::Answered,
            Verb::Shutdown,
        ];
        for verb in verbs {
            verb.send(one.as_fd()).unwrap();
        }
        for verb in verbs {
            assert_eq!(Verb::receive(other.as_fd(), 3).unwrap(), Some(verb));
        }
        drop(one);
        assert_eq!(Verb::receive(other.as_fd(), 3).unwrap(), None);
    }

    #[test]
    fn what_is_no_verb_or_about_no_check_is_refused() {
        let (one, other) = sys::message_pair().unwrap();
        let messages: [&[u8]; 8] = [
            &[0, 0],
            &[5, 0],
            &[1],
            &[1, 3],
            &[2, 255],
            &[3, 1],
            &[4, 0, 0],
            &[1; 4000],
        ];
        for message in messages {
            sys::send_message(one.as_fd(), message, None).unwrap();
            let error = Verb::receive(other.as_fd(), 3).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{message:?}");
        }
    }

    #[test]
    fn events_arrive_with_their_descriptor() {
        let (one, other) = sys::message_pair().unwrap();
        let (reading, writing) = sys::pipe().unwrap();
        Event::Started(7)
            .send(one.as_fd(), Some(reading.as_fd()))
            .unwrap();
        let (event, output) = Event::receive(other.as_fd()).unwrap().unwrap();
        assert_eq!(event, Event::Started(7));
        sys::write(writing.as_fd(), b"through").unwrap();
        let mut room = [0; 16];
        let length = sys::read(output.unwrap().as_fd(), &mut room).unwrap();
        assert_eq!(&room[..length], b"through");
        for event in [
            Event::Ended(1, Exit::Code(255)),
            Event::Ended(1, Exit::Signal(9)),
            Event::Refused(0, 11),
        ] {
            event.send(one.as_fd(), None).unwrap();
            let (received, output) = Event::receive(other.as_fd()).unwrap().unwrap();
            assert_eq!(received, event);
            assert!(output.is_none());
        }
    }
}
