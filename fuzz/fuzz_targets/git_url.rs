//! Git URLs and references: what parses cannot be taken for an option, nor leave its line, and shows no
//! password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::{GitReference, GitUrl};

fuzz_target!(|text: &str| {
    match GitUrl::parse(text) {
        Ok(url) => visit(text, &url),
        Err(error) => assert!(!format!("{error} {error:?}").contains(MARK), "{error:?}"),
    }
    if let Ok(reference) = GitReference::parse(text) {
        let shown = reference.as_str();
        assert!(!shown.starts_with('-') && !shown.contains(char::is_control), "{shown:?}");
    }
});

fn visit(text: &str, url: &GitUrl) {
    let shown = url.as_str();
    assert!(!shown.starts_with('-') && !shown.contains(char::is_control), "{shown:?}");
    assert!(!url.host().is_empty() && !url.host().starts_with('-'), "{:?}", url.host());

    let name = url.repository_name();
    assert!(!matches!(name, "" | "." | "..") && name.len() <= 255, "{name:?}");
    assert!(!name.contains(['/', '\\']) && !name.contains(char::is_control), "{name:?}");

    let again = GitUrl::parse(shown).expect("its text form parses");
    assert_eq!((again.as_str(), again.host()), (shown, url.host()));
    assert_eq!((again.is_ssh(), again.repository_name()), (url.is_ssh(), name));
    assert!(again.credentials().is_none(), "{shown:?}");

    // What stands elsewhere in the URL, too, is no secret.
    let secret = secret(text).filter(|secret| secret.contains(MARK));
    if let Some(secret) = secret.filter(|_| text.matches(MARK).count() == 1) {
        for shown in [shown, url.host(), name, &format!("{url} {url:?}")] {
            assert!(!shown.contains(MARK), "{shown:?} shows {secret:?}");
        }
        assert!(!url.is_ssh(), "ssh URLs have no password: {shown:?}");
    }
}

/// Returns, in other words than the parser's, what somebody who wrote this meant to keep to himself:
/// the user (which may be a token) and the password of an https URL, and all that is behind a first
/// colon and before an `@` where another form has a user.
fn secret(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("https://") {
        return Some(rest.split('/').next()?.rsplit_once('@')?.0);
    }
    let authority = match text.strip_prefix("ssh://") {
        Some(rest) => rest.split('/').next()?,
        None => text,
    };
    Some(authority.rsplit_once('@')?.0.split_once(':')?.1)
}

/// In every secret of the seeds, and nowhere else.
const MARK: &str = "HUNTER2";
