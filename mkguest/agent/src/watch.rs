//! One health check or probe over time: when it is due, what it printed, what the last
//! run said. Starting and killing it is left to `broker`, on `listener`'s word.

use crate::cgroup::Kind;
use crate::definitions::Definition;
use crate::protocol::{Health, Integration, IntegrationState, Probe};
use crate::sys::{self, Exit, Interest};
use crate::text;
use crate::time;
use serde_json::Value;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

/// How much of its output a run keeps, in bytes, and after how much it is killed.
const KEPT: usize = 4 * 1024;
const MOST_OUTPUT: usize = 1024 * 1024;
/// A check that has yet to become healthy within its grace runs at least this often, so
/// that a service counts as up soon after it is, not an interval later.
const GRACE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Watch {
    pub definition: Definition,
    grace_ends: Instant,
    next: Instant,
    run: Option<Run>,
    last: Option<Verdict>,
    was_healthy: bool,
}

struct Run {
    started: Instant,
    output: Option<OwnedFd>,
    kept: Vec<u8>,
    length: usize,
    /// Its verdict is spoken; what is left of it has been told to end.
    is_over: bool,
}

struct Verdict {
    healthy: bool,
    detail: String,
    output: Option<Value>,
    at: SystemTime,
}

/// What a watch wants done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    Start,
    Kill,
}

impl Watch {
    /// A watch whose first run is due `now`.
    pub fn new(definition: Definition, now: Instant) -> Watch {
        Watch {
            grace_ends: now + definition.grace,
            definition,
            next: now,
            run: None,
            last: None,
            was_healthy: false,
        }
    }

    /// When `wish` is to be asked next, if nothing happens before.
    pub fn wakes(&self) -> Option<Instant> {
        match &self.run {
            None => Some(self.next),
            Some(run) if run.is_over => None,
            Some(run) => Some(run.started + self.definition.timeout),
        }
    }

    /// What is to be done at `now`; once told, it counts as done.
    pub fn wish(&mut self, now: Instant) -> Option<Wish> {
        match &self.run {
            None if self.next <= now => {
                self.run = Some(Run {
                    started: now,
                    output: None,
                    kept: Vec::new(),
                    length: 0,
                    is_over: false,
                });
                Some(Wish::Start)
            }
            Some(run) if !run.is_over && run.started + self.definition.timeout <= now => {
                let seconds = self.definition.timeout.as_secs();
                self.cut_short(&format!("no result within {seconds} s"));
                Some(Wish::Kill)
            }
            _ => None,
        }
    }

    /// The run has begun and prints into `output`.
    pub fn started(&mut self, output: OwnedFd) {
        if let Some(run) = &mut self.run {
            run.output = Some(output);
        }
    }

    /// What to poll for its output, while there may be some.
    pub fn interest(&self) -> Option<Interest> {
        let output = self.run.as_ref()?.output.as_ref()?;
        Some(sys::interest(output.as_fd(), libc::POLLIN))
    }

