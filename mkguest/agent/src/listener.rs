//! The process that listens to hosts: accepts connections, parses and answers requests,
//! keeps the schedule of checks and probes and reads what they print.
//!
//! Everything from outside is parsed here, so this process holds no right: uid and gid
//! 901 without groups, no capability in any set, NoNewPrivs, no other descriptor than
//! the listening socket and the one to the broker, and limits that let it neither start
//! a process nor write a file. Of system calls it keeps those in `CALLS`. What needs a
//! right it asks of the broker.

use crate::connection::{Answer, Answerer, Connection};
use crate::definitions::Definition;
use crate::drives;
#[cfg(feature = "exec")]
use crate::exec::desk::Desk;
use crate::protocol::{self, Refusal, Request, Response};
use crate::seccomp::{Filter, Verdict};
use crate::site::Site;
use crate::sys::{self, Peer, Pid};
use crate::verbs::{Event, Verb};
use crate::watch::{Watch, Wish};
use crate::worker::Worker;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// User and group `mvm-agent`.
const ID: u32 = 901;
/// The host's context id, the only one that is spoken to (VMADDR_CID_HOST).
const HOST: u32 = 2;
const MOST_CONNECTIONS: usize = 64;
/// Connections, outputs of checks, and a few more.
const MOST_DESCRIPTORS: u64 = 256;
/// How long not to accept after the kernel had no means to.
const PAUSE: Duration = Duration::from_secs(1);

/// What it takes to poll, accept, receive and send, to read the files that answers are
/// made from, and to have memory, none of it executable.
const CALLS: Filter = Filter::new()
    .allowing(&[
        libc::SYS_ppoll,
        libc::SYS_accept4,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_shutdown,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_read,
        libc::SYS_close,
        libc::SYS_brk,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_clock_gettime,
        libc::SYS_restart_syscall,
        libc::SYS_exit_group,
    ])
    .with(libc::SYS_openat, without(2, WRITING))
    .with(libc::SYS_mmap, without(2, libc::PROT_EXEC))
    .with(libc::SYS_mprotect, without(2, libc::PROT_EXEC));
#[cfg(target_arch = "x86_64")]
const CALLS_HERE: Filter = CALLS
    .allowing(&[libc::SYS_poll])
    .with(libc::SYS_open, without(1, WRITING));
#[cfg(target_arch = "aarch64")]
const CALLS_HERE: Filter = CALLS;
static PROGRAM: [libc::sock_filter; CALLS_HERE.length()] = CALLS_HERE.program();

const WRITING: libc::c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

const fn without(argument: u32, bits: libc::c_int) -> Verdict {
    Verdict::Without {
        argument,
        bits: bits as u32,
    }
}

/// Gives up every right. Nothing but the descriptors in `kept` is left. `broker` is the
/// process to end with.
pub fn drop_rights(kept: &[BorrowedFd], broker: Pid) -> io::Result<()> {
    sys::close_all_but(kept)?;
    std::env::set_current_dir("/")?;
    let nothing = sys::open(c"/dev/null", libc::O_RDWR)?;
    for standard in 0..3 {
        sys::redirect(nothing.as_fd(), standard)?;
    }
    drop(nothing);
    sys::limit(libc::RLIMIT_NOFILE as _, MOST_DESCRIPTORS)?;
    sys::limit(libc::RLIMIT_NPROC as _, 0)?;
    sys::limit(libc::RLIMIT_FSIZE as _, 0)?;
    sys::limit(libc::RLIMIT_CORE as _, 0)?;
    become_nobody()?;
    // After the change of user, which undoes it; and the broker may have ended before.
    sys::end_with_parent()?;
    if sys::parent() != broker {
        return Err(ErrorKind::BrokenPipe.into());
    }
    sys::no_new_privileges()?;
    sys::filter_calls(&PROGRAM)
}

fn become_nobody() -> io::Result<()> {
    // An ordinary user's tests have no right to give up, nor to become someone else.
    #[cfg(feature = "testing")]
    if !sys::is_root() {
        return Ok(());
    }
    sys::bound_capabilities(0)?;
    sys::become_user(ID, ID, &[])?;
    sys::set_capabilities(0)
}

pub struct Listener {
    listening: OwnedFd,
    accepting_from: Instant,
    connections: Vec<Connection>,
    guest: Guest,
}

