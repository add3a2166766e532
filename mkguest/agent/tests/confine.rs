//! mvm-confine as a program: who the started command is, what it has and what it sees.

#[expect(dead_code, reason = "only the agent's tests use a real cgroup")]
mod guest;

use guest::{is_root, skip, Guest};
use serde_json::{json, Value};
use std::fs;
use std::os::unix::fs::{chown, symlink, PermissionsExt};
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

/// Starts the service web with more fields than it must have.
fn service_with(guest: &Guest, command: &str, more: &Value) -> Output {
    let mut content = json!({"name": "web", "command": command, "env": {}, "user": "web"});
    let fields = content.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    guest.write_json("/etc/mvm/services/web.json", &content);
    guest.cgroup("service-web");
    guest.cgroup("log-web");
    fs::create_dir_all(guest.path("/bin")).unwrap();
    // It is there from the first start on.
    let _ = symlink(BINARY, guest.path("/bin/mvm-confine"));
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

#[test]
fn each_tier_is_enough_for_a_shell_and_holds_back_what_is_not_its() {
    let guest = Guest::new();
    let socket = "bash -c ': </dev/tcp/127.0.0.1/1'";
    let directory = "mkdir /tmp/mvm-never/x";
    let commands = [(socket, 2), (directory, 1)];
    for (level, tier) in [
        "essential",
        "minimal",
        "standard",
        "network",
        "unrestricted",
    ]
    .into_iter()
    .enumerate()
    {
        let tier = json!({"seccomp": tier});
        let pipe = "echo one | cat; (exit 0) & wait; test -r /proc/self/status";
        assert_eq!(stdout(&service_with(&guest, pipe, &tier)), "one\n");
        for (command, needed) in commands {
            let output = service_with(&guest, command, &tier);
            let error = String::from_utf8_lossy(&output.stderr);
            let refused = error.contains("not permitted");
            assert_eq!(refused, level < needed, "{tier} {command}: {error}");
        }
    }
}

#[test]
fn the_filter_is_installed_on_every_start_that_does_not_forgo_it() {
    let guest = Guest::new();
    let seccomp = "grep Seccomp: /proc/self/status";
    for (more, mode) in [
        (json!({}), 2),
        (json!({"seccomp": "standard"}), 2),
        (json!({"seccomp": "unrestricted"}), 0),
    ] {
        let seen = stdout(&service_with(&guest, seccomp, &more));
        assert_eq!(seen, format!("Seccomp:\t{mode}\n"), "{more}");
    }
    guest.cgroup("check-up");
    let check = confine(&guest, &["check", "web", "up", seccomp]);
    assert_eq!(stdout(&check), "Seccomp:\t2\n");
}

#[test]
fn a_tier_that_does_not_exist_starts_nothing() {
    let output = service_with(&Guest::new(), "echo started", &json!({"seccomp": "basic"}));
    assert_refused(
        &output,
        "unknown variant `basic`, expected one of `essential`",
    );
}

#[test]
fn a_pre_start_runs_before_the_command_and_hands_on_what_it_exports() {
    let guest = Guest::new();
    let more = json!({
        "env": {"KEPT": "as it was", "CHANGED": "before", "GONE": "x"},
        "pre_start": "pwd; umask; export CHANGED=\"$CHANGED and after\" NEW=1; unset GONE; LOCAL=1",
    });
    let command = "umask; env | sort | grep -v -e ^PWD= -e ^SHLVL= -e ^_=";
    assert_eq!(
        stdout(&service_with(&guest, command, &more)),
        "/\n0002\n0022\nCHANGED=before and after\nHOME=/home/web\nKEPT=as it was\nNEW=1\n\
         PATH=/usr/bin:/bin\nUSER=web\n"
    );
}

#[test]
fn a_pre_start_has_roots_rights_and_the_command_has_none() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let who = "id -u; grep -e Seccomp: -e NoNewPrivs: /proc/self/status";
    let seen = stdout(&service_with(
        &Guest::new(),
        who,
        &json!({"pre_start": who}),
    ));
    assert_eq!(
        seen,
        "0\nNoNewPrivs:\t0\nSeccomp:\t0\n1100\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
}

#[test]
fn a_pre_start_arrives_byte_for_byte() {
    let guest = Guest::new();
    let hostile = "'; exit 9; \" $1 ${x} `id` \\ \\n $(id) é \t\u{1b} #";
    let fragment = format!("read -r X <<'END'\n{hostile}\nEND\nset -- changed\nexport X\n# '");
    let seen = service_with(&guest, "printf %s \"$X\"", &json!({"pre_start": fragment}));
    assert_eq!(stdout(&seen), hostile);
}

#[test]
fn a_pre_start_that_fails_keeps_the_command_from_starting() {
    let guest = Guest::new();
    for (fragment, status) in [
        ("false", 1),
        ("(exit 7)", 7),
        ("exit 3", 3),
        ("set -e; (exit 5); true", 5),
        ("exit 0", 0),
    ] {
        let output = service_with(&guest, "echo started", &json!({"pre_start": fragment}));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{fragment}: {error}");
        assert!(output.stdout.is_empty(), "{fragment}");
        let expected = format!(
            "mvm-confine: service web was not started: its preStart ended with status {status}\n"
        );
        assert_eq!(error, expected);
    }
    let nul = service_with(&guest, "echo started", &json!({"pre_start": "a\u{0}b"}));
    assert_refused(&nul, "its preStart holds a NUL");
}

/// Waits until the writer has written what is looked for.
fn logged(guest: &Guest, path: &str, ends_with: &str) -> String {
    for _ in 0..500 {
        let log = fs::read_to_string(guest.path(path)).unwrap_or_default();
        if log.ends_with(ends_with) {
            return log;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{path} does not end with {ends_with:?}");
}

/// A directory that any service may write to.
fn open_directory(guest: &Guest, path: &str) {
    fs::create_dir_all(guest.path(path)).unwrap();
    fs::set_permissions(guest.path(path), fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn what_a_service_prints_is_appended_to_its_log() {
    let guest = Guest::new();
    open_directory(&guest, "/var/log/web");
    let log = json!({"log_file": "/var/log/web/log"});
    for number in [1, 2] {
        let output = service_with(
            &guest,
            &format!("echo {number}; echo error >&2; exit 4"),
            &log,
        );
        assert_eq!(output.status.code(), Some(4));
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
        logged(&guest, "/var/log/web/log", &format!("{number}\nerror\n"));
    }
    assert_eq!(
        logged(&guest, "/var/log/web/log", "\n"),
        "1\nerror\n2\nerror\n"
    );
    let status = fs::metadata(guest.path("/var/log/web/log")).unwrap();
    assert_eq!(status.permissions().mode() & 0o7777, 0o640);
    assert_eq!(guest.read("/sys/fs/cgroup/mvm/log-web/cgroup.procs"), "0");
    if is_root() {
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&status), 1100);
    }
}

#[test]
fn the_writer_of_a_log_is_no_child_of_the_service() {
    let guest = Guest::new();
    open_directory(&guest, "/var/log/web");
    let more = json!({"log_file": "/var/log/web/log"});
    let children = "read -r children </proc/self/task/$$/children; echo \"<$children>\"";
    service_with(&guest, children, &more);
    assert_eq!(logged(&guest, "/var/log/web/log", "\n"), "<>\n");
}

#[test]
fn a_log_is_rotated_between_lines_and_one_old_one_is_kept() {
    let guest = Guest::new();
    open_directory(&guest, "/var/log/web");
    let more = json!({"log_file": "/var/log/web/log"});
    service_with(&guest, "seq 1 400000; echo end", &more);
    let log = logged(&guest, "/var/log/web/log", "end\n");
    let old = guest.read("/var/log/web/log.1");
    assert!(
        old.len() > 1000 * 1024 && old.len() < 1100 * 1024,
        "{}",
        old.len()
    );
    let last: u32 = old.lines().last().unwrap().parse().unwrap();
    assert_eq!(log.lines().next().unwrap(), (last + 1).to_string());
    assert_eq!(fs::read_dir(guest.path("/var/log/web")).unwrap().count(), 2);
}

#[test]
fn a_log_that_its_user_may_not_rename_is_emptied_instead() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let guest = Guest::new();
    guest.write("/var/log/web", "before\n");
    chown(guest.path("/var/log/web"), Some(1100), None).unwrap();
    let more = json!({"log_file": "/var/log/web"});
    service_with(&guest, "seq 1 200000; echo end", &more);
    let log = logged(&guest, "/var/log/web", "end\n");
    assert!(log.len() < 1024 * 1024 && !log.contains("before"));
    assert_eq!(fs::read_dir(guest.path("/var/log")).unwrap().count(), 1);
}

#[test]
fn a_log_that_cannot_be_opened_leaves_the_output_where_it_was() {
    let guest = Guest::new();
    open_directory(&guest, "/var/log/web");
    fs::create_dir(guest.path("/var/log/web/directory")).unwrap();
    symlink("/etc/passwd", guest.path("/var/log/web/link")).unwrap();
    symlink("web", guest.path("/var/log/linked")).unwrap();
    let fifo = std::ffi::CString::new(guest.path("/var/log/web/fifo").to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    for path in [
        "web/directory",
        "web/link",
        "linked/log",
        "web/fifo",
        "none/log",
        "web/",
    ] {
        let path = format!("/var/log/{path}");
        let output = service_with(&guest, "echo started", &json!({"log_file": path}));
        assert_eq!(stdout(&output), "started\n", "{path}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains(&format!("cannot open its log {path}")),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
