//! How busy the guest is, by its load average.

use crate::protocol::{self, WorkerState};
use crate::site::Site;
use crate::time;
use std::time::{Duration, Instant, SystemTime};

/// The load average of one minute falls from 1 to the busy mark in more than two.
const INTERVAL: Duration = Duration::from_secs(60);

/// Remembers when the guest was last seen busy.
pub struct Worker {
    busy_at: Option<SystemTime>,
    next: Instant,
}

impl Worker {
    pub fn new(now: Instant) -> Worker {
        Worker {
            busy_at: None,
            next: now,
        }
    }

    pub fn wakes(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, now: Instant, site: &Site) {
        if self.next <= now {
            self.next = now + INTERVAL;
            self.status(site);
        }
    }

    /// What a host hears of it. A load that cannot be read counts as none.
    pub fn status(&mut self, site: &Site) -> protocol::Worker {
        let load = site.read_text("/proc/loadavg").unwrap_or_default();
        let status = if is_busy(&load) {
            self.busy_at = Some(SystemTime::now());
            WorkerState::Busy
        } else {
            WorkerState::Idle
        };
        protocol::Worker {
            status,
            last_busy_at: self.busy_at.map(time::iso8601),
        }
    }
}

/// Whether the first figure of proc_loadavg(5), `N.NN`, is 0.1 or more: without floating
/// point, whether any digit but the last is not 0.
fn is_busy(load: &str) -> bool {
    let first = load.split(' ').next().unwrap_or_default();
    let tenths = first.strip_suffix(|digit: char| digit.is_ascii_digit());
    tenths
        .unwrap_or_default()
        .bytes()
        .any(|byte| (b'1'..=b'9').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_a_tenth_or_more_is_busy() {
        for load in ["0.10 0.00 0.00 1/60 99", "0.99 ", "1.00 0", "10.00 "] {
            assert!(is_busy(load), "{load}");
        }
        for load in ["0.00 9.00 9.00 1/60 99", "0.09 1.0", "", "x"] {
            assert!(!is_busy(load), "{load}");
        }
    }
}
