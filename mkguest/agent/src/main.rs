//! The guest's own programs in one binary: `mvm-confine` or `mvm-grow` if called by that
//! name, else `mvm-guest-agent`. This module reads the command line and leaves the rest to
//! `confine`, `grow` and `broker`.

mod accounts;
mod broker;
mod cgroup;
mod confine;
mod connection;
mod definitions;
mod drives;
mod environment;
#[cfg(feature = "exec")]
mod exec;
mod frame;
mod grow;
mod kernel_log;
mod listener;
mod log;
mod protocol;
mod seccomp;
mod site;
mod sys;
mod text;
mod tiers;
mod time;
mod verbs;
mod watch;
mod worker;

use site::Site;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long to wait before giving up a port that cannot be had: init starts the agent
/// again at once, and the console should not fill.
const PAUSE: Duration = Duration::from_secs(5);

/// What the programs work on: the guest, or in tests a directory that looks like one.
struct Setting {
    site: Site,
    init: sys::Pid,
    listening: Option<OwnedFd>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_called = |name: &str| Path::new(&program).file_name() == Some(name.as_ref());
    if is_called("mvm-grow") {
        let Err(error) = grow::main(&arguments) else {
            return ExitCode::SUCCESS;
        };
        eprintln!("mvm-grow: {error}");
        return ExitCode::FAILURE;
    }
    let setting = setting(&mut arguments);
    if is_called("mvm-confine") {
        let Err(error) = confine::main(&arguments, &setting.site);
        eprintln!("mvm-confine: {error}");
        return ExitCode::from(confine::NOT_STARTED as u8);
    }
    if !arguments.is_empty() {
        eprintln!("mvm-guest-agent: it takes no arguments");
        return ExitCode::from(2);
    }
    if let Err(error) = serve(setting) {
        eprintln!("mvm-guest-agent: {error}");
    }
    ExitCode::FAILURE
}

fn serve(setting: Setting) -> io::Result<()> {
    let listening = match setting.listening {
        Some(listening) => listening,
        None => sys::listen_vsock(protocol::PORT).map_err(|error| {
            let text = format!("cannot listen on vsock port {}: {error}", protocol::PORT);
            kernel_log::warn(&text, &setting.site);
            std::thread::sleep(PAUSE);
            error
        })?,
    };
    broker::run(listening, setting.init, setting.site)
}

#[cfg(not(feature = "testing"))]
fn setting(_: &mut [OsString]) -> Setting {
    Setting {
        site: Site::default(),
        init: 1,
        listening: None,
    }
}

/// Takes `--root DIR`, `--init PID` and `--listen unix:PATH` off the front of the
/// arguments. All of them, because a test must not reach the machine it runs on.
#[cfg(feature = "testing")]
fn setting(arguments: &mut Vec<OsString>) -> Setting {
    let mut take = |option: &str| {
        let found = arguments.first().is_some_and(|first| first == option);
        found.then(|| {
            let value = arguments.drain(..2).nth(1).expect("an option has a value");
            value.into_string().expect("a value is text")
        })
    };
    let root = take("--root").expect("a testing binary needs --root DIR");
    let init = take("--init").map(|pid| pid.parse().expect("a process id is a number"));
    let listening = take("--listen").map(|address| {
        let path = address.strip_prefix("unix:").expect("only unix:PATH");
        let socket = std::os::unix::net::UnixListener::bind(path).expect("a free path");
        socket.set_nonblocking(true).expect("sockets can");
        socket.into()
    });
    Setting {
        site: Site::below(&root),
        // A process group that cannot exist: nobody is signalled.
        init: init.unwrap_or(sys::Pid::MAX),
        listening,
    }
}
