//! The listener's half of Exec: gives each command a slot and a time, keeps what it prints,
//! and makes the answer. Running it is left to `runner`, and who asked to `listener`.

use super::{News, Order, SLOTS};
use crate::frame;
use crate::protocol::Response;
use crate::sys::{self, Exit, Interest};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const DEFAULT_TIMEOUT: u32 = 60;
const LONGEST_TIMEOUT: u32 = 3600;
/// How much of either output is kept: with this much, an answer is full.
const KEPT: usize = frame::LIMIT;
/// What an answer's two outputs may take in JSON; the rest holds all else of it.
const ROOM: usize = frame::LIMIT - 1024;
/// Pieces that hold all that a pipe does, however it was filled.
const PIPEFUL: usize = 16;
const CUT: &str = "\nmvm-guest-agent: the output was cut to what an answer holds\n";

pub struct Desk {
    broker: OwnedFd,
    runs: [Option<Run>; SLOTS],
    answers: Vec<(u8, Response)>,
}

struct Run {
    timeout: u32,
    ends: Instant,
    output: Output,
    errors: Output,
    /// It is answered; what is left of it has been told to end.
    is_over: bool,
}

#[derive(Default)]
struct Output {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    is_cut: bool,
}

impl Desk {
    pub fn new(broker: OwnedFd) -> Desk {
        Desk {
            broker,
            runs: Default::default(),
            answers: Vec::new(),
        }
    }

    /// Has a command run, and returns the slot under which its answer will come; the error
    /// is the answer of one that is refused.
    pub fn begin(
        &mut self,
        command: String,
        input: Option<String>,
        timeout: Option<u32>,
    ) -> Result<u8, String> {
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
        if !(1..=LONGEST_TIMEOUT).contains(&timeout) {
            return Err(format!(
                "timeout_secs is {timeout}; use 1 to {LONGEST_TIMEOUT}"
            ));
        }
        if command.contains('\0') {
            return Err("the command holds a NUL, which no shell can get".to_owned());
        }
        let free = self.runs.iter().position(Option::is_none);
        let slot = free.ok_or_else(|| format!("{SLOTS} commands run already; try again later"))?;
        let order = Order::Run {
            slot: slot as u8,
            command: command.into(),
            input: input.map(String::into_bytes),
        };
        order
            .send(self.broker.as_fd())
            .map_err(|error| format!("the command cannot be handed on now: {error}"))?;
        self.runs[slot] = Some(Run {
            timeout,
            ends: Instant::now() + Duration::from_secs(timeout.into()),
            output: Output::default(),
            errors: Output::default(),
            is_over: false,
        });
        Ok(slot as u8)
    }

    /// What to poll: the way to the broker, then the outputs.
    pub fn interests(&self) -> impl Iterator<Item = Interest> + '_ {
        let running = self.runs.iter().flatten();
        let outputs = running.flat_map(|run| [&run.output, &run.errors]);
        let pipes = outputs.filter_map(|output| output.pipe.as_ref());
        std::iter::once(&self.broker)
            .chain(pipes)
            .map(|fd| sys::interest(fd.as_fd(), libc::POLLIN))
    }

    /// When a command's time is up, if nothing happens before.
    pub fn wakes(&self) -> Option<Instant> {
        let running = self.runs.iter().flatten();
        running.filter(|run| !run.is_over).map(|run| run.ends).min()
    }

    /// Takes what is ready, in the order of `interests`; false when the broker is gone.
    pub fn attend(&mut self, ready: &mut dyn Iterator<Item = bool>) -> io::Result<bool> {
        let is_told = ready.next() == Some(true);
        for run in self.runs.iter_mut().flatten() {
            for output in [&mut run.output, &mut run.errors] {
                if output.pipe.is_some() && ready.next() == Some(true) {
                    output.listen(4);
                }
            }
        }
        if is_told && !self.hear()? {
            return Ok(false);
        }
        let now = Instant::now();
        for slot in 0..SLOTS {
            let running = self.runs[slot].as_ref().filter(|run| !run.is_over);
            if let Some(run) = running.filter(|run| run.ends <= now) {
                let seconds = run.timeout;
                let message = format!("the command did not end within {seconds} s and was killed");
                self.answers.push((slot as u8, Response::Error { message }));
                self.kill(slot)?;
            }
        }
        Ok(true)
    }

    /// Ends the commands whose answer nobody awaits any more.
    pub fn abandon(&mut self, is_awaited: impl Fn(u8) -> bool) -> io::Result<()> {
        for slot in 0..SLOTS {
            if !is_awaited(slot as u8) {
                self.kill(slot)?;
            }
        }
        Ok(())
    }

    /// The answers that are ready.
    pub fn answers(&mut self) -> Vec<(u8, Response)> {
        std::mem::take(&mut self.answers)
    }

    fn kill(&mut self, slot: usize) -> io::Result<()> {
        match &mut self.runs[slot] {
            Some(run) if !run.is_over => {
                run.is_over = true;
                run.output = Output::default();
                run.errors = Output::default();
                Order::Kill(slot as u8).send(self.broker.as_fd())
            }
            _ => Ok(()),
        }
    }

    fn hear(&mut self) -> io::Result<bool> {
        loop {
            let (news, pipe) = match News::receive(self.broker.as_fd()) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let (News::Output(slot)
            | News::Errors(slot)
            | News::Ended(slot, _)
            | News::Refused(slot, _)) = news;
            let Some(place) = self.runs.get_mut(usize::from(slot)) else {
                continue;
            };
            let Some(run) = place else { continue };
            match news {
                // Of one that is over, nothing is read any more.
                News::Output(_) | News::Errors(_) if run.is_over => {}
                News::Output(_) => run.output.pipe = pipe,
                News::Errors(_) => run.errors.pipe = pipe,
                News::Ended(_, exit) => {
                    if let Some(run) = place.take().filter(|run| !run.is_over) {
                        self.answers.push((slot, run.result(exit)));
                    }
                }
                News::Refused(_, number) => {
                    let error = io::Error::from_raw_os_error(number.into());
                    let message = format!("the command could not be started: {error}");
                    *place = None;
                    self.answers.push((slot, Response::Error { message }));
                }
            }
        }
    }
}

