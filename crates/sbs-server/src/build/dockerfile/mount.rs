//! The options of `RUN --mount`.
//!
//! Engines have had holes here again and again: CVE-2024-1753 (a source that is a symbolic link
//! shows the host's files), CVE-2024-9407 (options that reach the mount call), CVE-2024-11218
//! (races). So only what needs no path of the builder's own is let through: a whole stage, image or
//! context, read-only, or an empty tmpfs.

use std::ops::Range;

/// What a mount is from: the text, and where it stands in the value.
pub(super) type From<'a> = Option<(&'a str, Range<usize>)>;

/// Reads the value of `--mount` and returns what it is from.
///
/// The error says what is not supported and what to do.
pub(super) fn parse(value: &str) -> Result<From<'_>, (String, &'static str)> {
    let mut kind = "bind";
    let mut from = None;
    let mut source = None;
    let mut target = None;
    let mut seen = Vec::new();
    let mut at = 0;
    for option in value.split(',') {
        let (key, given) = option.split_once('=').unwrap_or((option, ""));
        let end = at + option.len();
        let name = match key {
            "dst" | "destination" => "target",
            "src" => "source",
            "ro" => "readonly",
            other => other,
        };
        if seen.contains(&name) {
            return refuse(&format!("`{key}` twice in a mount"), "remove one");
        }
        seen.push(name);
        match (name, given) {
            ("type", given) => kind = given,
            ("from", given) => from = Some((given, end - given.len()..end)),
            ("source", given) => source = Some(given),
            ("target", given) => target = Some(given),
            ("readonly", "" | "true") => {}
            ("tmpfs-size", size) if size.bytes().all(|b| b.is_ascii_alphanumeric()) => {}
            _ => {
                let what = format!("the option `{}` of a mount", super::short(option));
                return refuse(&what, "mounts are read-only and have a type, `from` and `target`");
            }
        }
        at = end + 1;
    }
    if !matches!(kind, "bind" | "tmpfs") {
        let what = format!("a mount of type `{}`", super::short(kind));
        return refuse(&what, "only `bind` and `tmpfs` can be used");
    }
    let is_whole = |source: &str| matches!(source, "." | "./" | "/");
    if !source.is_none_or(is_whole) {
        let advice = "leave it out, so that the whole is mounted, and use the path below `target`";
        return refuse("the option `source` of a mount", advice);
    }
    let is_clean = |target: &str| {
        target.starts_with('/') && target.split('/').all(|part| part != "..") && target != "/"
    };
    if !target.is_some_and(is_clean) {
        return refuse("a mount without a `target` that begins with `/`", "give one without `..`");
    }
    let has_source = from.is_some() || source.is_some();
    if matches!(
        (kind, has_source, seen.contains(&"tmpfs-size")),
        ("tmpfs", true, _) | ("bind", _, true)
    ) {
        return refuse(&format!("this option of a mount of type `{kind}`"), "remove it");
    }
    Ok(from)
}

fn refuse<T>(what: &str, advice: &'static str) -> Result<T, (String, &'static str)> {
    Err((what.to_owned(), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_mounts_that_engines_had_holes_in_are_refused() {
        for value in [
            "",
            "type=cache,target=/x",
            "type=secret,id=x",
            "type=ssh",
            "type=bind,source=link,target=/x",
            "type=bind,source=/etc,target=/x",
            "type=bind,src=..,target=/x",
            "type=bind,target=/x,rw",
            "type=bind,target=/x,readwrite",
            "type=bind,target=/x,readonly=false",
            "type=bind,target=/x,rw=true",
            "type=bind,target=/x,bind-propagation=rshared",
            "type=bind,target=/x,z",
            "type=bind,target=/x,tmpfs-size=1",
            "type=bind,target=/x,type=cache",
            "type=bind,target=/x,dst=/y",
            "type=bind,target=x",
            "type=bind,target=/",
            "type=bind,target=/a/../..",
            "type=bind",
            "type=bind,target=/x,",
            "type=tmpfs,target=/x,from=a",
            "type=tmpfs,target=/x,source=/",
            "TYPE=bind,target=/x",
            "type=\"bind\",target=/x",
            "type=devpts,target=/x",
        ] {
            assert!(parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn whole_stages_images_and_contexts_can_be_mounted() {
        for (value, expected) in [
            ("target=/x", None),
            ("type=bind,target=/x", None),
            ("type=bind,source=.,dst=/x,ro", None),
            ("type=tmpfs,target=/x", None),
            ("type=tmpfs,destination=/x,tmpfs-size=1000", None),
            ("type=bind,from=a.b/c:d,target=/x", Some(("a.b/c:d", 15..22))),
            ("from=s,src=/,target=/x,readonly=true", Some(("s", 5..6))),
        ] {
            assert_eq!(parse(value).unwrap(), expected, "{value}");
            if let Some((from, span)) = expected {
                assert_eq!(value.get(span), Some(from));
            }
        }
    }
}
