//! The drop-ins that say which health checks and probes there are. Running them is left
//! to `broker`, and when to `watch`.

use crate::cgroup::Kind;
use crate::drives;
use crate::site::Site;
use crate::text;
use crate::tiers::Tier;
use serde::Deserialize;
use std::fs;
use std::time::Duration;

const CHECKS: &str = "/etc/mvm/integrations.d";
const PROBES: &str = "/etc/mvm/probes.d";
const SERVICE_GROUP: &str = "/etc/mvm/service-group";
/// More than any guest has; a bound for descriptors, processes and messages.
const MOST: usize = 128;

/// A health check or probe: what to run, as whom, and when.
#[derive(Debug, PartialEq)]
pub struct Definition {
    /// `Kind::Check` or `Kind::Probe`.
    pub kind: Kind,
    pub name: String,
    pub user: String,
    pub tier: Tier,
    pub command: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// How long after the agent's start a failure still means "starting".
    pub grace: Duration,
    /// Whether the output is a JSON value rather than text.
    pub is_json: bool,
}

/// `/etc/mvm/integrations.d/<n>.json`, as far as running the check needs it.
#[derive(Deserialize)]
struct Check {
    name: String,
    health_cmd: String,
    #[serde(default = "default_interval")]
    health_interval_secs: u32,
    #[serde(default = "default_timeout")]
    health_timeout_secs: u32,
    #[serde(default)]
    startup_grace_secs: u32,
    user: Option<String>,
    #[serde(default)]
    seccomp: Tier,
}

/// `/etc/mvm/probes.d/<n>.json`, as far as running the probe needs it.
#[derive(Deserialize)]
struct Probe {
    name: String,
    cmd: String,
    #[serde(default = "default_interval")]
    interval_secs: u32,
    #[serde(default = "default_timeout")]
    timeout_secs: u32,
    #[serde(default)]
    output_format: OutputFormat,
    user: Option<String>,
    #[serde(default)]
    seccomp: Tier,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum OutputFormat {
    #[default]
    ExitCode,
    Json,
}

fn default_interval() -> u32 {
    30
}

fn default_timeout() -> u32 {
    10
}

/// All definitions, checks before probes and each by file name, and a sentence for each
/// drop-in that was skipped.
pub fn load(site: &Site) -> (Vec<Definition>, Vec<String>) {
    let group = site.read_text(SERVICE_GROUP).unwrap_or_default();
    let mut definitions: Vec<Definition> = Vec::new();
    let mut complaints = Vec::new();
    for directory in [CHECKS, PROBES] {
        let parse = if directory == CHECKS { check } else { probe };
        for file in drop_ins(directory, site) {
            let path = format!("{directory}/{file}");
            let result = site
                .read(&path)
                .map_err(|error| error.to_string())
                .and_then(|content| parse(&content, group.trim()))
                .and_then(|definition| accepted(definition, &definitions));
            match result {
                Ok(definition) => definitions.push(definition),
                Err(reason) => complaints.push(format!("{path} is skipped: {reason}")),
            }
        }
    }
    (definitions, complaints)
}

fn drop_ins(directory: &str, site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.path(directory));
    let mut files: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.ends_with(".json"))
        .collect();
    files.sort_unstable();
    files
}

fn accepted(definition: Definition, others: &[Definition]) -> Result<Definition, String> {
    let name = &definition.name;
    let same = |other: &Definition| (other.kind, &other.name) == (definition.kind, name);
    if !text::is_name(name) {
        Err(format!("{name:?} is not a name"))
    } else if others.iter().any(same) || (definition.kind, &**name) == (Kind::Probe, drives::PROBE)
    {
        Err(format!("there is another one called {name}"))
    } else if others.len() >= MOST {
        Err(format!("there are {MOST} checks and probes already"))
    } else {
        Ok(definition)
    }
}

