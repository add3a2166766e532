//! The cgroup (version 2) of a service, its log, a check or probe. Who belongs in it is left to
//! the callers.

use crate::site::Site;
use std::fs;
use std::io;

const PARENT: &str = "/sys/fs/cgroup/mvm";

/// What a cgroup is for: its first word, so that a service, a check and a probe of one
/// name have each their own, and the writer of the service's log too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Service,
    Check,
    Probe,
    Log,
    #[cfg(feature = "exec")]
    Exec,
}

fn path(kind: Kind, name: &str) -> String {
    let kind = match kind {
        Kind::Service => "service",
        Kind::Check => "check",
        Kind::Probe => "probe",
        Kind::Log => "log",
        #[cfg(feature = "exec")]
        Kind::Exec => "exec",
    };
    format!("{PARENT}/{kind}-{name}")
}

/// Puts this process into the cgroup, which is made if it is missing.
pub fn join(kind: Kind, name: &str, site: &Site) -> io::Result<()> {
    let path = path(kind, name);
    fs::create_dir_all(site.path(&path))?;
    site.write(&format!("{path}/cgroup.procs"), b"0")
}

/// Kills everything in the cgroup, if there is one.
pub fn kill(kind: Kind, name: &str, site: &Site) -> io::Result<()> {
    let control = format!("{}/cgroup.kill", path(kind, name));
    match site.write(&control, b"1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
