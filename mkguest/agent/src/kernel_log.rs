//! Marks on the console through the kernel's log, which stamps and keeps them, and how
//! long the guest took until its first answer. See dev-kmsg in the kernel's documentation.

use crate::site::Site;
use crate::sys;
use crate::text;
use std::io::ErrorKind;
use std::os::fd::AsFd;

const LOG: &str = "/dev/kmsg";
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
/// Not shown on the console.
const DEBUG: u8 = 7;

const INIT: &str = "Run /init as init process";
const ANSWERED: &str = "mvm: agent: answered";
const FIRST_ANSWER: &str = "mvm: agent: first answer";

/// Says on the console that something is wrong.
pub fn warn(text: &str, site: &Site) {
    write(WARNING, &format!("mvm: agent: {text}"), site);
}

fn write(level: u8, text: &str, site: &Site) {
    // The kernel cuts a record at some 1,000 bytes, wherever that falls.
    let line = format!("<{level}>{}\n", text::printable(text.as_bytes(), 900));
    if site.write(LOG, line.as_bytes()).is_err() {
        eprint!("{line}");
    }
}

/// Says on the console how long after the start of /init this is; nothing if the log says
/// that it has been said since, by an agent that ran before this one.
pub fn mark_first_answer(site: &Site) {
    // A record of our own tells the time in the clock that the kernel stamps with.
    write(DEBUG, ANSWERED, site);
    let mut milestones = Milestones::default();
    // Failing to read leaves the time unknown, which is then what is said.
    let _ = each_record(site, |record| milestones.note(record));
    match milestones {
        Milestones { marked: true, .. } => {}
        Milestones {
            init: Some(init),
            answer: Some(answer),
            ..
        } => {
            let millis = answer.saturating_sub(init) / 1000;
            let text = format!("{FIRST_ANSWER} {millis} ms after Run /init");
            write(NOTICE, &text, site);
        }
        _ => write(NOTICE, FIRST_ANSWER, site),
    }
}

fn each_record(site: &Site, mut note: impl FnMut(&str)) -> std::io::Result<()> {
    let log = sys::open(&site.c_path(LOG)?, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let mut room = [0; 2048];
    loop {
        match sys::read(log.as_fd(), &mut room) {
            Ok(0) => return Ok(()),
            Ok(length) => note(&String::from_utf8_lossy(&room[..length])),
            // EPIPE: records were overwritten before they were read. EINVAL: a record
            // has no room here, as none that is looked for could. Both have been passed.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EINVAL)) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Stamps of the records that matter, in microseconds.
#[derive(Debug, Default, PartialEq)]
struct Milestones {
    init: Option<u64>,
    answer: Option<u64>,
    marked: bool,
}

impl Milestones {
    /// Takes a record, `LEVEL,NUMBER,STAMP,FLAGS;TEXT` and a new line, then more.
    fn note(&mut self, record: &str) {
        let Some((prefix, rest)) = record.split_once(';') else {
            return;
        };
        let stamp = prefix
            .split(',')
            .nth(2)
            .and_then(|stamp| stamp.parse().ok());
        match rest.lines().next().unwrap_or_default() {
            INIT => self.init = stamp,
            ANSWERED => self.answer = stamp,
            text if text.starts_with(FIRST_ANSWER) => self.marked = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(records: &[&str]) -> Milestones {
        let mut milestones = Milestones::default();
        records.iter().for_each(|record| milestones.note(record));
        milestones
    }

    #[test]
    fn stamps_are_read_from_the_records_that_matter() {
        let milestones = noted(&[
            "6,300,812345,-;Run /init as init process\n SUBSYSTEM=x\n",
            "broken",
            "6,301,812400,-;  with arguments: Run /init as init process\n",
            "15,340,1012345,-;mvm: agent: answered\n",
        ]);
        let expected = Milestones {
            init: Some(812_345),
            answer: Some(1_012_345),
            marked: false,
        };
        assert_eq!(milestones, expected);
    }

    #[test]
    fn a_mark_of_an_earlier_agent_is_seen() {
        assert!(noted(&["13,9,1,-;mvm: agent: first answer 20 ms after Run /init\n"]).marked);
    }
}
