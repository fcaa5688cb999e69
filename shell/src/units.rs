//! Sizes, spans of time and moments as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;
/// The first second that has a year of five digits.
const YEAR_10000: u64 = 253_402_300_800;

/// A number of bytes: `17 B`, `1.5 KiB`, `64.0 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // What would be shown as 1024.0 is one of the next unit.
        if size < 1023.95 {
            return format!("{size:.1} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} EiB")
}

/// A span of time by its two largest units: `59 s`, `4 min 5 s`, `6 d 23 h`.
pub fn seconds_text(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / DAY);
    let (large, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => (format!("{minutes} min"), (seconds % 60, "s")),
        3600..DAY => (format!("{hours} h"), (minutes % 60, "min")),
        _ => (format!("{days} d"), (hours % 24, "h")),
    };
    match small {
        (0, _) => large,
        (rest, unit) => format!("{large} {rest} {unit}"),
    }
}

/// A Unix second as a moment: `2026-08-22 10:20:30 UTC`.
pub fn moment_text(unix_seconds: u64) -> String {
    if unix_seconds >= YEAR_10000 {
        return format!("Unix second {unix_seconds}");
    }
    let (year, month, day) = date_of(unix_seconds / DAY);
    let rest = unix_seconds % DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// This machine's clock as a Unix second.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Year, month and day of a day counted from 1970-01-01, which is day 0. Steps over the years: there are few.
fn date_of(mut day: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn spans_have_two_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (245, "4 min 5 s"),
            (3600, "1 h"),
            (3661, "1 h 1 min"),
            (7 * DAY - 1, "6 d 23 h"),
            (7 * DAY, "7 d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(seconds_text(seconds), text);
        }
    }

    #[test]
    fn moments_are_dates_in_utc() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_451_606_400, "2016-01-01 00:00:00 UTC"),
            (1_709_210_096, "2024-02-29 12:34:56 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (YEAR_10000 - 1, "9999-12-31 23:59:59 UTC"),
        ];
        for (second, text) in cases {
            assert_eq!(moment_text(second), text);
        }
        assert_eq!(moment_text(u64::MAX), format!("Unix second {}", u64::MAX));
    }
}