/// What answers are made from.
struct Guest {
    site: Site,
    broker: OwnedFd,
    watches: Vec<Watch>,
    worker: Worker,
    /// A request has been answered, of which the broker is told once.
    answered: bool,
    /// To be asked of the broker once the answer is on its way.
    owed: Option<Verb>,
    #[cfg(feature = "exec")]
    desk: Desk,
}

impl Listener {
    pub fn new(
        listening: OwnedFd,
        broker: OwnedFd,
        definitions: Vec<Definition>,
        site: Site,
        #[cfg(feature = "exec")] desk: Desk,
    ) -> Listener {
        let now = Instant::now();
        Listener {
            listening,
            accepting_from: now,
            connections: Vec::new(),
            guest: Guest {
                site,
                broker,
                watches: definitions
                    .into_iter()
                    .map(|definition| Watch::new(definition, now))
                    .collect(),
                worker: Worker::new(now),
                answered: false,
                owed: None,
                #[cfg(feature = "exec")]
                desk,
            },
        }
    }

    /// Listens until the broker is gone or out of reach.
    pub fn run(mut self) -> io::Result<()> {
        let mut interests = Vec::new();
        loop {
            let now = Instant::now();
            self.guest.tick(now)?;
            self.connections
                .retain(|connection| connection.deadline().is_none_or(|deadline| deadline > now));

            let accepts = self.accepting_from <= now;
            interests.clear();
            interests.push(sys::interest(self.guest.broker.as_fd(), libc::POLLIN));
            interests.push(sys::interest(
                self.listening.as_fd(),
                if accepts { libc::POLLIN } else { 0 },
            ));
            interests.extend(self.connections.iter().map(Connection::interest));
            interests.extend(self.guest.watches.iter().filter_map(Watch::interest));
            #[cfg(feature = "exec")]
            interests.extend(self.guest.desk.interests());
            sys::poll(&mut interests, self.wakes(accepts));

            // In the order in which they were put in, and before anything joins them.
            let mut ready = interests.iter().map(|interest| interest.revents != 0);
            let broker_ready = ready.next() == Some(true);
            let listening_ready = ready.next() == Some(true);
            self.serve(&mut ready)?;
            self.guest.listen(&mut ready)?;
            #[cfg(feature = "exec")]
            if !self.attend_desk(&mut ready)? {
                return Ok(());
            }
            if broker_ready && !self.guest.hear()? {
                return Ok(());
            }
            if listening_ready && accepts {
                self.accept();
            }
        }
    }

    fn wakes(&self, accepts: bool) -> Option<Instant> {
        let connections = self.connections.iter().filter_map(Connection::deadline);
        let watches = self.guest.watches.iter().filter_map(Watch::wakes);
        let others = connections.chain(watches);
        #[cfg(feature = "exec")]
        let others = others.chain(self.guest.desk.wakes());
        others
            .chain([self.guest.worker.wakes()])
            .chain((!accepts).then_some(self.accepting_from))
            .min()
    }

    fn serve(&mut self, ready: &mut dyn Iterator<Item = bool>) -> io::Result<()> {
        let mut result = Ok(());
        self.connections.retain_mut(|connection| {
            let open = ready.next() != Some(true) || connection.proceed(&mut self.guest);
            if let Some(verb) = self.guest.owed.take() {
                result = verb.send(self.guest.broker.as_fd());
            }
            open
        });
        result
    }

    /// Hands answers of commands to the connections that await them; false when the broker
    /// is gone.
    #[cfg(feature = "exec")]
    fn attend_desk(&mut self, ready: &mut dyn Iterator<Item = bool>) -> io::Result<bool> {
        let desk = &mut self.guest.desk;
        let is_there = desk.attend(ready)?;
        for (number, response) in desk.answers() {
            let mut connections = self.connections.iter_mut();
            if let Some(connection) = connections.find(|connection| connection.awaits(number)) {
                connection.deliver(protocol::encode(&response));
            }
        }
        let connections = &self.connections;
        desk.abandon(|number| {
            connections
                .iter()
                .any(|connection| connection.awaits(number))
        })?;
        Ok(is_there)
    }

