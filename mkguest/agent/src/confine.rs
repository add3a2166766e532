//! mvm-confine: starts a service or a check as its user, with no right that the user
//! does not have. Restarting, logging and time-outs are left to whoever calls it.
//!
//! The order is fixed: everything that needs a right comes before the right is given
//! up, and if any step fails nothing is started.

use crate::accounts::{self, Account};
use crate::cgroup::{self, Kind};
use crate::environment;
use crate::site::Site;
use crate::sys;
use crate::text;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// The exit code of a shell for a command that could not be started.
pub const NOT_STARTED: i32 = 126;

const USAGE: &str = "usage: mvm-confine service NAME | mvm-confine check USER NAME COMMAND";

/// What is to be started.
pub struct Job {
    pub kind: Kind,
    pub name: String,
    pub user: String,
    /// A command line for `/bin/sh -c`.
    pub command: Vec<u8>,
    pub environment: BTreeMap<String, String>,
}

/// `/etc/mvm/services/<name>.json`, as far as starting the service needs it.
#[derive(Deserialize)]
struct Service {
    command: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: String,
}

/// The program: runs what its arguments ask for; the error is for standard error.
pub fn main(arguments: &[OsString], site: &Site) -> Result<Infallible, String> {
    let job = job(arguments, site)?;
    let words = match job.kind {
        Kind::Service => "service",
        Kind::Check | Kind::Probe => "check",
    };
    run(&job, site).map_err(|error| format!("{words} {} was not started: {error}", job.name))
}

fn job(arguments: &[OsString], site: &Site) -> Result<Job, String> {
    let words: Option<Vec<&str>> = arguments.iter().take(3).map(|word| word.to_str()).collect();
    match (words.as_deref(), arguments.get(3)) {
        (Some(["service", name]), None) => service(name, site),
        (Some(["check", user, name]), Some(command)) if arguments.len() == 4 => Ok(Job {
            kind: Kind::Check,
            name: checked(name)?.to_owned(),
            user: (*user).to_owned(),
            command: command.clone().into_vec(),
            environment: BTreeMap::new(),
        }),
        _ => Err(USAGE.to_owned()),
    }
}

fn service(name: &str, site: &Site) -> Result<Job, String> {
    let path = format!("/etc/mvm/services/{}.json", checked(name)?);
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read {path}: {error}");
    let content = site.read(&path).map_err(|error| unreadable(&error))?;
    let service: Service = serde_json::from_slice(&content).map_err(|error| unreadable(&error))?;
    Ok(Job {
        kind: Kind::Service,
        name: name.to_owned(),
        user: service.user,
        command: service.command.into_bytes(),
        environment: service.env,
    })
}

fn checked(name: &str) -> Result<&str, String> {
    if text::is_name(name) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is not a name; use a-z, 0-9, _ and -, at most 31 of them"
        ))
    }
}

/// Becomes the job's command; returns only the reason why it could not.
pub fn run(job: &Job, site: &Site) -> Result<Infallible, String> {
    let account = account(&job.user, site)?;
    let environment = environment::of(&account, &job.environment, site)?;
    let variables = environment.strings()?;
    let command = CString::new(job.command.as_slice())
        .map_err(|_| "its command holds a NUL, which no shell can get".to_owned())?;
    if environment.skipped_lines > 0 && job.kind == Kind::Service {
        eprintln!(
            "mvm-confine: service {}: {} lines of the config drive's mvm-env.env are not KEY=VALUE and were left out",
            job.name, environment.skipped_lines
        );
    }

    let step = |what: &'static str| move |error| format!("cannot {what}: {error}");
    cgroup::join(job.kind, &job.name, site).map_err(step("enter its cgroup"))?;
    drop_rights(&account).map_err(step("give up root's rights"))?;
    std::env::set_current_dir("/").map_err(step("go to /"))?;
    sys::close_on_exec().map_err(step("close what is open"))?;
    sys::reset_signals().map_err(step("reset the signals"))?;
    let error = sys::execute(c"/bin/sh", &[c"sh", c"-c", &command], &variables);
    Err(step("run /bin/sh")(error))
}

fn account(user: &str, site: &Site) -> Result<Account, String> {
    let read = |path: &str| {
        site.read_text(path)
            .map_err(|error| format!("cannot read {path}: {error}"))
    };
    let account = accounts::find(user, &read("/etc/passwd")?, &read("/etc/group")?)?;
    if account.uid == 0 {
        return Err(format!("user {user} has uid 0; nothing is started as root"));
    }
    Ok(account)
}

fn drop_rights(account: &Account) -> std::io::Result<()> {
    // An ordinary user's tests have no right to give up, nor to become someone else.
    #[cfg(feature = "testing")]
    if !sys::is_root() {
        return Ok(());
    }
    sys::bound_capabilities(0)?;
    sys::become_user(account.uid, account.gid, &account.groups)?;
    sys::set_capabilities(0)?;
    sys::no_new_privileges()
}
