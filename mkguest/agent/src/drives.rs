//! The built-in probe `mvm-drives`: the four drives as /init left them and as the kernel
//! has them mounted.

use crate::protocol::Probe;
use crate::site::Site;
use crate::text;
use crate::time;
use serde::Deserialize;
use serde_json::{json, Value};
use std::io::ErrorKind;
use std::time::SystemTime;

pub const PROBE: &str = "mvm-drives";

const DRIVES: [&str; 4] = ["root", "config", "secrets", "data"];
const LONGEST: usize = 1024;

/// `/run/mvm/drives/<drive>`, which /init writes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    device: String,
    mount_point: String,
    state: State,
    #[serde(default)]
    detail: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum State {
    Mounted,
    Absent,
    Failed,
}

/// Looks at the drives: unhealthy if one has failed. A drive that /init wrote nothing
/// about is left out.
pub fn probe(site: &Site) -> Probe {
    let mounts = site.read("/proc/mounts").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let mut failed = Vec::new();
    let mut output = Vec::new();
    for drive in DRIVES {
        let record = match site.read(&format!("/run/mvm/drives/{drive}")) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            content => record(content.as_deref().unwrap_or_default()),
        };
        if record.state == State::Failed {
            failed.push(drive);
        }
        output.push(describe(drive, &record, &mounts));
    }
    Probe {
        name: PROBE.to_owned(),
        healthy: failed.is_empty(),
        detail: match failed[..] {
            [] => String::new(),
            _ => format!("failed: {}", failed.join(", ")),
        },
        output: Some(Value::Array(output)),
        checked_at: time::iso8601(SystemTime::now()),
    }
}

/// What /init says; a drive that it says nothing sensible about has failed.
fn record(content: &[u8]) -> Record {
    serde_json::from_slice(content).unwrap_or_else(|error| Record {
        device: String::new(),
        mount_point: String::new(),
        state: State::Failed,
        detail: format!("its record in /run/mvm/drives does not parse: {error}"),
    })
}

fn describe(drive: &str, record: &Record, mounts: &str) -> Value {
    let (kind, options) = mounted_at(&record.mount_point, mounts).unwrap_or_default();
    let state = match record.state {
        State::Mounted => "mounted",
        State::Absent => "absent",
        State::Failed => "failed",
    };
    let text = |text: &str| text::printable(text.as_bytes(), LONGEST);
    json!({
        "drive": drive,
        "device": text(&record.device),
        "mountPoint": text(&record.mount_point),
        "type": text(kind),
        "options": text(options),
        "state": state,
        "detail": text(&record.detail),
    })
}

/// Type and options of what is on top at `point`, from the lines of proc_mounts(5).
fn mounted_at<'a>(point: &str, mounts: &'a str) -> Option<(&'a str, &'a str)> {
    // White space and backslashes are written in octal, as getmntent(3) says.
    let written: String = point
        .chars()
        .map(|character| match character {
            ' ' => "\\040".to_owned(),
            '\t' => "\\011".to_owned(),
            '\n' => "\\012".to_owned(),
            '\\' => "\\134".to_owned(),
            other => other.to_string(),
        })
        .collect();
    mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == written).then_some((fields.next()?, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "rootfs / rootfs rw 0 0\n\
        /dev/root / squashfs ro,relatime 0 0\n\
        /dev/vdb /mnt/config ext4 ro,nosuid,nodev,noexec 0 0\n\
        /dev/vdd /mnt/a\\040b ext4 rw 0 0\n\
        cut /short\n";

    #[test]
    fn the_last_mount_at_a_point_counts() {
        assert_eq!(mounted_at("/", MOUNTS), Some(("squashfs", "ro,relatime")));
    }

    #[test]
    fn a_mount_point_is_matched_whole_and_unescaped() {
        assert_eq!(mounted_at("/mnt/a b", MOUNTS), Some(("ext4", "rw")));
        assert_eq!(mounted_at("/mnt", MOUNTS), None);
        assert_eq!(mounted_at("/short", MOUNTS), None);
    }

    #[test]
    fn a_record_that_does_not_parse_is_a_failed_drive() {
        for content in [
            "",
            "{}",
            "null",
            r#"{"device": "", "mountPoint": "", "state": "ok"}"#,
        ] {
            let record = record(content.as_bytes());
            assert!(record.state == State::Failed);
            assert!(record.detail.contains("does not parse"), "{content}");
        }
    }

    #[test]
    fn a_drive_is_described_by_its_record_and_its_mount() {
        let content = br#"{"device": "/dev/vdb", "mountPoint": "/mnt/config",
            "state": "mounted", "detail": "\u001b"}"#;
        assert_eq!(
            describe("config", &record(content), MOUNTS),
            json!({
                "drive": "config",
                "device": "/dev/vdb",
                "mountPoint": "/mnt/config",
                "type": "ext4",
                "options": "ro,nosuid,nodev,noexec",
                "state": "mounted",
                "detail": "\u{fffd}",
            })
        );
    }
}
