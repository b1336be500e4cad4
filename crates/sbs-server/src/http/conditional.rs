//! Conditional requests and ranges (RFC 9110, 13 and 14), as far as an unchanging file needs them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// What a request for a file is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// 412: the client wants another version.
    Failed,
    /// 304: the client has this version.
    NotModified,
    /// 206: these bytes, the last included.
    Part { first: u64, last: u64 },
    /// 416: the range begins behind the end.
    Unsatisfiable,
    /// 200: everything.
    Whole,
}

/// Decides what a request for a file with this strong entity tag and length is answered with, in the
/// order of RFC 9110, 13.2.2. There is no modification date: conditions on one are ignored.
pub(crate) fn answer(method: &Method, headers: &HeaderMap, tag: &str, length: u64) -> Answer {
    if headers.contains_key(header::IF_MATCH) && !lists(headers, &header::IF_MATCH, tag, "") {
        return Answer::Failed;
    }
    if lists(headers, &header::IF_NONE_MATCH, tag, "W/") {
        return Answer::NotModified;
    }
    // A range has a meaning for GET alone.
    if *method != Method::GET || !if_range_holds(headers, tag) {
        return Answer::Whole;
    }
    match only(headers, &header::RANGE).and_then(parse_range) {
        None => Answer::Whole,
        Some(range) => range.within(length),
    }
}

/// Tells whether a list of entity tags names this one, with or without the prefix that is ignored.
fn lists(headers: &HeaderMap, name: &HeaderName, tag: &str, ignored: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    // A comma can be part of a tag, but never of one of ours.
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix(ignored).unwrap_or(one) == tag)
}

/// Tells whether a range is wanted: without the field always, else only of this version.
fn if_range_holds(headers: &HeaderMap, tag: &str) -> bool {
    !headers.contains_key(header::IF_RANGE) || only(headers, &header::IF_RANGE) == Some(tag)
}

/// Returns the value of a field that stands once and is text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next().map(HeaderValue::to_str)?.ok()?;
    values.next().is_none().then(|| value.trim())
}

/// One range of bytes, as it was asked for.
enum Range {
    From(u64),
    FromTo(u64, u64),
    Last(u64),
}

impl Range {
    fn within(self, length: u64) -> Answer {
        let end = length.saturating_sub(1);
        let (first, last) = match self {
            Self::From(first) => (first, end),
            Self::FromTo(first, last) => (first, last.min(end)),
            Self::Last(0) => return Answer::Unsatisfiable,
            Self::Last(count) => (length.saturating_sub(count), end),
        };
        if first >= length { Answer::Unsatisfiable } else { Answer::Part { first, last } }
    }
}

/// Parses `bytes=` with one range. What is malformed, in another unit or more than one range is no
/// range: a server may answer with everything (RFC 9110, 14.2).
fn parse_range(text: &str) -> Option<Range> {
    let (unit, range) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    match (first, last) {
        ("", last) => Some(Range::Last(number(last)?)),
        (first, "") => Some(Range::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Range::FromTo(first, last))
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // What is too large for 64 bits is behind the end of every file.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";

    fn get(fields: &[(HeaderName, &'static str)]) -> Answer {
        ask(&Method::GET, fields, 100)
    }

    fn ask(method: &Method, fields: &[(HeaderName, &'static str)], length: u64) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        answer(method, &headers, TAG, length)
    }

    #[test]
    fn one_range_is_answered_with_its_part() {
        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=0-", 0, 99),
            ("bytes=10-19", 10, 19),
            ("bytes=99-", 99, 99),
            ("bytes=50-1000", 50, 99),
            ("bytes=0-99999999999999999999999", 0, 99),
            ("bytes=-1", 99, 99),
            ("bytes=-1000", 0, 99),
            ("BYTES= 1-2 ", 1, 2),
        ] {
            assert_eq!(get(&[(header::RANGE, range)]), Answer::Part { first, last }, "{range}");
        }
    }

    #[test]
    fn a_range_behind_the_end_cannot_be_satisfied() {
        for range in ["bytes=100-", "bytes=100-200", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(get(&[(header::RANGE, range)]), Answer::Unsatisfiable, "{range}");
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            let answer = ask(&Method::GET, &[(header::RANGE, range)], 0);
            assert_eq!(answer, Answer::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_is_answered_with_everything() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=1 - 2",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "items=0-1",
            "0-1",
            "bytes=--1",
            "bytes=0x1-2",
        ] {
            assert_eq!(get(&[(header::RANGE, range)]), Answer::Whole, "{range}");
        }
        let twice = [(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")];
        assert_eq!(get(&twice), Answer::Whole);
        assert_eq!(ask(&Method::HEAD, &[(header::RANGE, "bytes=0-1")], 100), Answer::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_answered_with_everything() {
        let part = Answer::Part { first: 1, last: 2 };
        for (if_range, expected) in [
            (TAG, part),
            ("\"abd\"", Answer::Whole),
            ("W/\"abc\"", Answer::Whole),
            ("abc", Answer::Whole),
            ("*", Answer::Whole),
            ("Sat, 29 Oct 1994 19:43:31 GMT", Answer::Whole),
        ] {
            let fields = [(header::RANGE, "bytes=1-2"), (header::IF_RANGE, if_range)];
            assert_eq!(get(&fields), expected, "{if_range}");
        }
        // Also where the range would begin behind the end.
        let fields = [(header::RANGE, "bytes=200-"), (header::IF_RANGE, "\"abd\"")];
        assert_eq!(get(&fields), Answer::Whole);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let range = (header::RANGE, "bytes=1-2");
        for (name, value, expected) in [
            (header::IF_NONE_MATCH, TAG, Answer::NotModified),
            (header::IF_NONE_MATCH, "W/\"abc\"", Answer::NotModified),
            (header::IF_NONE_MATCH, "\"x\", \"abc\"", Answer::NotModified),
            (header::IF_NONE_MATCH, "*", Answer::NotModified),
            (header::IF_NONE_MATCH, "\"x\"", Answer::Part { first: 1, last: 2 }),
            (header::IF_MATCH, "\"x\", \"abc\"", Answer::Part { first: 1, last: 2 }),
            (header::IF_MATCH, "*", Answer::Part { first: 1, last: 2 }),
            (header::IF_MATCH, "W/\"abc\"", Answer::Failed),
            (header::IF_MATCH, "\"x\"", Answer::Failed),
        ] {
            assert_eq!(get(&[(name, value), range.clone()]), expected, "{value}");
        }
    }
}
