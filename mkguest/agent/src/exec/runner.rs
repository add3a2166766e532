//! The broker's half of Exec: runs commands as root, unconfined, each in a cgroup of its own
//! with which everything that it left behind ends. When to give one up is left to `desk`.

use super::{News, Order, SLOTS};
use crate::accounts::Account;
use crate::cgroup::{self, Kind};
use crate::confine;
use crate::environment;
use crate::kernel_log;
use crate::site::Site;
use crate::sys::{self, Exit, Interest, Pid};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

pub struct Runner {
    site: Site,
    /// The way to the listener's desk, while it is to be heard.
    socket: Option<OwnedFd>,
    running: [Option<Pid>; SLOTS],
}

impl Runner {
    pub fn new(site: Site) -> Runner {
        let runner = Runner {
            site,
            socket: None,
            running: [None; SLOTS],
        };
        // What a broker that ran before this one left behind.
        (0..SLOTS).for_each(|slot| runner.sweep(slot));
        runner
    }

    /// Makes a new way to a desk, whose end this returns.
    pub fn connect(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = super::pair()?;
        self.socket = Some(ours);
        Ok(theirs)
    }

    /// Ends every command: no one is left to hear of them.
    pub fn disconnect(&mut self) {
        self.socket = None;
        (0..SLOTS).for_each(|slot| self.kill(slot));
    }

    pub fn interest(&self) -> Option<Interest> {
        let socket = self.socket.as_ref()?;
        Some(sys::interest(socket.as_fd(), libc::POLLIN))
    }

    /// Obeys one order; false if the desk is gone, or says what it never says.
    pub fn hear(&mut self) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        match Order::receive(socket.as_fd()) {
            Ok(Some(Order::Kill(slot))) => self.kill(slot.into()),
            Ok(Some(Order::Run {
                slot,
                command,
                input,
            })) => return self.start(slot, command, input),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => return false,
        }
        true
    }

    fn start(&mut self, slot: u8, command: Vec<u8>, input: Option<Vec<u8>>) -> bool {
        let result = match self.running[usize::from(slot)] {
            Some(_) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            None => self.fork(slot, command, input),
        };
        match result {
            Ok((pid, output, errors)) => {
                self.running[usize::from(slot)] = Some(pid);
                self.tell(News::Output(slot), Some(&output))
                    && self.tell(News::Errors(slot), Some(&errors))
            }
            Err(error) => {
                let number = error.raw_os_error().unwrap_or_default() as u8;
                self.tell(News::Refused(slot, number), None)
            }
        }
    }

    fn fork(
        &self,
        slot: u8,
        command: Vec<u8>,
        input: Option<Vec<u8>>,
    ) -> io::Result<(Pid, OwnedFd, OwnedFd)> {
        let (output, output_end) = sys::pipe()?;
        let (errors, errors_end) = sys::pipe()?;
        if let Some(pid) = sys::fork()? {
            return Ok((pid, output, errors));
        }
        let become_command = || -> Result<std::convert::Infallible, String> {
            let step = |error: io::Error| error.to_string();
            sys::new_session().map_err(step)?;
            let input = match input {
                Some(input) => sys::file_of(&input),
                None => sys::open(c"/dev/null", libc::O_RDONLY),
            };
            sys::redirect(input.map_err(step)?.as_fd(), 0).map_err(step)?;
            sys::redirect(output_end.as_fd(), 1).map_err(step)?;
            sys::redirect(errors_end.as_fd(), 2).map_err(step)?;
            cgroup::join(Kind::Exec, &slot.to_string(), &self.site).map_err(step)?;
            let root = Account {
                name: "root".to_owned(),
                uid: 0,
                gid: 0,
                groups: vec![0],
                home: "/root".to_owned(),
            };
            let environment = environment::of(&root, &BTreeMap::new(), &self.site)?.strings()?;
            let command = CString::new(command).map_err(|error| error.to_string())?;
            std::env::set_current_dir("/").map_err(step)?;
            sys::set_umask(0o022);
            sys::close_on_exec().map_err(step)?;
            sys::reset_signals().map_err(step)?;
            let words = [c"sh", c"-c", &command];
            Err(step(sys::execute(c"/bin/sh", &words, &environment)))
        };
        let Err(error) = become_command();
        eprintln!("mvm-guest-agent: it was not started: {error}");
        sys::exit(confine::NOT_STARTED);
    }

    /// Takes the end of a child; whether it was a command's.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(slot) = self
            .running
            .iter()
            .position(|&running| running == Some(pid))
        else {
            return false;
        };
        self.running[slot] = None;
        self.sweep(slot);
        self.tell(News::Ended(slot as u8, exit), None);
        true
    }

    /// By every name that it has, as the broker does with checks.
    fn kill(&self, slot: usize) {
        if let Some(pid) = self.running[slot] {
            for target in [pid, -pid] {
                // Root may, and a process that is gone is as good as killed.
                let _ = sys::signal(target, libc::SIGKILL);
            }
            self.sweep(slot);
        }
    }

    fn sweep(&self, slot: usize) {
        if let Err(error) = cgroup::kill(Kind::Exec, &slot.to_string(), &self.site) {
            let text = format!("cannot kill the cgroup of a host's command: {error}");
            kernel_log::warn(&text, &self.site);
        }
    }

    /// False if the desk does not listen, which is then one to replace.
    fn tell(&self, news: News, output: Option<&OwnedFd>) -> bool {
        let output = output.map(AsFd::as_fd);
        self.socket
            .as_ref()
            .is_some_and(|socket| news.send(socket.as_fd(), output).is_ok())
    }
}
