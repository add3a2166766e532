//! The system calls that std does not offer, each as a safe function; all of
//! the crate's `unsafe` is here. Deciding what to call is left to the callers.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

pub type Pid = libc::pid_t;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result is a descriptor that the kernel just made for us.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens `path` with `flags`, close-on-exec.
pub fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path is a C string.
    owned(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
}

fn status(fd: BorrowedFd) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is a valid one, and fstat only writes to it.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut status) })?;
    Ok(status)
}

/// The size of a regular file; None if it is something else.
pub fn regular_size(fd: BorrowedFd) -> io::Result<Option<u64>> {
    let status = status(fd)?;
    let is_regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
    Ok(is_regular.then_some(status.st_size as u64))
}

/// Opens `path`, below `directory` if there is one, close-on-exec and without following a
/// link anywhere. A file that it makes gets `mode`.
pub fn open_directly(
    directory: Option<BorrowedFd>,
    path: &CStr,
    flags: libc::c_int,
    mode: u32,
) -> io::Result<OwnedFd> {
    let directory = directory.map_or(libc::AT_FDCWD, |directory| directory.as_raw_fd());
    let flags = (flags | libc::O_CLOEXEC | libc::O_NOFOLLOW) as u64;
    let how: [u64; 3] = [flags, mode.into(), libc::RESOLVE_NO_SYMLINKS];
    // SAFETY: the path is a C string, and the array is the kernel's struct open_how.
    owned(unsafe {
        let size = size_of_val(&how);
        libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), &how, size) as libc::c_int
    })
}

/// Renames within `directory`; what had the new name before is gone.
pub fn rename(directory: BorrowedFd, old: &CStr, new: &CStr) -> io::Result<()> {
    let directory = directory.as_raw_fd();
    // SAFETY: both names are C strings.
    check(unsafe { libc::renameat(directory, old.as_ptr(), directory, new.as_ptr()) }).map(drop)
}

/// Cuts a file to nothing.
pub fn empty(file: BorrowedFd) -> io::Result<()> {
    // SAFETY: ftruncate touches no memory.
    check(unsafe { libc::ftruncate(file.as_raw_fd(), 0) }).map(drop)
}

/// The size of a block device, in bytes.
pub fn device_size(device: BorrowedFd) -> io::Result<u64> {
    // BLKGETSIZE64, which the C library's headers lack.
    const REQUEST: u32 = 0x8008_1272;
    let mut size = 0_u64;
    // SAFETY: the kernel writes eight bytes to the local.
    check(unsafe { libc::ioctl(device.as_raw_fd(), REQUEST as _, &mut size) })?;
    Ok(size)
}

/// Gives the mounted ext4 that `directory` is in this many blocks.
pub fn resize_ext4(directory: BorrowedFd, blocks: u64) -> io::Result<()> {
    // EXT4_IOC_RESIZE_FS, which the C library's headers lack.
    const REQUEST: u32 = 0x4008_6610;
    // SAFETY: the kernel reads eight bytes of the local.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), REQUEST as _, &blocks) }).map(drop)
}

/// What new files of this process are not given.
pub fn set_umask(mask: libc::mode_t) {
    // SAFETY: umask touches no memory, and cannot fail.
    unsafe { libc::umask(mask) };
}

pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is ours for its whole length.
    check_size(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

pub fn write(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are readable for their whole length.
    check_size(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// A pipe, close-on-exec, whose reading end does not block. Returns (reading, writing).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: the array has room for the two descriptors, which are then ours.
    let (reading, writing) = unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    // SAFETY: fcntl with a flag argument touches no memory.
    check(unsafe { libc::fcntl(reading.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((reading, writing))
}

/// A connected pair of sockets that keep the boundaries of messages.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array has room for the two descriptors, which are then ours.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Lets messages of up to `length` bytes be sent through a socket.
#[cfg(feature = "exec")]
pub fn make_room(socket: &OwnedFd, length: usize) -> io::Result<()> {
    // The kernel doubles it for its own needs.
    let size = length as libc::c_int;
    // SAFETY: the option's value is a local of that size.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            ptr::from_ref(&size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// A file in memory that holds `content` and is read from its beginning.
#[cfg(feature = "exec")]
pub fn file_of(content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    // SAFETY: the name is a C string.
    let file = owned(unsafe { libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC) })?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// A listening vsock socket on `port` of any local CID; accepting does not block.
pub fn listen_vsock(port: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket touches no memory.
    let socket = owned(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })?;
    // SAFETY: an all-zero address is a valid one.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is a sockaddr_vm of that length.
    unsafe {
        check(libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            length,
        ))?;
        check(libc::listen(socket.as_raw_fd(), 128))?;
    }
    Ok(socket)
}

/// Who is at the other end of an accepted connection.
#[derive(PartialEq)]
pub enum Peer {
    Vsock { cid: u32 },
    Unix,
    Other,
}

/// Accepts a connection; neither waits for one nor makes one that blocks.
pub fn accept(listening: BorrowedFd) -> io::Result<(OwnedFd, Peer)> {
    // SAFETY: an all-zero address is a valid one.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of the address.
    let socket = owned(unsafe {
        libc::accept4(
            listening.as_raw_fd(),
            ptr::from_mut(&mut address).cast(),
            &mut length,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })?;
    let peer = match libc::c_int::from(address.ss_family) {
        // SAFETY: the family says that this storage holds a sockaddr_vm.
        libc::AF_VSOCK => Peer::Vsock {
            cid: unsafe { (*ptr::from_ref(&address).cast::<libc::sockaddr_vm>()).svm_cid },
        },
        libc::AF_UNIX => Peer::Unix,
        _ => Peer::Other,
    };
    Ok((socket, peer))
}

/// Receives without waiting; 0 is the end of the stream.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is ours for its whole length.
    check_size(unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    })
}

/// Sends without waiting and without SIGPIPE; returns how much was taken.
pub fn send(socket: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are readable for their whole length.
    check_size(unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    })
}

/// Tells the peer that nothing more will be sent.
pub fn finish_sending(socket: BorrowedFd) {
    // SAFETY: shutdown touches no memory. A peer that is gone needs no word.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// Room for one descriptor as ancillary data, aligned as its header must be.
#[repr(C, align(8))]
struct Ancillary([u8; 24]);

/// Sends one message without waiting, with `descriptor` if there is one.
pub fn send_message(
    socket: BorrowedFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd>,
) -> io::Result<()> {
    let mut ancillary = Ancillary([0; 24]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all pointers in the header lead to the locals above, which the kernel
    // only reads and which outlive the call; 24 bytes hold a header and a descriptor.
    check_size(unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        if let Some(descriptor) = descriptor {
            header.msg_control = ancillary.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(4) as _;
            let control = libc::CMSG_FIRSTHDR(&header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(4) as _;
            ptr::write_unaligned(libc::CMSG_DATA(control).cast(), descriptor.as_raw_fd());
        }
        libc::sendmsg(
            socket.as_raw_fd(),
            &header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Receives one message without waiting: its length, 0 at the end of the stream, and
/// the descriptor that came with it.
pub fn receive_message(
    socket: BorrowedFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut ancillary = Ancillary([0; 24]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all pointers in the header lead to the locals above, which outlive the
    // call; a descriptor that the kernel reports is ours.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        header.msg_control = ancillary.0.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as _;
        let length = check_size(libc::recvmsg(
            socket.as_raw_fd(),
            &mut header,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        ))?;
        let control = libc::CMSG_FIRSTHDR(&header);
        let carries_descriptor = !control.is_null()
            && (*control).cmsg_level == libc::SOL_SOCKET
            && (*control).cmsg_type == libc::SCM_RIGHTS;
        let descriptor = carries_descriptor
            .then(|| OwnedFd::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(control).cast())));
        Ok((length, descriptor))
    }
}

pub use libc::pollfd as Interest;

/// What to poll a descriptor for: `libc::POLLIN`, `libc::POLLOUT` or both.
pub fn interest(fd: BorrowedFd, events: libc::c_short) -> Interest {
    Interest {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    }
}

/// Waits until one of the descriptors is ready, a signal comes or `until` has passed.
pub fn poll(interests: &mut [Interest], until: Option<Instant>) {
    let timeout = match until {
        None => -1,
        // Rounded up: waking before the deadline would mean spinning towards it.
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            let millis = (left + Duration::from_micros(999)).as_millis();
            libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
        }
    };
    // SAFETY: the slice is ours for its whole length. An interrupted poll reports
    // nothing ready, which callers cope with.
    unsafe { libc::poll(interests.as_mut_ptr(), interests.len() as _, timeout) };
}

/// Blocks SIGCHLD and returns a descriptor that is readable when a child has ended.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is a local that the calls fill and read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()))?;
        owned(libc::signalfd(
            -1,
            &set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))
    }
}

/// Gives every signal its default action and blocks none, as a new program expects.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: no handler is installed, only defaults; the set is a local.
    unsafe {
        for signal in 1..=64 {
            // Refused for SIGKILL, SIGSTOP and those the C library keeps for itself.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()))?;
    }
    Ok(())
}

/// Splits the process in two; returns the child's pid in the parent, None in the child.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the program has one thread, so that the child may go on with any code.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exit {
    Code(u8),
    Signal(u8),
}

/// Takes the end of one child, if one has ended.
pub fn reap() -> Option<(Pid, Exit)> {
    let mut status = 0;
    // SAFETY: the status is a local.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, exit_of(status)))
}

fn exit_of(status: libc::c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status) as u8)
    } else {
        Exit::Code(libc::WEXITSTATUS(status) as u8)
    }
}