    /// Takes what has been printed, a pipe's worth at most; `Kill` once it is too much.
    pub fn listen(&mut self) -> Option<Wish> {
        let run = self.run.as_mut()?;
        let mut chunk = [0; 4096];
        for _ in 0..16 {
            let Some(output) = &run.output else { break };
            match sys::read(output.as_fd(), &mut chunk) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => run.output = None,
                Ok(length) => {
                    let room = KEPT - run.kept.len();
                    run.kept.extend_from_slice(&chunk[..length.min(room)]);
                    run.length += length;
                }
            }
        }
        if run.length > MOST_OUTPUT && !run.is_over {
            self.cut_short("it printed more than 1 MiB");
            return Some(Wish::Kill);
        }
        None
    }

    /// The run has ended, and nothing of it is left.
    pub fn ended(&mut self, exit: Exit, now: Instant) {
        self.listen();
        let failure = match exit {
            Exit::Code(0) => None,
            Exit::Code(code) => Some(format!("exit status {code}")),
            Exit::Signal(signal) => Some(format!("killed by signal {signal}")),
        };
        self.finish(failure, now);
    }

    /// The run could not begin.
    pub fn refused(&mut self, reason: &str, now: Instant) {
        self.finish(Some(format!("it could not be started: {reason}")), now);
    }

    fn finish(&mut self, failure: Option<String>, now: Instant) {
        let Some(run) = &self.run else { return };
        let started = run.started;
        if !run.is_over {
            self.conclude(failure);
        }
        self.run = None;
        let interval = if self.is_starting(now) {
            self.definition.interval.min(GRACE_INTERVAL)
        } else {
            self.definition.interval
        };
        self.next = (started + interval).max(now);
    }

    fn cut_short(&mut self, failure: &str) {
        self.conclude(Some(failure.to_owned()));
        if let Some(run) = &mut self.run {
            run.is_over = true;
            run.output = None;
        }
    }

    /// Speaks the verdict on the current run: healthy unless there is a `failure`, or
    /// the output should be JSON and is not.
    fn conclude(&mut self, mut failure: Option<String>) {
        let printed = self.run.as_ref().map_or(&[][..], |run| &run.kept);
        let mut output = None;
        let mut said = text::printable(printed, KEPT);
        if self.definition.is_json {
            match serde_json::from_slice(printed) {
                Ok(value) => {
                    output = Some(printable(value));
                    said = String::new();
                }
                Err(error) if failure.is_none() => {
                    failure = Some(format!("the output is not JSON: {error}"));
                }
                Err(_) => {}
            }
        }
        let healthy = failure.is_none();
        let detail = match failure {
            Some(failure) if said.is_empty() => failure,
            Some(failure) => format!("{failure}: {said}"),
            None => said,
        };
        self.was_healthy |= healthy;
        self.last = Some(Verdict {
            healthy,
            detail,
            output,
            at: SystemTime::now(),
        });
    }

    fn is_starting(&self, now: Instant) -> bool {
        !self.was_healthy && now < self.grace_ends
    }

    /// What a host hears of it, if it is a health check.
    pub fn integration(&self, now: Instant) -> Option<Integration> {
        let status = match &self.last {
            _ if self.is_starting(now) => IntegrationState::Starting,
            None => IntegrationState::Pending,
            Some(verdict) if verdict.healthy => IntegrationState::Active,
            Some(verdict) => IntegrationState::Error(verdict.detail.clone()),
        };
        (self.definition.kind == Kind::Check).then(|| Integration {
            name: self.definition.name.clone(),
            status,
            last_checkpoint_at: None,
            state_size_bytes: 0,
            health: self.last.as_ref().map(|verdict| Health {
                healthy: verdict.healthy,
                detail: verdict.detail.clone(),
                checked_at: time::iso8601(verdict.at),
            }),
        })
    }

    /// What a host hears of it, if it is a probe that has run.
    pub fn probe(&self) -> Option<Probe> {
        let verdict = self.last.as_ref()?;
        (self.definition.kind == Kind::Probe).then(|| Probe {
            name: self.definition.name.clone(),
            healthy: verdict.healthy,
            detail: verdict.detail.clone(),
            output: verdict.output.clone(),
            checked_at: time::iso8601(verdict.at),
        })
    }
}

