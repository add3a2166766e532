//! mvm-confine: starts a service or a check as its user, with no right that the user
//! does not have. Restarting and time-outs are left to whoever calls it, and docs/confinement.md
//! tells users what it does.
//!
//! The order is fixed: everything that needs a right comes before the right is given
//! up, and if any step fails nothing is started.

use crate::accounts::{self, Account};
use crate::cgroup::{self, Kind};
use crate::environment::{self, Environment};
use crate::log;
use crate::site::Site;
use crate::sys;
use crate::text;
use crate::tiers::Tier;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

/// The exit code of a shell for a command that could not be started.
pub const NOT_STARTED: i32 = 126;

const USAGE: &str = "usage: mvm-confine service NAME | mvm-confine check USER NAME COMMAND";

/// What is to be started.
pub struct Job {
    pub kind: Kind,
    pub name: String,
    pub user: String,
    pub tier: Tier,
    /// A command line for `/bin/sh -c`.
    pub command: Vec<u8>,
    pub environment: BTreeMap<String, String>,
    /// Where what it prints goes, if not where its starter's does.
    pub log_file: Option<String>,
}

/// `/etc/mvm/services/<name>.json`, as far as starting the service needs it.
#[derive(Deserialize)]
struct Service {
    command: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: String,
    #[serde(default)]
    seccomp: Tier,
    pre_start: Option<String>,
    log_file: Option<String>,
}

/// The program: runs what its arguments ask for; the error is for standard error.
pub fn main(arguments: &[OsString], site: &Site) -> Result<Infallible, String> {
    let words: Option<Vec<&str>> = arguments.iter().take(3).map(|word| word.to_str()).collect();
    let (words, name, result) = match (words.as_deref(), arguments.get(3)) {
        (Some(["service", name]), None) => {
            let (job, pre_start) = service(checked(name)?, site)?;
            let result = match pre_start {
                None => run(&job, site),
                Some(fragment) => prepare(&job, fragment, site),
            };
            ("service", name, result)
        }
        // What `prepare` has the shell go on with; nobody else needs to know of it.
        (Some(["prepared", name]), None) => {
            let (job, _) = service(checked(name)?, site)?;
            ("service", name, run_prepared(&job, site))
        }
        (Some(["check", user, name]), Some(command)) if arguments.len() == 4 => {
            let job = Job {
                kind: Kind::Check,
                name: checked(name)?.to_owned(),
                user: (*user).to_owned(),
                tier: Tier::default(),
                command: command.clone().into_vec(),
                environment: BTreeMap::new(),
                log_file: None,
            };
            ("check", name, run(&job, site))
        }
        _ => return Err(USAGE.to_owned()),
    };
    result.map_err(|error| format!("{words} {name} was not started: {error}"))
}

/// The job of a service, and its preStart.
fn service(name: &str, site: &Site) -> Result<(Job, Option<String>), String> {
    let path = format!("/etc/mvm/services/{name}.json");
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read {path}: {error}");
    let content = site.read(&path).map_err(|error| unreadable(&error))?;
    let service: Service = serde_json::from_slice(&content).map_err(|error| unreadable(&error))?;
    let job = Job {
        kind: Kind::Service,
        name: name.to_owned(),
        user: service.user,
        tier: service.seccomp,
        command: service.command.into_bytes(),
        environment: service.env,
        log_file: service.log_file,
    };
    Ok((job, service.pre_start))
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
    report_skipped_lines(job, &environment);
    confine(job, &account, &environment, site)
}

/// Becomes a shell, with every right that root has, that runs the service's preStart and
/// goes on with `run_prepared`. The fragment is an argument, so that it is whatever it is.
fn prepare(job: &Job, fragment: String, site: &Site) -> Result<Infallible, String> {
    let account = account(&job.user, site)?;
    let environment = environment::of(&account, &job.environment, site)?;
    report_skipped_lines(job, &environment);
    let variables = environment.strings()?;
    let fragment = CString::new(fragment)
        .map_err(|_| "its preStart holds a NUL, which no shell can get".to_owned())?;
    // The trap speaks for a fragment that leaves by itself, too.
    let wrapper = CString::new(format!(
        "trap 'echo \"mvm-confine: service {name} was not started: \
            its preStart ended with status $?\" >&2' EXIT; \
         eval \"$1\"; mvm_status=$?; [ \"$mvm_status\" -eq 0 ] || exit \"$mvm_status\"; \
         unset mvm_status; trap - EXIT; exec {confine} prepared {name}",
        name = job.name,
        confine = site.confine(),
    ))
    .expect("a name holds no NUL");

    cgroup::join(job.kind, &job.name, site).map_err(step("enter its cgroup"))?;
    sys::set_umask(0o002);
    std::env::set_current_dir("/").map_err(step("go to /"))?;
    sys::close_on_exec().map_err(step("close what is open"))?;
    sys::reset_signals().map_err(step("reset the signals"))?;
    let words = [c"sh", c"-c", &wrapper, c"sh", &fragment];
    let error = sys::execute(c"/bin/sh", &words, &variables);
    Err(step("run /bin/sh")(error))
}

/// Becomes the command of a service whose preStart has run and left its environment here.
fn run_prepared(job: &Job, site: &Site) -> Result<Infallible, String> {
    let account = account(&job.user, site)?;
    let environment =
        environment::of(&account, &job.environment, site)?.through_shell(std::env::vars_os());
    confine(job, &account, &environment, site)
}

fn confine(
    job: &Job,
    account: &Account,
    environment: &Environment,
    site: &Site,
) -> Result<Infallible, String> {
    let variables = environment.strings()?;
    let command = CString::new(job.command.as_slice())
        .map_err(|_| "its command holds a NUL, which no shell can get".to_owned())?;

    let log_file = job.log_file.as_deref();
    let log = log_file.and_then(|path| log::start(&job.name, path, account, site));
    cgroup::join(job.kind, &job.name, site).map_err(step("enter its cgroup"))?;
    drop_rights(account).map_err(step("give up root's rights"))?;
    std::env::set_current_dir("/").map_err(step("go to /"))?;
    sys::set_umask(0o022);
    sys::close_on_exec().map_err(step("close what is open"))?;
    sys::reset_signals().map_err(step("reset the signals"))?;
    if let Some(log) = log {
        for output in [1, 2] {
            sys::redirect(log.as_fd(), output).map_err(step("lead its output to its log"))?;
        }
    }
    if let Some(program) = job.tier.program() {
        sys::filter_calls(program).map_err(step("have its system calls filtered"))?;
    }
    let error = sys::execute(c"/bin/sh", &[c"sh", c"-c", &command], &variables);
    Err(step("run /bin/sh")(error))
}

fn step(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

fn report_skipped_lines(job: &Job, environment: &Environment) {
    if environment.skipped_lines > 0 && job.kind == Kind::Service {
        eprintln!(
            "mvm-confine: service {}: {} lines of the config drive's mvm-env.env are not KEY=VALUE and were left out",
            job.name, environment.skipped_lines
        );
    }
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

/// Becomes the account's user, with no capability and no way to one.
pub fn drop_rights(account: &Account) -> io::Result<()> {
    sys::no_new_privileges()?;
    // An ordinary user's tests have no right to give up, nor to become someone else.
    #[cfg(feature = "testing")]
    if !sys::is_root() {
        return Ok(());
    }
    sys::bound_capabilities(0)?;
    sys::become_user(account.uid, account.gid, &account.groups)?;
    sys::set_capabilities(0)
}
