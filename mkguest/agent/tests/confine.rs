//! mvm-confine as a program: who the started command is, what it has and what it sees.

#[expect(dead_code, reason = "only the agent's tests use a real cgroup")]
mod guest;

use guest::{is_root, skip, Guest};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_mvm-guest-agent");

/// Runs mvm-confine, with a variable of the caller's that nobody else should see.
fn confine(guest: &Guest, arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .arg0("/bin/mvm-confine")
        .arg("--root")
        .arg(&guest.root)
        .args(arguments)
        .env("CALLERS_OWN", "1")
        .output()
        .unwrap()
}

fn service(guest: &Guest, command: &str) -> Output {
    let content = json!({"name": "web", "command": command, "env": {}, "user": "web"});
    guest.write_json("/etc/mvm/services/web.json", &content);
    guest.cgroup("service-web");
    confine(guest, &["service", "web"])
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    text
}

fn assert_refused(output: &Output, reason: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{error}");
    assert!(error.starts_with("mvm-confine: "), "{error}");
    assert!(error.contains(reason), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_service_runs_as_its_user_in_its_groups_with_no_right_at_all() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let status = stdout(&service(&Guest::new(), "cat /proc/self/status"));
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["1100"; 4]);
    assert_eq!(field("Gid:"), ["1100"; 4]);
    assert_eq!(field("Groups:"), ["900", "1100"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    // What the programs' own runtime ignores or blocks is no business of the service's.
    assert_eq!(field("SigBlk:"), ["0000000000000000"]);
    // Signals 32 and 33 are the C library's, which ignores them for what a test starts.
    let ignored = u64::from_str_radix(field("SigIgn:")[0], 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0);
}

#[test]
fn a_service_starts_in_the_root_directory_with_its_exit_status_handed_on() {
    let guest = Guest::new();
    assert_eq!(stdout(&service(&guest, "pwd")), "/\n");
    assert_eq!(service(&guest, "exit 7").status.code(), Some(7));
}

#[test]
fn a_service_enters_its_own_cgroup() {
    let guest = Guest::new();
    stdout(&service(&guest, "true"));
    assert_eq!(
        guest.read("/sys/fs/cgroup/mvm/service-web/cgroup.procs"),
        "0"
    );
}

#[test]
fn no_descriptor_of_the_caller_reaches_a_service() {
    let guest = Guest::new();
    let content = json!({"name": "web", "command": "echo /proc/$$/fd/*", "user": "web"});
    guest.write_json("/etc/mvm/services/web.json", &content);
    guest.cgroup("service-web");
    let output = Command::new("/bin/bash")
        .arg("-c")
        .arg(
            "exec 7</dev/null 33</etc/passwd; exec -a mvm-confine \"$0\" --root \"$1\" service web",
        )
        .arg(BINARY)
        .arg(&guest.root)
        .output()
        .unwrap();
    let seen = stdout(&output);
    let seen: Vec<&str> = seen
        .trim()
        .rsplit('/')
        .map(|word| word.split(' ').next().unwrap())
        .collect();
    assert!(!seen.contains(&"7") && !seen.contains(&"33"), "{seen:?}");
    assert!(seen.contains(&"0"), "{seen:?}");
}

#[test]
fn each_source_of_the_environment_wins_over_those_before_it() {
    let guest = Guest::new();
    let base = json!({"PATH": "/usr/bin:/bin", "A": "base", "B": "base", "C": "base"});
    guest.write_json("/etc/mvm/environment.json", &base);
    guest.write("/mnt/config/mvm-env.env", "export C=drive\nD=drive\n");
    let own = json!({"B": "service", "C": "service", "D": "service"});
    let command = "env | sort | grep -v -e ^PWD= -e ^SHLVL= -e ^_=";
    let content = json!({"name": "web", "command": command, "env": own, "user": "web"});
    guest.write_json("/etc/mvm/services/web.json", &content);
    guest.cgroup("service-web");
    assert_eq!(
        stdout(&confine(&guest, &["service", "web"])),
        "A=base\nB=service\nC=drive\nD=drive\nHOME=/home/web\nPATH=/usr/bin:/bin\nUSER=web\n"
    );
}

#[test]
fn values_arrive_byte_for_byte_and_are_never_executed() {
    let guest = Guest::new();
    let hostile = "'\" $HOME ${x} `touch /tmp/no` \\ \\n $(id) é \t ";
    guest.write("/mnt/config/mvm-env.env", format!("DRIVE={hostile}\n"));
    let content = json!({
        "name": "web",
        "command": "printf '%s\\n%s' \"$OWN\" \"$DRIVE\"",
        "env": {"OWN": format!("{hostile}\nsecond line")},
        "user": "web",
    });
    guest.write_json("/etc/mvm/services/web.json", &content);
    guest.cgroup("service-web");
    let seen = stdout(&confine(&guest, &["service", "web"]));
    assert_eq!(seen, format!("{hostile}\nsecond line\n{hostile}"));
}

#[test]
fn lines_that_assign_nothing_are_counted_but_not_shown() {
    let guest = Guest::new();
    guest.write("/mnt/config/mvm-env.env", "secret without a key\nA=1\n");
    let output = service(&guest, "echo $A");
    assert_eq!(stdout(&output), "1\n");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("1 line"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_check_runs_its_command_with_the_users_environment() {
    let guest = Guest::new();
    guest.cgroup("check-up");
    let output = confine(
        &guest,
        &["check", "web", "up", "echo \"$USER in $HOME\"; exit 3"],
    );
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"web in /home/web\n");
    assert_eq!(guest.read("/sys/fs/cgroup/mvm/check-up/cgroup.procs"), "0");
}

#[test]
fn nothing_is_started_as_root_by_whatever_name() {
    let guest = Guest::new();
    guest.cgroup("check-up");
    for user in ["root", "also-root"] {
        let output = confine(&guest, &["check", user, "up", "echo started"]);
        assert_refused(&output, "uid 0");
    }
}

#[test]
fn nothing_is_started_if_a_step_fails() {
    let guest = Guest::new();
    let no_cgroup = confine(&guest, &["check", "web", "up", "echo started"]);
    assert_refused(&no_cgroup, "cannot enter its cgroup");
    guest.cgroup("check-up");
    let no_user = confine(&guest, &["check", "nobody-here", "up", "echo started"]);
    assert_refused(&no_user, "nobody-here is not in /etc/passwd");
    assert_refused(
        &confine(&guest, &["service", "web"]),
        "cannot read /etc/mvm/services/web.json",
    );
    guest.write("/etc/mvm/services/web.json", "{\"user\": \"web\"}");
    assert_refused(
        &confine(&guest, &["service", "web"]),
        "missing field `command`",
    );
    guest.write("/etc/mvm/environment.json", "[]");
    let no_base = confine(&guest, &["check", "web", "up", "echo started"]);
    assert_refused(&no_base, "/etc/mvm/environment.json");
}

#[test]
fn a_name_cannot_lead_elsewhere() {
    let guest = Guest::new();
    for name in ["../services/web", "", ".", "a/b", "WEB"] {
        assert_refused(&confine(&guest, &["service", name]), "is not a name");
        assert_refused(
            &confine(&guest, &["check", "web", name, "true"]),
            "is not a name",
        );
    }
}

#[test]
fn a_command_line_that_says_something_else_is_refused_with_the_usage() {
    let guest = Guest::new();
    let others: [&[&str]; 6] = [
        &[],
        &["service"],
        &["service", "a", "b"],
        &["check", "web", "up"],
        &["check", "web", "up", "true", "more"],
        &["--help"],
    ];
    for arguments in others {
        assert_refused(&confine(&guest, arguments), "usage: ");
    }
}