/// The value with nothing in its strings and keys that a terminal obeys.
fn printable(value: Value) -> Value {
    let text = |text: String| text::printable(text.as_bytes(), KEPT);
    match value {
        Value::String(string) => Value::String(text(string)),
        Value::Array(items) => items.into_iter().map(printable).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (text(key), printable(value)))
            .collect(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::Tier;
    use std::io::Write;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(grace: u32, is_json: bool) -> (Watch, Instant) {
        let now = Instant::now();
        let definition = Definition {
            kind: if is_json { Kind::Probe } else { Kind::Check },
            name: "web".to_owned(),
            user: "mvm".to_owned(),
            tier: Tier::Standard,
            command: "true".to_owned(),
            interval: 30 * SECOND,
            timeout: 10 * SECOND,
            grace: grace * SECOND,
            is_json,
        };
        (Watch::new(definition, now), now)
    }

    fn print(watch: &mut Watch, bytes: &[u8]) {
        let (reading, writing) = sys::pipe().unwrap();
        std::fs::File::from(writing).write_all(bytes).unwrap();
        watch.started(reading);
    }

    fn run(watch: &mut Watch, now: Instant, printed: &[u8], exit: Exit) {
        assert_eq!(watch.wish(now), Some(Wish::Start));
        print(watch, printed);
        watch.ended(exit, now);
    }

    fn status(watch: &Watch, now: Instant) -> IntegrationState {
        watch.integration(now).unwrap().status
    }

    #[test]
    fn the_first_run_is_due_at_once_and_the_next_an_interval_later() {
        let (mut watch, now) = watch(0, false);
        assert_eq!(status(&watch, now), IntegrationState::Pending);
        run(&mut watch, now, b"", Exit::Code(0));
        assert_eq!(status(&watch, now), IntegrationState::Active);
        assert_eq!(watch.wakes(), Some(now + 30 * SECOND));
        assert_eq!(watch.wish(now + 29 * SECOND), None);
        assert_eq!(watch.wish(now + 30 * SECOND), Some(Wish::Start));
    }

    #[test]
    fn a_run_that_is_under_way_is_not_started_again() {
        let (mut watch, now) = watch(0, false);
        assert_eq!(watch.wish(now), Some(Wish::Start));
        assert_eq!(watch.wish(now), None);
        assert_eq!(watch.wish(now + 9 * SECOND), None);
    }

    #[test]
    fn a_run_out_of_time_is_unhealthy_before_it_has_ended() {
        let (mut watch, now) = watch(0, false);
        watch.wish(now);
        print(&mut watch, b"half a");
        watch.listen();
        assert_eq!(watch.wakes(), Some(now + 10 * SECOND));
        assert_eq!(watch.wish(now + 10 * SECOND), Some(Wish::Kill));
        let expected = "no result within 10 s: half a".to_owned();
        assert_eq!(status(&watch, now), IntegrationState::Error(expected));
        assert_eq!(watch.wakes(), None);
        watch.ended(Exit::Signal(9), now + 40 * SECOND);
        let health = watch.integration(now).unwrap().health.unwrap();
        assert_eq!(health.detail, "no result within 10 s: half a");
        assert_eq!(watch.wakes(), Some(now + 40 * SECOND));
    }

    #[test]
    fn a_failure_within_the_grace_is_starting_and_is_tried_again_soon() {
        let (mut watch, now) = watch(5, false);
        assert_eq!(status(&watch, now), IntegrationState::Starting);
        run(&mut watch, now, b"", Exit::Code(1));
        assert_eq!(status(&watch, now), IntegrationState::Starting);
        assert!(!watch.integration(now).unwrap().health.unwrap().healthy);
        assert_eq!(watch.wakes(), Some(now + SECOND));
        let late = now + 5 * SECOND;
        assert_eq!(
            status(&watch, late),
            IntegrationState::Error("exit status 1".to_owned())
        );
    }

    #[test]
    fn once_healthy_a_check_is_starting_no_more() {
        let (mut watch, now) = watch(500, false);
        run(&mut watch, now, b"", Exit::Code(0));
        assert_eq!(status(&watch, now), IntegrationState::Active);
        let later = now + 30 * SECOND;
        run(&mut watch, later, b"gone", Exit::Code(3));
        let expected = IntegrationState::Error("exit status 3: gone".to_owned());
        assert_eq!(status(&watch, later), expected);
        assert_eq!(watch.wakes(), Some(later + 30 * SECOND));
    }

    #[test]
    fn of_much_output_the_beginning_is_kept() {
        let (mut watch, now) = watch(0, false);
        run(&mut watch, now, &[b'x'; 60_000], Exit::Code(0));
        let health = watch.integration(now).unwrap().health.unwrap();
        assert_eq!(health.detail, "x".repeat(KEPT));
    }

    #[test]
    fn endless_output_gets_the_run_killed() {
        let (mut watch, now) = watch(0, false);
        watch.wish(now);
        let killed = (0..30).find_map(|_| {
            print(&mut watch, &[b'x'; 50_000]);
            watch.listen()
        });
        assert_eq!(killed, Some(Wish::Kill));
        let health = watch.integration(now).unwrap().health.unwrap();
        assert!(health.detail.starts_with("it printed more than 1 MiB: xxx"));
        assert!(!health.healthy);
        assert!(watch.interest().is_none());
    }

    #[test]
    fn a_json_probe_hands_its_output_over_without_control_characters() {
        let (mut watch, now) = watch(0, true);
        assert!(watch.probe().is_none());
        run(
            &mut watch,
            now,
            br#"{"a\u001b": ["\u009b1m", 1.5, null]}"#,
            Exit::Code(0),
        );
        let probe = watch.probe().unwrap();
        assert!(probe.healthy);
        let expected = serde_json::json!({"a\u{fffd}": ["\u{fffd}1m", 1.5, null]});
        assert_eq!(probe.output, Some(expected));
        assert!(watch.integration(now).is_none());
    }

    #[test]
    fn a_json_probe_that_prints_something_else_is_unhealthy() {
        for printed in [&b"ok"[..], b"", &b"[".repeat(3000)] {
            let (mut watch, now) = watch(0, true);
            run(&mut watch, now, printed, Exit::Code(0));
            let probe = watch.probe().unwrap();
            assert!(!probe.healthy);
            assert!(
                probe.detail.starts_with("the output is not JSON"),
                "{}",
                probe.detail
            );
        }
    }
}
