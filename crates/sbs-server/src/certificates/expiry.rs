//! Warnings before a certificate ends, or a revocation list.

use std::collections::HashMap;

use sbs_proto::Digest;
use time::{Duration, OffsetDateTime};

/// How near an end is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Nearness {
    Within30Days,
    Within7Days,
    Within1Day,
    Ended,
}

/// Which warnings were given.
#[derive(Debug, Default)]
pub(super) struct Warned(HashMap<Digest, Nearness>);

impl Warned {
    /// Tells how near the end of what has this digest is, once for each step of the way.
    pub(super) fn next(
        &mut self,
        sha256: Digest,
        end: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Option<Nearness> {
        let near = nearness(end, now)?;
        (self.0.insert(sha256, near) != Some(near)).then_some(near)
    }
}

fn nearness(not_after: OffsetDateTime, now: OffsetDateTime) -> Option<Nearness> {
    let left = not_after - now;
    let steps = [
        (Duration::ZERO, Nearness::Ended),
        (Duration::days(1), Nearness::Within1Day),
        (Duration::days(7), Nearness::Within7Days),
        (Duration::days(30), Nearness::Within30Days),
    ];
    steps.into_iter().find(|(limit, _)| left <= *limit).map(|(_, nearness)| nearness)
}

#[cfg(test)]
mod tests {
    use sbs_crypto::pki::{ServerHost, ServerKey, describe};
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_of_at_30_7_and_1_days_and_when_it_has_come() {
        let end = datetime!(2027-01-31 00:00 UTC);
        for (now, expected) in [
            (datetime!(2026-12-31 23:59:59 UTC), None),
            (datetime!(2027-01-01 00:00 UTC), Some(Nearness::Within30Days)),
            (datetime!(2027-01-23 23:59:59 UTC), Some(Nearness::Within30Days)),
            (datetime!(2027-01-24 00:00 UTC), Some(Nearness::Within7Days)),
            (datetime!(2027-01-29 23:59:59 UTC), Some(Nearness::Within7Days)),
            (datetime!(2027-01-30 00:00 UTC), Some(Nearness::Within1Day)),
            (datetime!(2027-01-30 23:59:59 UTC), Some(Nearness::Within1Day)),
            (datetime!(2027-01-31 00:00 UTC), Some(Nearness::Ended)),
            (datetime!(2037-01-31 00:00 UTC), Some(Nearness::Ended)),
        ] {
            assert_eq!(nearness(end, now), expected, "{now}");
        }
    }

    #[test]
    fn each_step_is_told_of_once() {
        let made = datetime!(2026-01-01 00:00 UTC);
        let host = ServerHost::parse("localhost").unwrap();
        let pem = ServerKey::generate().unwrap().self_signed(&host, made).unwrap();
        let info = describe(&pem).unwrap();
        let mut warned = Warned::default();
        let days = [0, 300, 336, 337, 359, 360, 365, 366, 367];
        let told =
            days.map(|day| warned.next(info.sha256, info.not_after, made + Duration::days(day)));
        assert_eq!(
            told,
            [
                None,
                None,
                Some(Nearness::Within30Days),
                None,
                Some(Nearness::Within7Days),
                None,
                Some(Nearness::Ended),
                None,
                None
            ]
        );
    }
}
