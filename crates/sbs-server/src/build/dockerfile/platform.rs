use std::collections::BTreeMap;

/// Returns the platform of this machine in the words of OCI, such as `linux/amd64`.
pub(super) fn host() -> String {
    format!("linux/{}", architecture())
}

/// Tells whether a platform is that of this machine; a variant may follow it.
pub(super) fn is_host(platform: &str) -> bool {
    let mut parts = platform.split('/');
    let system = parts.next() == Some("linux");
    let name = parts.next();
    let variant = matches!((architecture(), parts.next()), (_, None) | ("arm64", Some("v8")));
    system && name == Some(architecture()) && variant && parts.next().is_none()
}

/// Returns the arguments that every Dockerfile has without declaring them before its first stage.
pub(super) fn arguments() -> BTreeMap<String, String> {
    ["BUILD", "TARGET"]
        .into_iter()
        .flat_map(|side| {
            [
                (format!("{side}PLATFORM"), host()),
                (format!("{side}OS"), "linux".to_owned()),
                (format!("{side}ARCH"), architecture().to_owned()),
                (format!("{side}VARIANT"), String::new()),
            ]
        })
        .collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_platform_of_this_machine_is_the_hosts() {
        assert!(is_host(&host()));
        let more = format!("{}/v9", host());
        for other in ["", "linux", "linux/", "windows/amd64", "linux/mips", "amd64", &more] {
            assert!(!is_host(other), "{other}");
        }
    }
}
