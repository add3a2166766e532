//! The root process: starts and kills checks and ends the guest, on the listener's word,
//! and keeps the listener running. It reads nothing from outside but the listener's fixed
//! verbs, and holds the listening socket, so that the port stays ours while a listener is
//! replaced.
//!
//! It stays uid 0, because control groups and the image's files are root's, and keeps:
//! - CAP_KILL: kills checks, which run as their users;
//! - CAP_SETUID, CAP_SETGID, CAP_SETPCAP: its children become those users and the
//!   listener, and empty their capability sets;
//! - CAP_SYSLOG: reads the kernel's log for the time of the first answer.

use crate::cgroup;
use crate::confine::{self, Job};
use crate::definitions::{self, Definition};
#[cfg(feature = "exec")]
use crate::exec::{desk::Desk, runner::Runner};
use crate::kernel_log;
use crate::listener::{self, Listener};
use crate::site::Site;
use crate::sys::{self, Exit, Pid};
use crate::verbs::{Event, Verb};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP and CAP_SYSLOG, by capability(7) numbers.
const KEPT: u64 = (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8) | (1 << 34);
/// How long to wait before a listener that ended is replaced.
const PAUSE: Duration = Duration::from_secs(1);

struct Broker {
    site: Site,
    /// Who ends the guest when it gets SIGTERM.
    init: Pid,
    listening: OwnedFd,
    definitions: Vec<Definition>,
    /// The running checks, by their index.
    running: BTreeMap<u8, Pid>,
    listener: Option<Pid>,
    /// The way to the listener, while it is to be heard.
    socket: Option<OwnedFd>,
    respawn_at: Instant,
    answered: bool,
    #[cfg(feature = "exec")]
    runner: Runner,
}

/// Serves until something fails that only a new start can mend.
pub fn run(listening: OwnedFd, init: Pid, site: Site) -> io::Result<()> {
    let (definitions, complaints) = definitions::load(&site);
    for complaint in complaints {
        kernel_log::warn(&complaint, &site);
    }
    drop_rights()?;
    let children = sys::child_signals()?;
    let mut broker = Broker {
        #[cfg(feature = "exec")]
        runner: Runner::new(site.clone()),
        site,
        init,
        listening,
        definitions,
        running: BTreeMap::new(),
        listener: None,
        socket: None,
        respawn_at: Instant::now(),
        answered: false,
    };
    // What checks an agent that ran before this one left behind.
    for index in 0..broker.definitions.len() {
        broker.sweep(index);
    }
    loop {
        if broker.listener.is_none() && broker.respawn_at <= Instant::now() {
            broker.spawn_listener()?;
        }
        let mut interests = vec![sys::interest(children.as_fd(), libc::POLLIN)];
        if let Some(socket) = &broker.socket {
            interests.push(sys::interest(socket.as_fd(), libc::POLLIN));
            #[cfg(feature = "exec")]
            interests.extend(broker.runner.interest());
        }
        let until = broker.listener.is_none().then_some(broker.respawn_at);
        sys::poll(&mut interests, until);
        if interests[0].revents != 0 {
            // Its content does not matter: one reading may stand for many children.
            let _ = sys::read(children.as_fd(), &mut [0; 128]);
            while let Some((pid, exit)) = sys::reap() {
                broker.ended(pid, exit);
            }
        }
        if interests.get(1).is_some_and(|socket| socket.revents != 0) {
            broker.hear();
        }
        #[cfg(feature = "exec")]
        if interests.get(2).is_some_and(|socket| socket.revents != 0) && !broker.runner.hear() {
            broker.drop_listener();
        }
    }
}

fn drop_rights() -> io::Result<()> {
    // What the host has run is to have every right, and has none that this does not.
    if cfg!(feature = "exec") {
        return Ok(());
    }
    #[cfg(feature = "testing")]
    if !sys::is_root() {
        return Ok(());
    }
    sys::bound_capabilities(KEPT)?;
    sys::set_capabilities(KEPT)?;
    sys::no_new_privileges()
}

impl Broker {
    fn spawn_listener(&mut self) -> io::Result<()> {
        let (ours, theirs) = sys::message_pair()?;
        #[cfg(feature = "exec")]
        let desk = self.runner.connect()?;
        let broker = sys::own_pid();
        if let Some(pid) = sys::fork()? {
            self.listener = Some(pid);
            self.socket = Some(ours);
            return Ok(());
        }
        // The child has a copy of everything and goes on with these alone.
        let listening = self.listening.try_clone()?;
        let definitions = std::mem::take(&mut self.definitions);
        let site = self.site.clone();
        let kept = [
            listening.as_fd(),
            theirs.as_fd(),
            #[cfg(feature = "exec")]
            desk.as_fd(),
        ];
        let result = listener::drop_rights(&kept, broker).and_then(|()| {
            let listener = Listener::new(
                listening,
                theirs,
                definitions,
                site,
                #[cfg(feature = "exec")]
                Desk::new(desk),
            );
            listener.run()
        });
        // Its standard error leads nowhere: the error's number is all that it can tell.
        sys::exit(result.map_or_else(|error| error.raw_os_error().unwrap_or(1), |()| 0));
    }

