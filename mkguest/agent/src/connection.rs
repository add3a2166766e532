//! One connection of a host: reads its requests and writes the answers, neither ever
//! waiting, and says when it is done. What the answers are is left to the caller.

use crate::frame::{Progress, Reader, LIMIT};
use crate::sys::{self, Interest};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The longest that a frame, or a peer's taking of an answer, may last.
const STALLED: Duration = Duration::from_secs(30);
/// The longest that a peer may go on sending after its connection was refused.
const LINGERING: Duration = Duration::from_secs(5);
/// Requests answered in one turn, so that a peer that floods leaves others theirs.
const TURN: usize = 16;

/// What to answer.
pub enum Answer {
    Frame(Vec<u8>),
    /// A frame with which the connection ends.
    Last(Vec<u8>),
    /// Nothing before `deliver`; until then, the peer is not heard.
    #[cfg(feature = "exec")]
    Later(u8),
}

/// Turns what the peer sent into an answer.
pub trait Answerer {
    fn answer(&mut self, body: &[u8]) -> Answer;
    /// The last frame for a peer whose own is at fault for this reason.
    fn refuse(&mut self, reason: &str) -> Vec<u8>;
}

#[derive(PartialEq)]
enum Phase {
    Open,
    /// The answer with this number is still to be delivered.
    #[cfg(feature = "exec")]
    Awaiting(u8),
    /// The last answer is being sent.
    Closing,
    /// All is sent; what still comes is thrown away, because closing a socket with
    /// unread data would take the last answer away from the peer.
    Lingering,
}

enum Step {
    Taken,
    Blocked,
    Over,
}

pub struct Connection {
    socket: OwnedFd,
    reader: Reader,
    /// The answer being sent, and how much of it is.
    sending: Vec<u8>,
    sent: usize,
    phase: Phase,
    /// When the current frame, answer or phase began; when idle, since when.
    since: Instant,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Connection {
        Connection {
            socket,
            reader: Reader::default(),
            sending: Vec::new(),
            sent: 0,
            phase: Phase::Open,
            since: Instant::now(),
        }
    }

    pub fn interest(&self) -> Interest {
        #[cfg(feature = "exec")]
        if let Phase::Awaiting(_) = self.phase {
            // Only whether the peer is still there.
            return sys::interest(self.socket.as_fd(), 0);
        }
        let events = if self.sending.is_empty() {
            libc::POLLIN
        } else {
            libc::POLLOUT
        };
        sys::interest(self.socket.as_fd(), events)
    }

    /// Which of many connections to give up first: the one with the smallest of these,
    /// an idle one before one that is at work, and the oldest of either.
    pub fn worth(&self) -> (bool, Instant) {
        (!self.is_idle(), self.since)
    }

