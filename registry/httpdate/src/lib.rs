//! Dates of HTTP at any clock.
//!
//! The HTTP libraries beneath both programs write a `Date` into every answer, and the date of a file
//! into `Last-Modified`, by a crate of this name that panics before 1970 and after 9999: a clock
//! that is far wrong, or a file of such a date, would end the process. This one has what they use
//! of it, and takes what no date of HTTP can say for the nearest that one can.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, since 1970.
const SECONDS_MAX: u64 = 253_402_300_799;
const DAY: u64 = 86_400;
/// Days from the first of March of the year 0, with which the calendar's pattern begins, to 1970,
const DAYS_BEFORE_1970: u64 = 719_468;
/// and of the pattern, which is 400 years.
const DAYS_OF_PATTERN: u64 = 146_097;
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date of HTTP: a second of the years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpDate(u64);

/// The text is no date of HTTP.
#[derive(Debug)]
pub struct Error(());

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no date of HTTP")
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Reads a date.
///
/// # Errors
/// It is none.
pub fn parse_http_date(text: &str) -> Result<SystemTime, Error> {
    text.parse::<HttpDate>().map(Into::into)
}

/// Writes a date.
pub fn fmt_http_date(time: SystemTime) -> String {
    HttpDate::from(time).to_string()
}

impl From<SystemTime> for HttpDate {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_secs().min(SECONDS_MAX))
    }
}

impl From<HttpDate> for SystemTime {
    fn from(date: HttpDate) -> Self {
        UNIX_EPOCH + Duration::from_secs(date.0)
    }
}

/// Year, month (from 1) and day (from 1) of a day since 1970. The year begins in March here, so that
/// the day that some years have more is its last.
fn calendar(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_BEFORE_1970;
    let (pattern, day) = (day / DAYS_OF_PATTERN, day % DAYS_OF_PATTERN);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + 400 * pattern;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// The way back. For a day that its month does not have it is another day's.
fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (pattern, year) = (year / 400, year % 400);
    let day = (153 * month + 2) / 5 + day.checked_sub(1)?;
    let day = 365 * year + year / 4 - year / 100 + day;
    (pattern * DAYS_OF_PATTERN + day).checked_sub(DAYS_BEFORE_1970)
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (self.0 / DAY, self.0 % DAY);
        let (year, month, of_month) = calendar(day);
        let weekday = WEEKDAYS[usize::try_from(day % 7).unwrap_or(0)];
        let month = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
        let text = format!(
            "{}, {of_month:02} {month} {year:04} {:02}:{:02}:{:02} GMT",
            &weekday[..3],
            second / 3_600,
            second / 60 % 60,
            second % 60
        );
        // In one piece, as the libraries expect.
        f.write_str(&text)
    }
}

/// The three forms of RFC 9110, section 5.6.7.
impl FromStr for HttpDate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let date = match parts[..] {
            [weekday, day, month, year, clock, "GMT"] => {
                let weekday = weekday.strip_suffix(',').filter(|name| name.len() == 3);
                date(weekday, day, month, number(year, 4), clock)
            }
            [weekday, date_, clock, "GMT"] => {
                let weekday = weekday.strip_suffix(',').filter(|name| name.len() > 3);
                let parts: Vec<&str> = date_.split('-').collect();
                match parts[..] {
                    [day, month, year] => {
                        // Two digits: the century that is nearer to now, whenever that is.
                        let century = |year| if year < 70 { 2000 + year } else { 1900 + year };
                        date(weekday, day, month, number(year, 2).map(century), clock)
                    }
                    _ => None,
                }
            }
            [weekday, month, day, clock, year] => {
                let weekday = Some(weekday).filter(|name| name.len() == 3);
                date(weekday, day, month, number(year, 4), clock)
            }
            _ => None,
        };
        date.ok_or(Error(()))
    }
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let all_digits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all_digits)
}

fn date(
    weekday: Option<&str>,
    day: &str,
    month: &str,
    year: Option<u64>,
    clock: &str,
) -> Option<HttpDate> {
    let (weekday, year) = (weekday?, year?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let of_month = number(day, 2).or_else(|| number(day, 1))?;
    let clock: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = clock[..] else {
        return None;
    };
    let (hour, minute) = (number(hour, 2)?, number(minute, 2)?);
    let second = number(second, 2)?;
    let month = month as u64 + 1;
    if hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return None;
    }
    let day = day_of(year, month, of_month)?;
    let name = WEEKDAYS[usize::try_from(day % 7).ok()?];
    let named = name == weekday || &name[..3] == weekday;
    let seconds = day * DAY + hour * 3_600 + minute * 60 + second;
    (calendar(day) == (year, month, of_month) && named).then_some(HttpDate(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> String {
        fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn what_no_date_can_say_is_the_nearest_that_one_can() {
        let day = Duration::from_secs(DAY);
        let long = Duration::from_secs(i64::MAX.cast_unsigned());
        let times = [
            (UNIX_EPOCH - day, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH - long, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + long, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (time, text) in times {
            assert_eq!(fmt_http_date(time), text);
        }
        assert_eq!(at(SECONDS_MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(at(SECONDS_MAX + 1), at(SECONDS_MAX));
    }

    #[test]
    fn each_form_of_a_date_is_read() {
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text).unwrap(), time, "{text}");
        }
        for text in [
            "",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sonntag, 06-Nov-94 08:49:37 GMT",
            "Sun, ä6 Nov 1994 08:49:37 GMT",
        ] {
            assert!(parse_http_date(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_is_read_as_it_is_written() {
        let mut before = String::new();
        let now_and_then = (150_000..=SECONDS_MAX / DAY).step_by(97);
        for day in (0..150_000).chain(now_and_then) {
            let text = at(day * DAY + day % DAY);
            assert_eq!(text.len(), 29, "{text}");
            assert_ne!(text, before);
            let date: HttpDate = text.parse().unwrap();
            assert_eq!(date.0, day * DAY + day % DAY, "{text}");
            before = text;
        }
        assert_eq!(at(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(at(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}