/// Waits for a child to end.
pub fn wait(pid: Pid) -> io::Result<Exit> {
    let mut status = 0;
    // SAFETY: the status is a local.
    check(unsafe { libc::waitpid(pid, &mut status, 0) })?;
    Ok(exit_of(status))
}

/// Lets `signal` pass without effect.
pub fn ignore(signal: libc::c_int) {
    // SAFETY: no handler is installed. It fails for no signal that may be ignored.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sends a signal; a process that is gone already is as good as signalled.
pub fn signal(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    match check(unsafe { libc::kill(pid, signal) }) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

pub fn new_session() -> io::Result<()> {
    // SAFETY: setsid touches no memory.
    check(unsafe { libc::setsid() }).map(drop)
}

pub fn parent() -> Pid {
    // SAFETY: getppid touches no memory.
    unsafe { libc::getppid() }
}

pub fn own_pid() -> Pid {
    // SAFETY: getpid touches no memory.
    unsafe { libc::getpid() }
}

/// Ends the process without running anything more of it.
pub fn exit(code: libc::c_int) -> ! {
    // SAFETY: _exit does not return.
    unsafe { libc::_exit(code) }
}

/// Makes `target` (0, 1 or 2) lead where `source` leads.
pub fn redirect(source: BorrowedFd, target: RawFd) -> io::Result<()> {
    // SAFETY: only the standard descriptors are replaced, which nothing here owns.
    check(unsafe { libc::dup2(source.as_raw_fd(), target) }).map(drop)
}

/// Closes every descriptor from 3 on but those in `kept`.
pub fn close_all_but(kept: &[BorrowedFd]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first: RawFd = 3;
    for fd in kept {
        if first < fd {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX, 0)
}

/// Lets no descriptor from 3 on reach the next program.
pub fn close_on_exec() -> io::Result<()> {
    // CLOSE_RANGE_CLOEXEC, which the C library's headers may lack.
    close_range(3, RawFd::MAX, 4)
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: callers close what no owner uses any more: they are about to run another
    // program, or are a child that goes on with the kept ones alone.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) as libc::c_int })
        .map(drop)
}

/// Sets soft and hard limit of a resource.
pub fn limit(resource: libc::c_int, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: the limit is a local; the cast bridges the C libraries' types for it.
    check(unsafe { libc::setrlimit(resource as _, &limit) }).map(drop)
}

fn prctl(option: libc::c_int, arg2: libc::c_ulong, arg3: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::prctl(option, arg2, arg3, none, none) }).map(drop)
}

/// Kills this process when its parent ends.
pub fn end_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as _, 0)
}

/// No program started from here on gains rights by being executed.
pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Has the kernel judge every further call of this process by `program`.
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as _,
        filter: program.as_ptr().cast_mut(),
    };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: the kernel copies the program, which is readable for its whole length.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &program) as libc::c_int })
        .map(drop)
}

/// Empties the ambient set and takes all but `kept`, a mask, out of the bounding set.
pub fn bound_capabilities(kept: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as _, 0)?;
    for capability in 0..64 {
        if (kept >> capability) & 1 == 1 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes `kept`, a mask, the effective and permitted sets, and empties the inheritable.
pub fn set_capabilities(kept: u64) -> io::Result<()> {
    // _LINUX_CAPABILITY_VERSION_3 and this process.
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: the two arrays are the kernel's __user_cap_header_struct and two
    // __user_cap_data_struct (effective, permitted, inheritable).
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) as libc::c_int })
        .map(drop)
}

/// Becomes `uid` and `gid` with exactly `groups`, for good.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the group list is readable for its whole length.
    unsafe {
        check(libc::setgroups(groups.len() as _, groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
    }
    Ok(())
}

#[cfg(feature = "testing")]
pub fn is_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Becomes the program at `path`; returns only the error if it does not.
pub fn execute(path: &CStr, arguments: &[&CStr], environment: &[CString]) -> io::Error {
    let ended = |pointers: &mut dyn Iterator<Item = *const libc::c_char>| -> Vec<_> {
        pointers.chain([ptr::null()]).collect()
    };
    let arguments = ended(&mut arguments.iter().map(|text| text.as_ptr()));
    let environment = ended(&mut environment.iter().map(|text| text.as_ptr()));
    // SAFETY: both lists hold C strings that outlive the call, and end in a null.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