    /// When the peer's time is up; None while nothing is under way.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Lingering => Some(self.since + LINGERING),
            #[cfg(feature = "exec")]
            Phase::Awaiting(_) => None,
            _ if self.is_idle() => None,
            _ => Some(self.since + STALLED),
        }
    }

    fn is_idle(&self) -> bool {
        self.phase == Phase::Open && self.sending.is_empty() && !self.reader.is_midway()
    }

    /// Whether the answer with this number is to be delivered here.
    #[cfg(feature = "exec")]
    pub fn awaits(&self, number: u8) -> bool {
        self.phase == Phase::Awaiting(number)
    }

    /// Gives the peer the answer that it awaits.
    #[cfg(feature = "exec")]
    pub fn deliver(&mut self, frame: Vec<u8>) {
        self.enter(Phase::Open);
        self.sending = frame;
        self.sent = 0;
    }

    /// Does what can be done without waiting; false when the connection is over.
    pub fn proceed(&mut self, answerer: &mut dyn Answerer) -> bool {
        for _ in 0..TURN {
            match self.step(answerer) {
                Ok(Step::Taken) => {}
                Ok(Step::Blocked) => return true,
                Ok(Step::Over) => return false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn step(&mut self, answerer: &mut dyn Answerer) -> io::Result<Step> {
        if !self.sending.is_empty() {
            return self.send();
        }
        match self.phase {
            Phase::Open => self.receive(answerer),
            // Nothing was to be told of it but that it is gone.
            #[cfg(feature = "exec")]
            Phase::Awaiting(_) => Ok(Step::Over),
            Phase::Closing => {
                sys::finish_sending(self.socket.as_fd());
                self.enter(Phase::Lingering);
                Ok(Step::Taken)
            }
            Phase::Lingering => match sys::receive(self.socket.as_fd(), &mut [0; 4096])? {
                0 => Ok(Step::Over),
                _ => Ok(Step::Taken),
            },
        }
    }

    fn receive(&mut self, answerer: &mut dyn Answerer) -> io::Result<Step> {
        let was_midway = self.reader.is_midway();
        let socket = self.socket.as_fd();
        let progress = self.reader.advance(|room| sys::receive(socket, room))?;
        if !was_midway {
            self.since = Instant::now();
        }
        let answer = match progress {
            Progress::Waiting => return Ok(Step::Blocked),
            Progress::Ended if !self.reader.is_midway() => return Ok(Step::Over),
            Progress::Frame(body) => answerer.answer(&body),
            Progress::Ended => Answer::Last(answerer.refuse("the stream ends within a frame")),
            Progress::TooLong(length) => Answer::Last(answerer.refuse(&format!(
                "the frame has {length} bytes, more than the limit of {LIMIT}"
            ))),
        };
        (self.phase, self.sending) = match answer {
            Answer::Frame(frame) => (Phase::Open, frame),
            Answer::Last(frame) => (Phase::Closing, frame),
            #[cfg(feature = "exec")]
            Answer::Later(number) => {
                self.enter(Phase::Awaiting(number));
                return Ok(Step::Blocked);
            }
        };
        self.since = Instant::now();
        self.sent = 0;
        // At once, so that what a caller does after this turn comes after the answer.
        self.send()
    }

    fn send(&mut self) -> io::Result<Step> {
        self.sent += sys::send(self.socket.as_fd(), &self.sending[self.sent..])?;
        if self.sent == self.sending.len() {
            self.sending = Vec::new();
            self.since = Instant::now();
        }
        Ok(Step::Taken)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    /// Answers with what it was asked; "last" is the last.
    struct Echo;

    impl Answerer for Echo {
        fn answer(&mut self, body: &[u8]) -> Answer {
            if body == b"last" {
                Answer::Last(body.to_vec())
            } else {
                Answer::Frame(body.to_vec())
            }
        }

        fn refuse(&mut self, reason: &str) -> Vec<u8> {
            reason.into()
        }
    }

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours.into()), theirs)
    }

    #[test]
    fn only_a_frame_or_an_answer_under_way_has_a_deadline() {
        let (mut connection, mut peer) = pair();
        assert_eq!(connection.deadline(), None);
        let begun = Instant::now();
        peer.write_all(&[0, 0, 0, 4, b'e']).unwrap();
        assert!(connection.proceed(&mut Echo));
        let deadline = connection.deadline().unwrap();
        assert!(deadline >= begun + STALLED && deadline <= Instant::now() + STALLED);
        peer.write_all(b"ch").unwrap();
        assert!(connection.proceed(&mut Echo));
        assert_eq!(
            connection.deadline(),
            Some(deadline),
            "more bytes give no more time"
        );
        peer.write_all(b"o").unwrap();
        assert!(connection.proceed(&mut Echo));
        assert_eq!(connection.deadline(), None);
        let mut heard = [0; 4];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"echo");
    }

    #[test]
    fn an_answer_that_nobody_takes_has_a_deadline_and_holds_the_next_back() {
        let (mut connection, mut peer) = pair();
        let body = vec![b'x'; LIMIT];
        let frame = [&(LIMIT as u32).to_be_bytes()[..], &body].concat();
        peer.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while taken < 10 * LIMIT {
            match peer.write(&frame[taken % frame.len()..]) {
                Ok(length) => taken += length,
                Err(_) if connection.deadline().is_some() && !connection.sending.is_empty() => {
                    break
                }
                Err(_) => {}
            }
            assert!(connection.proceed(&mut Echo));
        }
        assert!(taken < 10 * LIMIT);
        assert!(connection.deadline().is_some());
        assert_eq!(connection.interest().events, libc::POLLOUT);
    }

    #[test]
    fn after_the_last_answer_the_peer_may_finish_but_is_not_heard() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"\0\0\0\x04last\0\0\0\x05never").unwrap();
        assert!(connection.proceed(&mut Echo));
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last");
        assert!(connection.deadline().unwrap() <= Instant::now() + LINGERING);
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(!connection.proceed(&mut Echo));
    }

    #[test]
    fn an_idle_connection_is_worth_less_than_one_at_work() {
        let (idle, _peer) = pair();
        let (mut midway, mut peer) = pair();
        let (young, _other) = pair();
        peer.write_all(&[0]).unwrap();
        assert!(midway.proceed(&mut Echo));
        assert!(idle.worth() < young.worth());
        assert!(young.worth() < midway.worth());
    }
}
