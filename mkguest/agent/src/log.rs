//! The log file of a service: a process of its own appends to it what the service prints,
//! as the service's user, and keeps it from growing without end. Which service has one is
//! left to `confine`.

use crate::accounts::Account;
use crate::cgroup::{self, Kind};
use crate::confine;
use crate::seccomp::{Filter, Verdict};
use crate::site::Site;
use crate::sys::{self, Exit};
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

/// How long a log grows before it becomes the old one, FILE.1, and another is begun.
const LIMIT: u64 = 1024 * 1024;
const MODE: u32 = 0o640;
const APPENDING: libc::c_int =
    libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NONBLOCK | libc::O_NOCTTY;

/// What the writer needs to read, write and rotate, and to have memory, none of it executable.
const CALLS: Filter = Filter::new()
    .allowing(&[
        libc::SYS_ppoll,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_openat2,
        libc::SYS_renameat,
        libc::SYS_ftruncate,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_brk,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_restart_syscall,
        libc::SYS_exit_group,
    ])
    .with(
        libc::SYS_mmap,
        Verdict::Without {
            argument: 2,
            bits: libc::PROT_EXEC as u32,
        },
    );
#[cfg(target_arch = "x86_64")]
const CALLS_HERE: Filter = CALLS.allowing(&[libc::SYS_poll]);
#[cfg(target_arch = "aarch64")]
const CALLS_HERE: Filter = CALLS;
static PROGRAM: [libc::sock_filter; CALLS_HERE.length()] = CALLS_HERE.program();

/// Starts the writer of a service's log, and returns what the service is to print into.
/// None, and the reason on standard error, if the log cannot be had.
pub fn start(service: &str, path: &str, account: &Account, site: &Site) -> Option<OwnedFd> {
    let start = || {
        let (reading, writing) = sys::pipe()?;
        let Some(child) = sys::fork()? else {
            drop(writing);
            sys::exit(become_writer(&reading, service, path, account, site));
        };
        match sys::wait(child)? {
            Exit::Code(0) => Ok(Some(writing)),
            // It has said why.
            _ => Ok(None),
        }
    };
    start().unwrap_or_else(|error: io::Error| {
        complain(service, path, &error);
        None
    })
}

fn complain(service: &str, path: &str, error: &io::Error) {
    eprintln!("mvm-confine: service {service}: cannot open its log {path}, so that its output goes to the console: {error}");
}

/// Confines this process, opens the log, and leaves the writing to a child, which thereby is
/// no child of the service: that would wait for it as for its own.
fn become_writer(
    reading: &OwnedFd,
    service: &str,
    path: &str,
    account: &Account,
    site: &Site,
) -> libc::c_int {
    let open = || {
        sys::close_all_but(&[reading.as_fd()])?;
        sys::new_session()?;
        // Told to end as the service is, it would lose the service's last words.
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            sys::ignore(signal);
        }
        cgroup::join(Kind::Log, service, site)?;
        confine::drop_rights(account)?;
        let log = Log::open(path, site)?;
        if sys::fork()?.is_some() {
            return Ok(None);
        }
        std::env::set_current_dir("/")?;
        sys::filter_calls(&PROGRAM)?;
        Ok(Some(log))
    };
    match open() {
        Ok(Some(log)) => write(reading, log, |error| {
            eprintln!("mvm-confine: service {service}: its log {path} takes no more, and what it prints is lost: {error}");
        }),
        Ok(None) => {}
        Err(error) => {
            complain(service, path, &error);
            return 1;
        }
    }
    0
}

/// Copies to the log until the last writer is gone. What does not fit is lost rather than
/// waited for, and said once.
fn write(reading: &OwnedFd, mut log: Log, complain: impl Fn(&io::Error)) {
    let mut room = [0; 16 * 1024];
    let mut complained = false;
    loop {
        sys::poll(&mut [sys::interest(reading.as_fd(), libc::POLLIN)], None);
        let result = match sys::read(reading.as_fd(), &mut room) {
            Ok(0) => return,
            Ok(length) => log.take(&room[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => return complain(&error),
        };
        if let Err(error) = result {
            if !std::mem::replace(&mut complained, true) {
                complain(&error);
            }
        }
    }
}

struct Log {
    directory: OwnedFd,
    name: CString,
    old_name: CString,
    file: OwnedFd,
    size: u64,
}

impl Log {
    fn open(path: &str, site: &Site) -> io::Result<Log> {
        let (parent, name) = path.rsplit_once('/').ok_or(ErrorKind::InvalidInput)?;
        let parent = site.c_path(&format!("{parent}/"))?;
        let name = CString::new(name)?;
        let old_name = CString::new([name.as_bytes(), b".1"].concat())?;
        let directory = sys::open_directly(None, &parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let (file, size) = begin(&directory, &name)?;
        Ok(Log {
            directory,
            name,
            old_name,
            file,
            size,
        })
    }

    /// Appends; the log may be rotated after the last line of `text`.
    fn take(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size + (text.len() as u64) < LIMIT {
            return self.append(text);
        }
        let last = text.iter().rposition(|&byte| byte == b'\n');
        let (lines, rest) = text.split_at(last.map_or(text.len(), |last| last + 1));
        // On a full disk too: giving the old log up makes room.
        let appended = self.append(lines);
        self.rotate()?;
        appended.and(self.append(rest))
    }

    fn append(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match sys::write(self.file.as_fd(), text) {
                Ok(length) => {
                    self.size += length as u64;
                    text = &text[length..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let directory = self.directory.as_fd();
        match sys::rename(directory, &self.name, &self.old_name) {
            Ok(()) => (self.file, self.size) = begin(&self.directory, &self.name)?,
            // Where the user may not rename, the beginning is lost instead.
            Err(_) => {
                sys::empty(self.file.as_fd())?;
                self.size = 0;
            }
        }
        Ok(())
    }
}

fn begin(directory: &OwnedFd, name: &CString) -> io::Result<(OwnedFd, u64)> {
    let file = sys::open_directly(Some(directory.as_fd()), name, APPENDING, MODE)?;
    match sys::regular_size(file.as_fd())? {
        Some(size) => Ok((file, size)),
        None => Err(io::Error::other("it is not a regular file")),
    }
}
