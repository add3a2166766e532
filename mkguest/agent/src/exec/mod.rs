//! Exec, in agents of the variant dev alone: what the listener's `desk` and the broker's
//! `runner` say to each other about commands of the host, each message checked when it is
//! read. It has a way of its own, so that the one of `verbs` stays made of numbers.

pub mod desk;
pub mod runner;

use crate::frame;
use crate::sys::{self, Exit};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How many commands run at once; each has one of these slots.
const SLOTS: usize = 8;

/// Before the texts of an order to run: what it is, its slot, whether there is input, and
/// how long the command is.
const HEADER: usize = 7;
/// Command and input came in a frame, which escapes make longer, never shorter.
const LONGEST_ORDER: usize = HEADER + frame::LIMIT;
const LONGEST_NEWS: usize = 3;

/// What the listener may ask for.
#[derive(Debug, PartialEq)]
enum Order {
    Run {
        slot: u8,
        command: Vec<u8>,
        input: Option<Vec<u8>>,
    },
    Kill(u8),
}

/// What the broker tells of a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
enum News {
    /// The reading end of the standard output comes with this.
    Output(u8),
    /// The reading end of the standard error comes with this.
    Errors(u8),
    /// The command, and everything that it left behind, has ended.
    Ended(u8, Exit),
    /// It could not be started, for this error number.
    Refused(u8, u8),
}

/// A connected pair of sockets through which the longest order fits.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = sys::message_pair()?;
    sys::make_room(&pair.1, LONGEST_ORDER)?;
    Ok(pair)
}

impl Order {
    fn send(&self, socket: BorrowedFd) -> io::Result<()> {
        let message = match self {
            Order::Kill(slot) => vec![2, *slot],
            Order::Run {
                slot,
                command,
                input,
            } => {
                let length = (command.len() as u32).to_le_bytes();
                let head = [1, *slot, input.is_some().into()];
                let input = input.as_deref().unwrap_or_default();
                [&head, &length[..], command, input].concat()
            }
        };
        sys::send_message(socket, &message, None)
    }

    /// None at the end of the stream, `InvalidData` for anything that is no order.
    fn receive(socket: BorrowedFd) -> io::Result<Option<Order>> {
        let mut room = vec![0; LONGEST_ORDER + 1];
        let (length, _) = sys::receive_message(socket, &mut room)?;
        room.truncate(length);
        let known = |slot: u8| usize::from(slot) < SLOTS;
        let order = match room[..] {
            [] => return Ok(None),
            [2, slot] if known(slot) => Some(Order::Kill(slot)),
            [1, slot, has_input @ 0..=1, a, b, c, d, ref texts @ ..]
                if known(slot) && length <= LONGEST_ORDER =>
            {
                let command = u32::from_le_bytes([a, b, c, d]) as usize;
                let texts = texts.split_at_checked(command);
                texts
                    .filter(|(command, input)| {
                        !command.contains(&0) && (has_input == 1 || input.is_empty())
                    })
                    .map(|(command, input)| Order::Run {
                        slot,
                        command: command.to_vec(),
                        input: (has_input == 1).then(|| input.to_vec()),
                    })
            }
            _ => None,
        };
        order.map(Some).ok_or(io::ErrorKind::InvalidData.into())
    }
}

impl News {
    fn send(self, socket: BorrowedFd, output: Option<BorrowedFd>) -> io::Result<()> {
        let message = match self {
            News::Output(slot) => [1, slot, 0],
            News::Errors(slot) => [2, slot, 0],
            News::Ended(slot, Exit::Code(code)) => [3, slot, code],
            News::Ended(slot, Exit::Signal(signal)) => [4, slot, signal],
            News::Refused(slot, number) => [5, slot, number],
        };
        sys::send_message(socket, &message, output)
    }

    /// None at the end of the stream, `InvalidData` for anything that is no news.
    fn receive(socket: BorrowedFd) -> io::Result<Option<(News, Option<OwnedFd>)>> {
        let mut room = [0; LONGEST_NEWS + 1];
        let (length, output) = sys::receive_message(socket, &mut room)?;
        let news = match room[..length] {
            [] => return Ok(None),
            [1, slot, 0] => News::Output(slot),
            [2, slot, 0] => News::Errors(slot),
            [3, slot, code] => News::Ended(slot, Exit::Code(code)),
            [4, slot, signal] => News::Ended(slot, Exit::Signal(signal)),
            [5, slot, number] => News::Refused(slot, number),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some((news, output)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn orders_arrive_as_they_were_sent_up_to_the_longest() {
        let (broker, listener) = pair().unwrap();
        let run = |command: &[u8], input: Option<&[u8]>| Order::Run {
            slot: 7,
            command: command.to_vec(),
            input: input.map(<[u8]>::to_vec),
        };
        for order in [
            Order::Kill(0),
            run(b"", None),
            run(b"cat", Some(b"")),
            run(b"cat", Some(b"a\0b\xff")),
            run(&[b'x'; 1000], Some(&vec![b'y'; frame::LIMIT - 1000])),
        ] {
            order.send(listener.as_fd()).unwrap();
            assert_eq!(Order::receive(broker.as_fd()).unwrap(), Some(order));
        }
        drop(listener);
        assert_eq!(Order::receive(broker.as_fd()).unwrap(), None);
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let (broker, listener) = pair().unwrap();
        let messages: [&[u8]; 9] = [
            &[0],
            &[2, 8],
            &[2, 0, 0],
            &[1, 0, 0],
            &[1, 8, 0, 0, 0, 0, 0],
            &[1, 0, 2, 0, 0, 0, 0],
            &[1, 0, 0, 2, 0, 0, 0, b'x'],
            &[1, 0, 0, 1, 0, 0, 0, b'x', b'y'],
            &[1, 0, 0, 1, 0, 0, 0, 0],
        ];
        let too_long = [&[1, 0, 1, 0, 0, 0, 0][..], &[0; frame::LIMIT + 1]].concat();
        for message in messages.into_iter().chain([&too_long[..]]) {
            sys::send_message(listener.as_fd(), message, None).unwrap();
            let error = Order::receive(broker.as_fd()).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidData,
                "{:?}",
                &message[..2]
            );
        }
    }

    #[test]
    fn news_arrive_as_they_were_sent() {
        let (broker, listener) = pair().unwrap();
        for news in [
            News::Output(1),
            News::Errors(2),
            News::Ended(3, Exit::Code(255)),
            News::Ended(4, Exit::Signal(9)),
            News::Refused(5, 12),
        ] {
            news.send(broker.as_fd(), None).unwrap();
            let (received, output) = News::receive(listener.as_fd()).unwrap().unwrap();
            assert_eq!((received, output.is_none()), (news, true));
        }
    }
}
