//! Points in time as the protocol writes them: ISO 8601, UTC, to the second.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-01-31T23:59:59Z`; the epoch for a time before it.
pub fn iso8601(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days after 1970-01-01, by Howard Hinnant's
/// `civil_from_days`: years begin in March, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> String {
        iso8601(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn known_instants_are_written_as_iso_8601() {
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(1_790_000_000), "2026-09-21T14:13:20Z");
    }

    #[test]
    fn a_clock_before_the_epoch_gives_the_epoch() {
        assert_eq!(
            iso8601(UNIX_EPOCH - Duration::from_secs(5)),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = date(0);
        for day in 1..80_000 {
            let next = date(day);
            let same_month = next.2 == previous.2 + 1 && next.1 == previous.1;
            let new_month = next.2 == 1 && (next.1 == previous.1 + 1 || next.1 == 1);
            assert!(same_month || new_month, "{previous:?} {next:?}");
            previous = next;
        }
        assert_eq!(previous, (2189, 1, 11));
    }
}