impl Run {
    /// The answer once it has ended.
    fn result(mut self, exit: Exit) -> Response {
        self.output.listen(PIPEFUL);
        self.errors.listen(PIPEFUL);
        let exit_code = match exit {
            Exit::Code(code) => code.into(),
            // As a shell says it.
            Exit::Signal(signal) => 128 + i32::from(signal),
        };
        let mut stdout = String::from_utf8_lossy(&self.output.kept).into_owned();
        let mut stderr = String::from_utf8_lossy(&self.errors.kept).into_owned();
        let mut is_cut = self.output.is_cut || self.errors.is_cut;
        // Half the room is either's; what one leaves is the other's.
        let reserved = fitting(&stderr, ROOM / 2).1;
        is_cut |= cut(&mut stdout, ROOM - reserved);
        let taken = fitting(&stdout, ROOM).1;
        is_cut |= cut(&mut stderr, ROOM - taken);
        if is_cut {
            stderr.push_str(CUT);
        }
        Response::ExecResult {
            exit_code,
            stdout,
            stderr,
        }
    }
}

impl Output {
    /// Reads what is there, in at most so many pieces of 16 KiB.
    fn listen(&mut self, pieces: usize) {
        let mut chunk = [0; 16 * 1024];
        for _ in 0..pieces {
            let Some(pipe) = self.pipe.as_ref().map(AsFd::as_fd) else {
                return;
            };
            match sys::read(pipe, &mut chunk) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.pipe = None,
                Ok(length) => {
                    let kept = length.min(KEPT - self.kept.len());
                    self.kept.extend_from_slice(&chunk[..kept]);
                    self.is_cut |= kept < length;
                }
            }
        }
    }
}

/// Cuts the text to what takes at most `room` in JSON; whether anything had to go.
fn cut(text: &mut String, room: usize) -> bool {
    let (length, _) = fitting(text, room);
    let is_cut = length < text.len();
    text.truncate(length);
    is_cut
}

/// How long the beginning of the text is that takes at most `room` bytes in JSON, and how
/// many it takes.
fn fitting(text: &str, room: usize) -> (usize, usize) {
    let mut taken = 0;
    for (at, character) in text.char_indices() {
        let size = match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        if taken + size > room {
            return (at, taken);
        }
        taken += size;
    }
    (text.len(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    fn result(output: &[u8], errors: &[u8]) -> Response {
        let of = |text: &[u8]| Output {
            pipe: None,
            kept: text.to_vec(),
            is_cut: false,
        };
        let run = Run {
            timeout: 1,
            ends: Instant::now(),
            output: of(output),
            errors: of(errors),
            is_over: false,
        };
        run.result(Exit::Code(0))
    }

    #[test]
    fn the_room_that_text_takes_is_what_its_json_takes() {
        let all: String = (0..=0x250).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(fitting(&all, usize::MAX), (all.len(), json.len() - 2));
        assert_eq!(fitting("aé\u{1b}", 3), (3, 3));
        assert_eq!(fitting("aé\u{1b}", 8), (3, 3));
        assert_eq!(fitting("aé", 2), (1, 1));
    }

    #[test]
    fn any_output_fits_into_an_answer_and_says_if_it_was_cut() {
        let texts: [&[u8]; 5] = [b"", b"short\n", &[b'x'; KEPT], &[0x1b; KEPT], &[0xff; KEPT]];
        for output in texts {
            for errors in texts {
                let response = result(output, errors);
                let Response::ExecResult { stdout, stderr, .. } = &response else {
                    panic!("a command that ended has a result");
                };
                let is_small = output.len() + errors.len() < 100;
                assert_eq!(stderr.ends_with(CUT), !is_small);
                assert_eq!(stdout.is_empty(), output.is_empty());
                let frame = protocol::encode(&response);
                assert!(
                    frame[4..].starts_with(b"{\"ExecResult\""),
                    "{}",
                    frame.len()
                );
            }
        }
    }

    #[test]
    fn what_one_output_leaves_is_the_others() {
        let Response::ExecResult { stdout, stderr, .. } = result(&[b'x'; 200_000], b"few") else {
            panic!("a command that ended has a result");
        };
        assert_eq!((stdout.len(), &*stderr), (200_000, "few"));
    }
}
