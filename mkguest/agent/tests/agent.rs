//! The agent as a program on a Unix socket: what hosts of every kind hear from it, and
//! what becomes of checks.

mod guest;

use guest::{is_root, skip, Guest, RealCgroup};
use serde_json::{json, Value};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_mvm-guest-agent");
const LIMIT: usize = 256 * 1024;
/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A guest and its running agent.
struct Agent {
    guest: Guest,
    broker: Child,
    /// A process in the place of the guest's init.
    init: Child,
}

impl Agent {
    fn start(guest: Guest) -> Agent {
        let init = Command::new("sleep").arg("1000").spawn().unwrap();
        let broker = Command::new(BINARY)
            .arg("--root")
            .arg(&guest.root)
            .args(["--init", &init.id().to_string()])
            .arg("--listen")
            .arg(format!("unix:{}", guest.path("agent.sock").display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Agent {
            guest,
            broker,
            init,
        };
        until("the agent listens", || agent.try_connect());
        agent
    }

    fn try_connect(&self) -> Option<Host> {
        let stream = UnixStream::connect(self.guest.path("agent.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Some(Host(stream))
    }

    fn connect(&self) -> Host {
        self.try_connect().expect("the agent listens")
    }

    fn ask(&self, request: &str) -> Value {
        self.connect().ask(&json!(request))
    }

    fn integration(&self, name: &str) -> Value {
        let report = self.ask("IntegrationStatus");
        named(&report["IntegrationStatusReport"]["integrations"], name)
    }

    fn probe(&self, name: &str) -> Value {
        let report = self.ask("ProbeStatus");
        named(&report["ProbeStatusReport"]["probes"], name)
    }

    fn listener(&self) -> i32 {
        let broker = self.broker.id();
        let children = format!("/proc/{broker}/task/{broker}/children");
        until("the listener runs", || {
            let children = fs::read_to_string(&children).unwrap();
            children
                .split_whitespace()
                .map(|pid| pid.parse().unwrap())
                // A check has its own program by now, the listener its parent's.
                .find(|pid| command_line(*pid).contains("agent.sock"))
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for process in [&mut self.broker, &mut self.init] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn named(list: &Value, name: &str) -> Value {
    let found = list
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["name"] == name);
    found.cloned().unwrap_or_default()
}

fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Waits for `look` to find something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(Duration::from_millis(20));
    }
}

/// A host's end of a connection.
struct Host(UnixStream);

impl Deref for Host {
    type Target = UnixStream;
    fn deref(&self) -> &UnixStream {
        &self.0
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut UnixStream {
        &mut self.0
    }
}

impl Host {
    fn send(&mut self, body: &[u8]) {
        self.write_all(&framed(body)).unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut header = [0; 4];
        self.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        self.read_exact(&mut body).unwrap();
        assert!(
            !body.iter().any(u8::is_ascii_control),
            "control characters: {body:?}"
        );
        serde_json::from_slice(&body).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(request.to_string().as_bytes());
        self.hear()
    }

    fn assert_error(&mut self, reason: &str) {
        let response = self.hear();
        let message = response["Error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
    }

    fn assert_open(&mut self) {
        assert_eq!(self.ask(&json!("Ping")), "Pong");
    }

    fn assert_closed(&mut self) {
        match self.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection is not closed: {other:?}"),
        }
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

fn with_check(guest: &Guest, name: &str, command: &str, more: &Value) {
    let mut check = json!({
        "name": name,
        "health_cmd": command,
        "health_interval_secs": 30,
        "health_timeout_secs": 10,
        "startup_grace_secs": 0,
        "checkpoint_cmd": null,
        "restore_cmd": null,
        "critical": false,
        "user": "web",
    });
    let fields = check.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    guest.write_json(&format!("/etc/mvm/integrations.d/{name}.json"), &check);
    guest.cgroup(&format!("check-{name}"));
}

fn with_probe(guest: &Guest, name: &str, command: &str, format: &str) {
    let probe = json!({
        "name": name,
        "description": "",
        "cmd": command,
        "interval_secs": 30,
        "timeout_secs": 10,
        "output_format": format,
    });
    guest.write_json(&format!("/etc/mvm/probes.d/{name}.json"), &probe);
    guest.cgroup(&format!("probe-{name}"));
}

#[test]
fn a_ping_is_answered_any_number_of_times_on_one_connection() {
    let agent = Agent::start(Guest::new());
    let mut host = agent.connect();
    for _ in 0..100 {
        host.assert_open();
    }
}

#[test]
fn requests_sent_without_waiting_are_answered_in_their_order() {
    let agent = Agent::start(Guest::new());
    let mut host = agent.connect();
    let requests = [framed(b"\"Ping\""), framed(b"\"WorkerStatus\"")].concat();
    host.write_all(&requests.repeat(200)).unwrap();
    for _ in 0..200 {
        assert_eq!(host.hear(), "Pong");
        assert!(host.hear()["WorkerStatus"].is_object());
    }
}

#[test]
fn the_load_average_says_whether_the_guest_is_busy() {
    let agent = Agent::start(Guest::new());
    let status = || agent.ask("WorkerStatus")["WorkerStatus"].clone();
    assert_eq!(status(), json!({"status": "idle", "last_busy_at": null}));
    agent
        .guest
        .write("/proc/loadavg", "0.10 0.00 0.00 1/60 99\n");
    let busy = status();
    assert_eq!(busy["status"], "busy");
    agent
        .guest
        .write("/proc/loadavg", "0.09 0.00 0.00 1/60 99\n");
    let idle = json!({"status": "idle", "last_busy_at": busy["last_busy_at"]});
    assert!(busy["last_busy_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(status(), idle);
}

#[test]
fn an_unknown_request_gets_an_error_and_the_connection_stays_open() {
    let agent = Agent::start(Guest::new());
    let mut host = agent.connect();
    let others = [
        json!("FsDiff"),
        #[cfg(not(feature = "exec"))]
        json!({"Exec": {"command": "id", "stdin": null, "timeout_secs": null}}),
        json!({"Ping": {"unknown": "field"}}),
        json!("\u{1b}[2J"),
        json!([]),
        json!({}),
        json!(null),
        json!("x".repeat(100_000)),
    ];
    for request in others {
        host.send(request.to_string().as_bytes());
        host.assert_error("does not know the request");
        host.assert_open();
    }
}

#[test]
fn a_frame_that_is_no_json_gets_an_error_and_the_connection_is_closed() {
    let agent = Agent::start(Guest::new());
    let others: [&[u8]; 6] = [
        b"",
        b"Ping",
        b"\"Ping",
        b"\"\xff\xfe\"",
        b"{\"a\":}",
        b"\0\0\0\0",
    ];
    for body in others {
        let mut host = agent.connect();
        host.send(body);
        host.assert_error("not JSON");
        host.assert_closed();
    }
}

#[test]
fn nesting_of_any_depth_gets_an_error_and_harms_nobody() {
    let agent = Agent::start(Guest::new());
    let mut witness = agent.connect();
    let depth = 100_000;
    for (body, reason) in [
        ("[".repeat(depth), "not JSON"),
        ("{\"a\":".repeat(LIMIT / 5), "not JSON"),
        (
            ["[".repeat(depth), "]".repeat(depth)].concat(),
            "does not know",
        ),
    ] {
        let mut host = agent.connect();
        host.send(body.as_bytes());
        host.assert_error(reason);
        witness.assert_open();
    }
}

#[test]
fn a_frame_of_the_limit_is_read_and_a_longer_one_refused() {
    let agent = Agent::start(Guest::new());
    let mut host = agent.connect();
    host.send(&[b"\"Ping\"", &b" ".repeat(LIMIT - 6)[..]].concat());
    assert_eq!(host.hear(), "Pong");
    // Sent whole before the answer is read, as a host would that knows no limit.
    host.send(&[b"\"Ping\"", &b" ".repeat(LIMIT - 5)[..]].concat());
    host.assert_error("262145 bytes, more than the limit of 262144");
    host.assert_closed();
    let mut host = agent.connect();
    host.write_all(&[0xff; 4]).unwrap();
    host.assert_error("4294967295 bytes");
    host.assert_closed();
}

#[test]
fn a_truncated_frame_gets_an_error_and_the_connection_is_closed() {
    let agent = Agent::start(Guest::new());
    for length in [1, 4, 7] {
        let mut host = agent.connect();
        host.write_all(&framed(b"\"Ping\"")[..length]).unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        host.assert_error("ends within a frame");
        host.assert_closed();
    }
}

#[test]
fn a_slow_host_delays_no_other() {
    let agent = Agent::start(Guest::new());
    let mut slow = agent.connect();
    for byte in framed(b"\"Ping\"") {
        slow.write_all(&[byte]).unwrap();
        assert_eq!(agent.ask("Ping"), "Pong");
    }
    assert_eq!(slow.hear(), "Pong");
}

#[test]
fn a_host_that_takes_no_answers_delays_no_other() {
    let agent = Agent::start(Guest::new());
    let mut deaf = agent.connect();
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let requests = framed(b"\"Ping\"").repeat(1000);
    while deaf.write_all(&requests).is_ok() {}
    assert_eq!(agent.ask("Ping"), "Pong");
}

#[test]
fn of_too_many_connections_the_oldest_idle_one_is_closed() {
    let agent = Agent::start(Guest::new());
    let mut midway = agent.connect();
    midway.write_all(&[0, 0]).unwrap();
    let mut hosts: Vec<Host> = (0..64).map(|_| agent.connect()).collect();
    for host in &mut hosts[2..] {
        host.assert_open();
    }
    hosts[0].assert_closed();
    midway.write_all(&framed(b"\"Ping\"")[2..]).unwrap();
    assert_eq!(midway.hear(), "Pong");
}

#[test]
fn thousands_of_connections_leave_the_agent_answering() {
    let agent = Agent::start(Guest::new());
    let mut kept = Vec::new();
    for round in 0..3000 {
        let mut host = agent.connect();
        match round % 3 {
            0 => drop(host),
            1 => host.write_all(&[0, 0, 0]).unwrap(),
            _ => kept.push(host),
        }
        if kept.len() > 200 {
            kept.clear();
        }
    }
    assert_eq!(agent.ask("Ping"), "Pong");
}

#[test]
fn an_agent_with_nothing_to_do_sleeps() {
    let agent = Agent::start(Guest::new());
    let mut idle = agent.connect();
    idle.assert_open();
    let mut midway = agent.connect();
    midway.write_all(&[0]).unwrap();
    let processes = [agent.listener(), agent.broker.id() as i32];
    let wakes = || {
        processes.map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let switches = status
                .lines()
                .find(|line| line.starts_with("voluntary"))
                .unwrap();
            let count = switches.split_whitespace().nth(1).unwrap();
            count.parse::<u64>().unwrap()
        })
    };
    sleep(Duration::from_millis(200));
    let before = wakes();
    sleep(Duration::from_secs(1));
    assert_eq!(wakes(), before);
}

#[test]
fn checks_run_at_once_and_their_results_are_reported() {
    let guest = Guest::new();
    with_check(&guest, "good", "echo fine", &json!({}));
    with_check(&guest, "bad", "echo no database >&2; exit 3", &json!({}));
    let agent = Agent::start(guest);
    let done = |name| {
        until(name, || {
            let integration = agent.integration(name);
            (!integration["health"].is_null()).then_some(integration)
        })
    };
    let mut good = done("good");
    let checked_at = good["health"]["checked_at"].take();
    assert_eq!(
        good,
        json!({
            "name": "good",
            "status": "active",
            "last_checkpoint_at": null,
            "state_size_bytes": 0,
            "health": {"healthy": true, "detail": "fine", "checked_at": null},
        })
    );
    let checked_at = checked_at.as_str().unwrap();
    assert_eq!(checked_at.len(), "2026-01-01T00:00:00Z".len());
    let bad = done("bad");
    assert_eq!(
        bad["status"],
        json!({"error": "exit status 3: no database"})
    );
    assert_eq!(bad["health"]["healthy"], false);
}

#[test]
fn a_check_runs_as_its_user_and_without_one_as_the_service_group() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let guest = Guest::new();
    let command = "grep -E '^(Uid|Groups|NoNewPrivs|CapEff|CapBnd):' /proc/self/status";
    with_check(&guest, "named", command, &json!({}));
    with_check(&guest, "unnamed", command, &json!({"user": null}));
    with_check(&guest, "root", command, &json!({"user": "root"}));
    let agent = Agent::start(guest);
    let detail = |name| {
        until(name, || {
            let health = agent.integration(name)["health"].clone();
            Some(
                health["detail"]
                    .as_str()?
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        })
    };
    let rights = "NoNewPrivs: 1";
    let empty = "0000000000000000";
    assert_eq!(
        detail("named"),
        format!(
            "Uid: 1100 1100 1100 1100 Groups: 900 1100 CapEff: {empty} CapBnd: {empty} {rights}"
        )
    );
    assert!(detail("unnamed").starts_with("Uid: 900 900 900 900 Groups: 900 "));
    let root = detail("root");
    assert!(root.starts_with("exit status 126: "), "{root}");
    assert!(root.contains("nothing is started as root"), "{root}");
}

#[test]
fn checks_run_again_at_their_interval() {
    let guest = Guest::new();
    let runs = guest.path("runs");
    guest.write("runs", "");
    fs::set_permissions(&runs, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let command = format!("echo run >> {}", runs.display());
    with_check(
        &guest,
        "often",
        &command,
        &json!({"health_interval_secs": 1}),
    );
    let agent = Agent::start(guest);
    until("the third run", || {
        (agent.guest.read("runs").lines().count() == 3).then_some(())
    });
}

#[test]
fn a_hanging_check_is_killed_in_time_and_delays_nothing() {
    let guest = Guest::new();
    let pids = guest.path("pids");
    guest.write("pids", "");
    fs::set_permissions(&pids, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let hang = format!(
        "trap '' TERM INT HUP; echo trying; sleep 1000 & echo $$ $! > {}; wait",
        pids.display()
    );
    with_check(&guest, "hangs", &hang, &json!({"health_timeout_secs": 1}));
    with_check(&guest, "quick", "true", &json!({}));
    let agent = Agent::start(guest);
    until("the quick one", || {
        (agent.integration("quick")["status"] == "active").then_some(())
    });
    assert_eq!(agent.integration("hangs")["status"], "pending");
    let status = until("the time-out", || {
        let status = agent.integration("hangs")["status"].clone();
        status.is_object().then_some(status)
    });
    assert_eq!(status, json!({"error": "no result within 1 s: trying"}));
    let pids = agent.guest.read("pids");
    for pid in pids.split_whitespace().map(|pid| pid.parse().unwrap()) {
        until("the end of all its processes", || {
            (!is_alive(pid)).then_some(())
        });
    }
}

#[test]
fn a_check_that_prints_without_end_is_killed_and_delays_nothing() {
    let guest = Guest::new();
    with_check(&guest, "prints", "yes", &json!({}));
    with_check(&guest, "quick", "true", &json!({}));
    let agent = Agent::start(guest);
    until("the quick one", || {
        (agent.integration("quick")["status"] == "active").then_some(())
    });
    let detail = until("the verdict", || {
        let health = agent.integration("prints")["health"].clone();
        Some(health["detail"].as_str()?.to_owned())
    });
    assert!(
        detail.starts_with("it printed more than 1 MiB: y y y"),
        "{detail}"
    );
    assert!(detail.len() < 5000);
}

#[test]
fn a_check_may_print_more_than_is_kept() {
    let guest = Guest::new();
    with_check(&guest, "verbose", "yes | head -c 500000", &json!({}));
    let agent = Agent::start(guest);
    let status = until("the verdict", || {
        let status = agent.integration("verbose")["status"].clone();
        (status != "pending").then_some(status)
    });
    assert_eq!(status, "active");
}

#[test]
fn what_a_check_leaves_behind_holds_no_result_up() {
    let guest = Guest::new();
    with_check(&guest, "leaves", "sleep 30 & echo done", &json!({}));
    let agent = Agent::start(guest);
    let begun = Instant::now();
    let detail = until("the verdict", || {
        let health = agent.integration("leaves")["health"].clone();
        Some(health["detail"].as_str()?.to_owned())
    });
    assert_eq!(detail, "done");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_left_its_session_dies_with_the_cgroup_of_its_check() {
    let guest = Guest::new();
    let Some(cgroup) = RealCgroup::under(&guest) else {
        return skip("no cgroup of version 2 can be made here");
    };
    let pids = guest.path("pids");
    guest.write("pids", "");
    fs::set_permissions(&pids, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let escape = format!("setsid sh -c 'echo $$ >> {}; sleep 1000' &", pids.display());
    for (name, end) in [("hangs", "wait"), ("ends", "sleep 0.2")] {
        let check = json!({
            "name": name,
            "health_cmd": format!("{escape} {end}"),
            "health_timeout_secs": 1,
            "user": "web",
        });
        guest.write_json(&format!("/etc/mvm/integrations.d/{name}.json"), &check);
    }
    let agent = Agent::start(guest);
    for name in ["hangs", "ends"] {
        until(name, || {
            (agent.integration(name)["status"] != "pending").then_some(())
        });
    }
    let pids = agent.guest.read("pids");
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines().map(|pid| pid.parse().unwrap()) {
        until("the end of what escaped", || (!is_alive(pid)).then_some(()));
    }
    drop(agent);
    drop(cgroup);
}

#[test]
fn a_check_within_its_grace_is_starting_until_it_is_healthy() {
    let guest = Guest::new();
    let up = guest.path("up");
    let grace = json!({"startup_grace_secs": 60, "health_interval_secs": 30});
    with_check(&guest, "web", &format!("test -e {}", up.display()), &grace);
    let agent = Agent::start(guest);
    until("the first failure", || {
        (agent.integration("web")["health"]["healthy"] == false).then_some(())
    });
    assert_eq!(agent.integration("web")["status"], "starting");
    agent.guest.write("up", "");
    until("being healthy, long before the interval is over", || {
        (agent.integration("web")["status"] == "active").then_some(())
    });
}

#[test]
fn probes_report_what_they_printed_without_what_terminals_obey() {
    let guest = Guest::new();
    with_probe(&guest, "text", "printf 'a\\033[2J\\nb\\007'", "exit_code");
    with_probe(
        &guest,
        "data",
        r#"echo '{"k\u001b": "\u009b1m", "n": [1, 2.5]}'"#,
        "json",
    );
    with_probe(&guest, "broken", "echo oops", "json");
    let agent = Agent::start(guest);
    let done = |name| {
        until(name, || {
            Some(agent.probe(name)).filter(|probe| !probe.is_null())
        })
    };
    let text = done("text");
    assert_eq!(text["healthy"], true);
    assert_eq!(text["detail"], "a\u{fffd}[2J b\u{fffd}");
    assert!(text.get("output").is_none());
    let data = done("data");
    assert_eq!(
        data["output"],
        json!({"k\u{fffd}": "\u{fffd}1m", "n": [1, 2.5]})
    );
    assert_eq!(data["detail"], "");
    let broken = done("broken");
    assert_eq!(broken["healthy"], false);
    assert!(broken["detail"].as_str().unwrap().ends_with(": oops"));
}

#[test]
fn a_probe_that_has_not_run_is_left_out() {
    let guest = Guest::new();
    with_probe(&guest, "slow", "sleep 5", "exit_code");
    let agent = Agent::start(guest);
    assert!(agent.probe("slow").is_null());
    assert!(agent.probe("mvm-drives").is_object());
}

#[test]
fn a_drop_in_that_does_not_parse_is_reported_and_skipped() {
    let guest = Guest::new();
    with_check(&guest, "good", "true", &json!({}));
    guest.write("/etc/mvm/integrations.d/bad.json", "{\"name\": \"\u{1b}[2J");
    guest.write(
        "/etc/mvm/probes.d/named.json",
        "{\"name\": \"../x\", \"cmd\": \"true\"}",
    );
    guest.write("/etc/mvm/probes.d/README", "not a drop-in");
    let agent = Agent::start(guest);
    until("the good one", || {
        (agent.integration("good")["status"] == "active").then_some(())
    });
    let log = agent.guest.read("/dev/kmsg");
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("is skipped"))
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].starts_with("<4>mvm: agent: /etc/mvm/integrations.d/bad.json is skipped"));
    assert!(lines[1].contains("is not a name"));
    assert!(!log.contains('\u{1b}'));
}

#[test]
fn a_failed_drive_makes_the_drives_unhealthy_and_an_absent_one_does_not() {
    let guest = Guest::new();
    let drive = |name: &str, device: &str, point: &str, state: &str, detail: &str| {
        let record =
            json!({"device": device, "mountPoint": point, "state": state, "detail": detail});
        guest.write_json(&format!("/run/mvm/drives/{name}"), &record);
    };
    drive("root", "/dev/vda", "/", "mounted", "");
    drive("config", "/dev/vdb", "/mnt/config", "mounted", "");
    drive("data", "/dev/vdd", "/mnt/data", "absent", "");
    guest.write(
        "/proc/mounts",
        "/dev/root / ext4 rw,relatime 0 0\n/dev/vdb /mnt/config ext4 ro,noexec 0 0\n",
    );
    let agent = Agent::start(guest);
    let mut probe = agent.probe("mvm-drives");
    probe["checked_at"].take();
    assert_eq!(
        probe,
        json!({
            "name": "mvm-drives",
            "healthy": true,
            "detail": "",
            "output": [
                {"drive": "root", "device": "/dev/vda", "mountPoint": "/", "type": "ext4",
                 "options": "rw,relatime", "state": "mounted", "detail": ""},
                {"drive": "config", "device": "/dev/vdb", "mountPoint": "/mnt/config",
                 "type": "ext4", "options": "ro,noexec", "state": "mounted", "detail": ""},
                {"drive": "data", "device": "/dev/vdd", "mountPoint": "/mnt/data", "type": "",
                 "options": "", "state": "absent", "detail": ""},
            ],
            "checked_at": null,
        })
    );
    let failed = json!({"device": "/dev/vdc", "mountPoint": "/mnt/secrets", "state": "failed",
        "detail": "wrong label"});
    agent.guest.write_json("/run/mvm/drives/secrets", &failed);
    let probe = agent.probe("mvm-drives");
    assert_eq!(probe["healthy"], false);
    assert_eq!(probe["detail"], "failed: secrets");
    assert_eq!(probe["output"][2]["detail"], "wrong label");
}

#[test]
fn reports_over_the_limit_become_an_error() {
    let guest = Guest::new();
    for number in 0..80 {
        with_check(
            &guest,
            &format!("c{number}"),
            "yes | head -c 5000; exit 1",
            &json!({}),
        );
    }
    let agent = Agent::start(guest);
    let mut host = agent.connect();
    until("too much to report", || {
        let response = host.ask(&json!("IntegrationStatus"));
        let message = response["Error"]["message"].as_str()?.to_owned();
        assert_eq!(message, "the response is over the limit of 262144 bytes");
        Some(())
    });
    host.assert_open();
}

#[test]
fn shutdown_is_acknowledged_and_init_asked_to_end() {
    let mut agent = Agent::start(Guest::new());
    assert_eq!(
        agent.ask("Shutdown"),
        json!({"ShutdownAck": {"success": true}})
    );
    let status = until("the end of init", || agent.init.try_wait().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}

#[test]
fn the_first_answer_is_marked_once_on_the_console() {
    let agent = Agent::start(Guest::new());
    let marks = || {
        agent
            .guest
            .read("/dev/kmsg")
            .matches("<5>mvm: agent: first answer")
            .count()
    };
    agent.ask("WorkerStatus");
    until("the mark", || (marks() == 1).then_some(()));
    agent.ask("Ping");
    agent.ask("WorkerStatus");
    assert_eq!(marks(), 1);
}

#[test]
fn the_listener_holds_no_right() {
    let agent = Agent::start(Guest::new());
    agent.ask("Ping");
    let listener = agent.listener();
    let status = fs::read_to_string(format!("/proc/{listener}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("Seccomp:"), ["2"]);
    if !is_root() {
        return skip("becoming another user needs root");
    }
    assert_eq!(field("Uid:"), ["901"; 4]);
    assert_eq!(field("Gid:"), ["901"; 4]);
    assert!(field("Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    // Until the connection of the ping is gone.
    until("its sockets and nothing else", || {
        let links = fs::read_dir(format!("/proc/{listener}/fd")).unwrap();
        let mut open: Vec<String> = links
            .filter_map(|link| fs::read_link(link.unwrap().path()).ok())
            .map(|target| {
                target
                    .to_string_lossy()
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        open.sort_unstable();
        let mut expected = vec!["/dev/null", "/dev/null", "/dev/null", "socket", "socket"];
        // The way to the broker's runner.
        expected.extend(cfg!(feature = "exec").then_some("socket"));
        (open == expected).then_some(())
    });
}

#[test]
fn a_listener_that_dies_is_replaced_and_no_host_is_turned_away() {
    let guest = Guest::new();
    with_check(&guest, "good", "true", &json!({}));
    let agent = Agent::start(guest);
    let mut before = agent.connect();
    before.assert_open();
    let listener = agent.listener();
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(listener, libc::SIGKILL) };
    before.assert_closed();
    assert_eq!(agent.ask("Ping"), "Pong");
    assert_ne!(agent.listener(), listener);
    until("health once more", || {
        (agent.integration("good")["status"] == "active").then_some(())
    });
}

#[test]
fn a_listener_does_not_outlive_the_broker() {
    let mut agent = Agent::start(Guest::new());
    let listener = agent.listener();
    agent.broker.kill().unwrap();
    until("the end of the listener", || {
        (!is_alive(listener)).then_some(())
    });
}

#[test]
fn only_an_agent_of_the_variant_dev_holds_the_code_of_exec() {
    let binary = fs::read(BINARY).unwrap();
    let name = b"ExecResult";
    let is_there = binary.windows(name.len()).any(|window| window == name);
    assert_eq!(is_there, cfg!(feature = "exec"));
}

#[cfg(feature = "exec")]
mod exec {
    use super::*;

    fn agent() -> Agent {
        let guest = Guest::new();
        (0..8).for_each(|slot| guest.cgroup(&format!("exec-{slot}")));
        Agent::start(guest)
    }

    fn request(command: &str, more: &Value) -> Value {
        let mut fields = json!({"command": command});
        let more = more.as_object().unwrap().clone();
        fields.as_object_mut().unwrap().extend(more);
        json!({"Exec": fields})
    }

    /// What a command came to: exit code, standard output and standard error.
    fn run(agent: &Agent, command: &str, more: &Value) -> (i64, String, String) {
        let answer = agent.connect().ask(&request(command, more));
        let result = &answer["ExecResult"];
        assert!(result.is_object(), "{answer}");
        let text = |field: &str| result[field].as_str().unwrap().to_owned();
        let code = result["exit_code"].as_i64().unwrap();
        (code, text("stdout"), text("stderr"))
    }

    fn error(answer: &Value) -> &str {
        answer["Error"]["message"].as_str().unwrap()
    }

    #[test]
    fn a_command_runs_unconfined_with_the_images_path_and_its_outputs_apart() {
        let agent = agent();
        let command = "echo out; echo err >&2; echo $PATH $HOME $PWD; exit 3";
        let (code, output, errors) = run(&agent, command, &json!({}));
        assert_eq!(code, 3);
        assert_eq!(output, "out\n/usr/bin:/bin /root /\n");
        assert_eq!(errors, "err\n");
        let command = "id -u; grep -e NoNewPrivs -e Seccomp: -e CapEff /proc/self/status";
        let (_, output, _) = run(&agent, command, &json!({}));
        let ours = fs::read_to_string("/proc/self/status").unwrap();
        for line in output.lines().skip(1) {
            assert!(ours.contains(line), "{line}");
        }
        let (code, _, _) = run(&agent, "kill -TERM $$", &json!({}));
        assert_eq!(code, 128 + 15);
    }

    #[test]
    fn input_of_any_length_reaches_the_command_and_none_is_the_end_at_once() {
        let agent = agent();
        assert_eq!(run(&agent, "cat", &json!({})).1, "");
        let input = "line é\n".repeat(20_000);
        assert_eq!(run(&agent, "cat", &json!({"stdin": input})).1, input);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(
            run(&agent(), "printf 'a\\377b'", &json!({})).1,
            "a\u{fffd}b"
        );
    }

    #[test]
    fn output_without_end_is_cut_and_the_command_goes_on() {
        let agent = agent();
        let command = "seq 1 1000000; seq 1 1000000 >&2; exit 5";
        let (code, output, errors) = run(&agent, command, &json!({}));
        assert_eq!(code, 5);
        assert!(output.starts_with("1\n2\n3\n") && output.len() > 80_000);
        assert!(errors.contains("the output was cut"));
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_in_time_and_delays_nobody() {
        let agent = agent();
        let mut slow = agent.connect();
        let begun = Instant::now();
        let limit = json!({"timeout_secs": 1});
        let pid_file = agent.guest.path("/pid");
        let command = format!("echo $$ >{}; exec sleep 1000", pid_file.display());
        slow.send(request(&command, &limit).to_string().as_bytes());
        slow.send(b"\"Ping\"");
        for _ in 0..10 {
            assert_eq!(agent.ask("Ping"), "Pong");
            assert_eq!(run(&agent, "echo x", &json!({})).1, "x\n");
        }
        let answer = slow.hear();
        assert!(
            error(&answer).contains("did not end within 1 s"),
            "{answer}"
        );
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(slow.hear(), "Pong");
        let pid = fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        until("the end of the command", || (!is_alive(pid)).then_some(()));
    }

    #[test]
    fn eight_commands_run_at_once_and_more_are_refused() {
        let agent = agent();
        let mut hosts: Vec<Host> = (0..8).map(|_| agent.connect()).collect();
        for (number, host) in hosts.iter_mut().enumerate() {
            let command = format!("sleep 1; echo {number}");
            host.send(request(&command, &json!({})).to_string().as_bytes());
        }
        let one_more = until("eight of them", || {
            let answer = agent.connect().ask(&request("true", &json!({})));
            answer["Error"].is_object().then_some(answer)
        });
        assert!(error(&one_more).contains("8 commands run already"));
        for (number, host) in hosts.iter_mut().enumerate() {
            assert_eq!(host.hear()["ExecResult"]["stdout"], format!("{number}\n"));
        }
        assert_eq!(run(&agent, "echo again", &json!({})).1, "again\n");
    }

    #[test]
    fn what_left_its_session_dies_with_its_command() {
        let guest = Guest::new();
        let Some(cgroup) = RealCgroup::under(&guest) else {
            return skip("no cgroup of version 2 can be made here");
        };
        let pids = guest.path("/pids").display().to_string();
        let agent = Agent::start(guest);
        let escape = format!("setsid sh -c 'echo $$ >>{pids}; sleep 1000' &");
        run(&agent, &format!("{escape} sleep 0.2"), &json!({}));
        let hanging = request(&format!("{escape} wait"), &json!({"timeout_secs": 1}));
        let answer = agent.connect().ask(&hanging);
        assert!(error(&answer).contains("was killed"), "{answer}");
        let pids = agent.guest.read("/pids");
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines().map(|pid| pid.parse().unwrap()) {
            until("the end of what escaped", || (!is_alive(pid)).then_some(()));
        }
        drop(agent);
        drop(cgroup);
    }

    #[test]
    fn a_command_whose_host_is_gone_is_killed() {
        let agent = agent();
        let pid_file = agent.guest.path("/pid");
        let command = format!("echo $$ >{}; exec sleep 1000", pid_file.display());
        let mut host = agent.connect();
        host.send(request(&command, &json!({})).to_string().as_bytes());
        let pid = until("the command", || {
            fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        drop(host);
        until("the end of the command", || (!is_alive(pid)).then_some(()));
    }

    #[test]
    fn what_cannot_be_run_is_refused_and_the_connection_stays_open() {
        let agent = agent();
        let mut host = agent.connect();
        for (request, reason) in [
            (
                request("true", &json!({"timeout_secs": 0})),
                "use 1 to 3600",
            ),
            (
                request("true", &json!({"timeout_secs": 3601})),
                "use 1 to 3600",
            ),
            (request("tr\0ue", &json!({})), "NUL"),
            (request("true", &json!({"user": "web"})), "unknown field"),
            (json!({"Exec": {}}), "missing field"),
        ] {
            let answer = host.ask(&request);
            assert!(error(&answer).contains(reason), "{answer}");
        }
        host.assert_open();
    }
}
