//! Requests and responses as JSON, externally tagged: what the host may say and hear.
//! Answering is left to `listener`.

use crate::frame;
use crate::text;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port of AF_VSOCK that the agent listens on.
pub const PORT: u32 = 5252;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Request {
    Ping,
    WorkerStatus,
    IntegrationStatus,
    ProbeStatus,
    Shutdown,
    #[cfg(feature = "exec")]
    Exec {
        command: String,
        stdin: Option<String>,
        timeout_secs: Option<u32>,
    },
}

#[derive(Serialize)]
pub enum Response {
    Pong,
    WorkerStatus(Worker),
    IntegrationStatusReport {
        integrations: Vec<Integration>,
    },
    ProbeStatusReport {
        probes: Vec<Probe>,
    },
    ShutdownAck {
        success: bool,
    },
    #[cfg(feature = "exec")]
    ExecResult {
        exit_code: i32,
        stdout: String,
        stderr: String,
    },
    Error {
        message: String,
    },
}

#[derive(Serialize)]
pub struct Worker {
    pub status: WorkerState,
    pub last_busy_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    Idle,
    Busy,
}

#[derive(Serialize)]
pub struct Integration {
    pub name: String,
    pub status: IntegrationState,
    pub last_checkpoint_at: Option<String>,
    pub state_size_bytes: u64,
    pub health: Option<Health>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrationState {
    Active,
    Pending,
    Starting,
    Error(String),
}

#[derive(Serialize)]
pub struct Health {
    pub healthy: bool,
    pub detail: String,
    pub checked_at: String,
}

#[derive(Serialize)]
pub struct Probe {
    pub name: String,
    pub healthy: bool,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    pub checked_at: String,
}

/// Why a frame is no request.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// It is not JSON: the stream cannot be trusted to be in step.
    Malformed(String),
    /// It is JSON, but no request that this agent knows.
    Unknown(String),
}

/// Reads the request in a frame's body. Constant in stack, whatever the frame holds.
pub fn parse(body: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| {
        Refusal::Malformed(format!("the frame is not JSON: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed(&error))?;
    serde_json::from_str(text).map_err(|error| {
        let reason = text::printable(error.to_string().as_bytes(), 200);
        Refusal::Unknown(format!("this agent does not know the request: {reason}"))
    })
}

/// The frame of a response; of an `Error` in its place if it is over the limit.
pub fn encode(response: &Response) -> Vec<u8> {
    let json = |response: &Response| {
        frame::around(|frame| {
            serde_json::to_writer(frame, response).expect("a response has only string keys");
        })
    };
    json(response).unwrap_or_else(|| {
        let message = format!("the response is over the limit of {} bytes", frame::LIMIT);
        json(&Response::Error { message }).expect("a sentence is below the limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(response: &Response) -> Value {
        serde_json::from_slice(&encode(response)[4..]).unwrap()
    }

    fn is_unknown(body: &str) -> bool {
        matches!(parse(body.as_bytes()), Err(Refusal::Unknown(_)))
    }

    fn is_malformed(body: &[u8]) -> bool {
        matches!(parse(body), Err(Refusal::Malformed(_)))
    }

    #[test]
    fn requests_are_bare_strings() {
        assert_eq!(parse(b"\"Ping\""), Ok(Request::Ping));
        assert_eq!(parse(b" \"ProbeStatus\"\n"), Ok(Request::ProbeStatus));
    }

    #[test]
    fn json_that_is_no_request_is_unknown() {
        let others = [
            "\"Pong\"",
            "\"ping\"",
            "null",
            "1",
            "[]",
            "{}",
            "\"\"",
            #[cfg(not(feature = "exec"))]
            "{\"Exec\": {\"command\": \"id\"}}",
            "{\"Exec\": {\"command\": \"id\", \"more\": 1}}",
            "{\"Exec\": {\"command\": \"id\", \"timeout_secs\": -1}}",
            "{\"Ping\": {\"more\": 1}}",
            "{\"Ping\": null, \"Shutdown\": null}",
        ];
        for body in others {
            assert!(is_unknown(body), "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        let others: [&[u8]; 7] = [
            b"",
            b"Ping",
            b"\"Ping",
            b"\"Ping\" \"Ping\"",
            b"{\"Ping\"",
            b"\"\xff\"",
            b"\0",
        ];
        for body in others {
            assert!(is_malformed(body), "{body:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let depth = 100_000;
        assert!(is_malformed("[".repeat(depth).as_bytes()));
        assert!(is_unknown(&["[".repeat(depth), "]".repeat(depth)].concat()));
        assert!(is_malformed("{\"a\":".repeat(40_000).as_bytes()));
    }

    #[test]
    fn a_refusal_does_not_hand_control_characters_back() {
        let Err(Refusal::Unknown(reason)) = parse(br#""\u001b[2J\u0007""#) else {
            panic!("no such request exists");
        };
        assert!(!reason.chars().any(char::is_control), "{reason:?}");
    }

    #[test]
    fn responses_have_exactly_the_fields_of_the_protocol() {
        assert_eq!(json(&Response::Pong), "Pong");
        let integration = |status| {
            json(&Response::IntegrationStatusReport {
                integrations: vec![Integration {
                    name: "web".to_owned(),
                    status,
                    last_checkpoint_at: None,
                    state_size_bytes: 0,
                    health: Some(Health {
                        healthy: true,
                        detail: "ok".to_owned(),
                        checked_at: "2026-01-01T00:00:00Z".to_owned(),
                    }),
                }],
            })
        };
        let health = r#"{"healthy": true, "detail": "ok", "checked_at": "2026-01-01T00:00:00Z"}"#;
        for (status, text) in [
            (IntegrationState::Active, r#""active""#),
            (IntegrationState::Starting, r#""starting""#),
            (
                IntegrationState::Error("no".to_owned()),
                r#"{"error": "no"}"#,
            ),
        ] {
            let expected = format!(
                r#"{{"IntegrationStatusReport": {{"integrations": [{{"name": "web",
                "status": {text}, "last_checkpoint_at": null, "state_size_bytes": 0,
                "health": {health}}}]}}}}"#
            );
            let expected: Value = serde_json::from_str(&expected).unwrap();
            assert_eq!(integration(status), expected);
        }
    }

    #[test]
    fn a_response_over_the_limit_becomes_an_error() {
        let message = "x".repeat(frame::LIMIT);
        let Value::Object(error) = json(&Response::Error { message }) else {
            panic!("an Error has a field");
        };
        let message = error["Error"]["message"].as_str().unwrap();
        assert_eq!(message, "the response is over the limit of 262144 bytes");
    }
}