fn check(content: &[u8], group: &str) -> Result<Definition, String> {
    let check: Check = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(Definition {
        kind: Kind::Check,
        name: check.name,
        user: check.user.unwrap_or_else(|| group.to_owned()),
        tier: check.seccomp,
        command: check.health_cmd,
        interval: seconds(check.health_interval_secs),
        timeout: seconds(check.health_timeout_secs),
        grace: Duration::from_secs(check.startup_grace_secs.into()),
        is_json: false,
    })
}

fn probe(content: &[u8], group: &str) -> Result<Definition, String> {
    let probe: Probe = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(Definition {
        kind: Kind::Probe,
        name: probe.name,
        user: probe.user.unwrap_or_else(|| group.to_owned()),
        tier: probe.seccomp,
        command: probe.cmd,
        interval: seconds(probe.interval_secs),
        timeout: seconds(probe.timeout_secs),
        grace: Duration::ZERO,
        is_json: probe.output_format == OutputFormat::Json,
    })
}

/// At least one: with none, a check would run without pause or never end in time.
fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.max(1).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_says_only_what_it_must_gets_the_defaults() {
        let parsed = check(br#"{"name": "web", "health_cmd": "true"}"#, "mvm").unwrap();
        assert_eq!(
            parsed,
            Definition {
                kind: Kind::Check,
                name: "web".to_owned(),
                user: "mvm".to_owned(),
                tier: Tier::Standard,
                command: "true".to_owned(),
                interval: Duration::from_secs(30),
                timeout: Duration::from_secs(10),
                grace: Duration::ZERO,
                is_json: false,
            }
        );
    }

    #[test]
    fn a_command_is_taken_byte_for_byte() {
        let content = br#"{"name": "x", "user": "u", "cmd": "a 'b' \"$c\" `d`\n\\ ${e} \u00e9",
            "description": "", "interval_secs": 5, "timeout_secs": 2, "output_format": "json"}"#;
        let parsed = probe(content, "mvm").unwrap();
        assert_eq!(parsed.command, "a 'b' \"$c\" `d`\n\\ ${e} é");
        assert_eq!(parsed.user, "u");
        assert!(parsed.is_json);
    }

    #[test]
    fn a_tier_is_taken_and_an_unknown_one_refused() {
        let of = |tier: &str| {
            let content = format!(r#"{{"name": "x", "cmd": "", "seccomp": "{tier}"}}"#);
            probe(content.as_bytes(), "mvm")
        };
        assert_eq!(of("minimal").unwrap().tier, Tier::Minimal);
        let error = of("Minimal").unwrap_err();
        assert!(error.contains("unknown variant `Minimal`"), "{error}");
        assert!(error.contains("`essential`"), "{error}");
    }

    #[test]
    fn numbers_out_of_range_are_refused_and_none_is_raised_to_one() {
        for number in ["-1", "1.5", "4294967296", "\"1\""] {
            let text =
                format!(r#"{{"name": "x", "health_cmd": "", "health_interval_secs": {number}}}"#);
            assert!(check(text.as_bytes(), "mvm").is_err(), "{number}");
        }
        let none = br#"{"name": "x", "cmd": "", "interval_secs": 0, "timeout_secs": 0}"#;
        let parsed = probe(none, "mvm").unwrap();
        assert_eq!(parsed.interval, Duration::from_secs(1));
        assert_eq!(parsed.timeout, Duration::from_secs(1));
    }

    #[test]
    fn names_that_are_none_or_taken_are_refused() {
        let named = |name: &str| {
            probe(
                format!(r#"{{"name": "{name}", "cmd": ""}}"#).as_bytes(),
                "mvm",
            )
            .unwrap()
        };
        let others = [named("a")];
        assert!(accepted(named("b"), &others).is_ok());
        for name in ["a", "../b", "", "mvm-drives"] {
            assert!(accepted(named(name), &others).is_err(), "{name}");
        }
    }
}
