use std::net::IpAddr;

use rcgen::SanType;

/// Parses a host as a TLS client names it: an IP address without brackets, or a DNS name.
pub(super) fn parse(host: &str) -> Option<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(SanType::IpAddress(address));
    }
    if host.len() > MAX_NAME_BYTES || !host.split('.').all(is_label) {
        return None;
    }
    // A last label of digits would be read as an address by some clients (RFC 1123, 2.1).
    if host.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(SanType::DnsName(host.try_into().ok()?))
}

// Underscores are not host names by RFC 1123, yet container networks use them.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

// RFC 1035, 2.3.4, in text form without the final dot.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_addresses_from_names() {
        for host in ["127.0.0.1", "::1", "2001:db8::7"] {
            assert!(matches!(parse(host), Some(SanType::IpAddress(_))), "{host}");
        }
        for host in
            ["localhost", "sbs.example.com", "build_server", "1a.2b", "xn--bcher-kva.example"]
        {
            assert!(matches!(parse(host), Some(SanType::DnsName(_))), "{host}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        for host in [
            "",
            ".",
            "a..b",
            "a.",
            "-a",
            "a-",
            "*.example.com",
            "a b",
            "a:443",
            "[::1]",
            "1.2.3",
            "1.2.3.4.5",
            "bücher.example",
            "a\0b",
            "a/b",
            &"a".repeat(64),
        ] {
            assert_eq!(parse(host), None, "{host}");
        }
    }

    #[test]
    fn takes_names_up_to_the_limit() {
        let fitting = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(fitting.len(), 253);
        assert!(parse(&fitting).is_some());
        assert_eq!(parse(&(fitting + "d")), None);
    }
}