    fn hear(&mut self) {
        let Some(socket) = &self.socket else { return };
        match Verb::receive(socket.as_fd(), self.definitions.len()) {
            Ok(Some(verb)) => self.obey(verb),
            Ok(None) => self.drop_listener(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                kernel_log::warn("the listener said what it never says", &self.site);
                self.drop_listener();
            }
        }
    }

    fn obey(&mut self, verb: Verb) {
        match verb {
            Verb::Start(check) => self.start(check),
            Verb::Kill(check) => self.kill(check),
            Verb::Answered if !self.answered => {
                self.answered = true;
                kernel_log::mark_first_answer(&self.site);
            }
            Verb::Answered => {}
            Verb::Shutdown => {
                if let Err(error) = sys::signal(self.init, libc::SIGTERM) {
                    kernel_log::warn(&format!("cannot ask init to end: {error}"), &self.site);
                }
            }
        }
    }

    fn start(&mut self, check: u8) {
        let result = match self.running.get(&check) {
            Some(_) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            None => self.fork_check(usize::from(check)),
        };
        match result {
            Ok((pid, output)) => {
                self.running.insert(check, pid);
                self.tell(Event::Started(check), Some(output));
            }
            Err(error) => {
                let number = error.raw_os_error().unwrap_or_default() as u8;
                self.tell(Event::Refused(check, number), None);
            }
        }
    }

    fn fork_check(&self, index: usize) -> io::Result<(Pid, OwnedFd)> {
        let (reading, writing) = sys::pipe()?;
        if let Some(pid) = sys::fork()? {
            return Ok((pid, reading));
        }
        let definition = &self.definitions[index];
        let job = Job {
            kind: definition.kind,
            name: definition.name.clone(),
            user: definition.user.clone(),
            tier: definition.tier,
            command: definition.command.clone().into_bytes(),
            environment: BTreeMap::new(),
            log_file: None,
        };
        let error = match set_up(&writing) {
            Ok(()) => {
                confine::run(&job, &self.site).map_or_else(|error| error, |never| match never {})
            }
            Err(error) => error.to_string(),
        };
        eprintln!("mvm-confine: it was not started: {error}");
        sys::exit(confine::NOT_STARTED);
    }

    /// Kills the check by every name it has: its process, which may not have entered its
    /// cgroup yet; its session's group, which it may have left; and its cgroup.
    fn kill(&self, check: u8) {
        if let Some(&pid) = self.running.get(&check) {
            for target in [pid, -pid] {
                if let Err(error) = sys::signal(target, libc::SIGKILL) {
                    kernel_log::warn(&format!("cannot kill a check: {error}"), &self.site);
                }
            }
            self.sweep(usize::from(check));
        }
    }

    /// Kills what is in the cgroup of a check.
    fn sweep(&self, index: usize) {
        let definition = &self.definitions[index];
        if let Err(error) = cgroup::kill(definition.kind, &definition.name, &self.site) {
            let name = &definition.name;
            kernel_log::warn(
                &format!("cannot kill the cgroup of {name}: {error}"),
                &self.site,
            );
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        if self.listener == Some(pid) {
            let text = format!("the listener ended ({exit:?}) and is started again");
            kernel_log::warn(&text, &self.site);
            self.listener = None;
            self.socket = None;
            self.respawn_at = Instant::now() + PAUSE;
            // No one is left to hear of them.
            let running: Vec<u8> = self.running.keys().copied().collect();
            running.into_iter().for_each(|check| self.kill(check));
            #[cfg(feature = "exec")]
            self.runner.disconnect();
        }
        #[cfg(feature = "exec")]
        if self.runner.ended(pid, exit) {
            return;
        }
        let found = self.running.iter().find(|(_, &running)| running == pid);
        if let Some((&check, _)) = found {
            self.running.remove(&check);
            self.sweep(usize::from(check));
            self.tell(Event::Ended(check, exit), None);
        }
    }

    fn tell(&mut self, event: Event, output: Option<OwnedFd>) {
        if let Some(socket) = &self.socket {
            // A listener that does not listen is one to replace, not to wait for.
            let output = output.as_ref().map(AsFd::as_fd);
            if event.send(socket.as_fd(), output).is_err() {
                self.drop_listener();
            }
        }
    }

    fn drop_listener(&mut self) {
        self.socket = None;
        if let Some(pid) = self.listener {
            // It cannot fail: the process is our child and not yet reaped.
            let _ = sys::signal(pid, libc::SIGKILL);
        }
    }
}

/// Gives a check a session of its own, no input, and `output` for all that it prints.
fn set_up(output: &OwnedFd) -> io::Result<()> {
    sys::new_session()?;
    let nothing = sys::open(c"/dev/null", libc::O_RDONLY)?;
    sys::redirect(nothing.as_fd(), 0)?;
    sys::redirect(output.as_fd(), 1)?;
    sys::redirect(output.as_fd(), 2)
}