    fn accept(&mut self) {
        // A bound, so that a flood of connections leaves time for those that are there.
        for _ in 0..MOST_CONNECTIONS {
            match sys::accept(self.listening.as_fd()) {
                Ok((socket, peer)) if is_host(&peer) => self.admit(Connection::new(socket)),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.accepting_from = Instant::now() + PAUSE;
                        return;
                    }
                },
            }
        }
    }

    fn admit(&mut self, connection: Connection) {
        if self.connections.len() >= MOST_CONNECTIONS {
            let all = self.connections.iter().enumerate();
            if let Some((least, _)) = all.min_by_key(|(_, connection)| connection.worth()) {
                self.connections.swap_remove(least);
            }
        }
        self.connections.push(connection);
    }
}

fn is_host(peer: &Peer) -> bool {
    match peer {
        Peer::Vsock { cid } => *cid == HOST,
        Peer::Unix => cfg!(feature = "testing"),
        Peer::Other => false,
    }
}

impl Guest {
    fn tick(&mut self, now: Instant) -> io::Result<()> {
        self.worker.look(now, &self.site);
        for (index, watch) in self.watches.iter_mut().enumerate() {
            if let Some(wish) = watch.wish(now) {
                verb(wish, index).send(self.broker.as_fd())?;
            }
        }
        Ok(())
    }

    /// Reads the outputs that are ready, in the order of their watches.
    fn listen(&mut self, ready: &mut dyn Iterator<Item = bool>) -> io::Result<()> {
        for (index, watch) in self.watches.iter_mut().enumerate() {
            if watch.interest().is_some() && ready.next() == Some(true) {
                if let Some(wish) = watch.listen() {
                    verb(wish, index).send(self.broker.as_fd())?;
                }
            }
        }
        Ok(())
    }

    /// Takes what the broker says; false when it is gone.
    fn hear(&mut self) -> io::Result<bool> {
        loop {
            let (event, output) = match Event::receive(self.broker.as_fd()) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let (Event::Started(index) | Event::Ended(index, _) | Event::Refused(index, _)) = event;
            let Some(watch) = self.watches.get_mut(usize::from(index)) else {
                continue;
            };
            match (event, output) {
                (Event::Started(_), Some(output)) => watch.started(output),
                (Event::Started(_), None) => {}
                (Event::Ended(_, exit), _) => watch.ended(exit, now),
                (Event::Refused(_, number), _) => {
                    let error = io::Error::from_raw_os_error(number.into());
                    watch.refused(&error.to_string(), now);
                }
            }
        }
    }

    fn answer_to(&mut self, request: Request) -> Answer {
        let now = Instant::now();
        if !std::mem::replace(&mut self.answered, true) {
            self.owed = Some(Verb::Answered);
        }
        let response = match request {
            Request::Ping => Response::Pong,
            Request::WorkerStatus => Response::WorkerStatus(self.worker.status(&self.site)),
            Request::IntegrationStatus => Response::IntegrationStatusReport {
                integrations: self
                    .watches
                    .iter()
                    .filter_map(|watch| watch.integration(now))
                    .collect(),
            },
            Request::ProbeStatus => Response::ProbeStatusReport {
                probes: std::iter::once(drives::probe(&self.site))
                    .chain(self.watches.iter().filter_map(Watch::probe))
                    .collect(),
            },
            Request::Shutdown => {
                self.owed = Some(Verb::Shutdown);
                Response::ShutdownAck { success: true }
            }
            #[cfg(feature = "exec")]
            Request::Exec {
                command,
                stdin,
                timeout_secs,
            } => match self.desk.begin(command, stdin, timeout_secs) {
                Ok(number) => return Answer::Later(number),
                Err(message) => Response::Error { message },
            },
        };
        Answer::Frame(protocol::encode(&response))
    }
}

impl Answerer for Guest {
    fn answer(&mut self, body: &[u8]) -> Answer {
        match protocol::parse(body) {
            Ok(request) => self.answer_to(request),
            Err(Refusal::Unknown(message)) => Answer::Frame(self.refuse(&message)),
            Err(Refusal::Malformed(message)) => Answer::Last(self.refuse(&message)),
        }
    }

    fn refuse(&mut self, reason: &str) -> Vec<u8> {
        protocol::encode(&Response::Error {
            message: reason.to_owned(),
        })
    }
}

fn verb(wish: Wish, index: usize) -> Verb {
    // There are never more definitions than fit.
    let index = index as u8;
    match wish {
        Wish::Start => Verb::Start(index),
        Wish::Kill => Verb::Kill(index),
    }
}
