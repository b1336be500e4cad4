//! The body of an `init`: parsed or refused, and no refusal repeats a secret.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::{Definition, ImageReference, Members};

fuzz_target!(|body: &[u8]| {
    let Ok(members) = Members::parse(body) else { return };
    let again = Members::parse(members.expose_json().as_bytes()).expect("its text form parses");
    // Not the values: a number of a hundred digits comes back as its neighbour.
    assert!(again.keys().eq(members.keys()));
    let parsed = Definition::parse(&members);
    let shown = match &parsed {
        Ok(definition) => format!("{definition:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    for key in SECRETS {
        let secret = members.value(key).and_then(|value| value.as_str());
        // Short ones are found anywhere by chance, and what stands elsewhere too is no secret.
        let secret = secret.filter(|secret| secret.contains(MARK) && !is_told(&members, secret));
        if let Some(secret) = secret {
            assert!(!shown.contains(secret), "{key} is shown: {shown}");
        }
    }
    if let Ok(definition) = &parsed {
        visit(&members, definition, &shown);
        if again == members {
            let parsed = Definition::parse(&again).expect("the same members parse");
            assert_eq!(format!("{parsed:?}"), shown);
        }
    }
});

fn visit(members: &Members, definition: &Definition, shown: &str) {
    let (recipe, url) = (&definition.recipe, &definition.source.url);
    for path in [recipe.context.as_str(), recipe.dockerfile.as_str()] {
        assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."), "{path:?}");
        assert!(!path.contains(|c: char| c.is_control() || c == '\\'), "{path:?}");
    }
    let destination = definition.destination.to_string();
    assert_eq!(ImageReference::parse(&destination).as_ref(), Ok(&definition.destination));
    if let Some((user, password)) = url.credentials() {
        for secret in [user, password.expose()] {
            // All but the URL tells of it.
            let mut others = members.keys().filter(|key| *key != "GITHUB_URL");
            let told = url.as_str().contains(secret)
                || others
                    .any(|key| members.value(key).is_some_and(|v| v.to_string().contains(secret)));
            let shows = secret.contains(MARK) && !told && shown.contains(secret);
            assert!(!shows, "the URL's password is shown: {shown}");
        }
    }
}

/// Tells whether a member that is no secret holds the text, too.
fn is_told(members: &Members, text: &str) -> bool {
    let mut others = members.keys().filter(|key| !SECRETS.contains(key));
    others.any(|key| members.value(key).is_some_and(|value| value.to_string().contains(text)))
}

const SECRETS: [&str; 4] = ["DOCKER_BASE_PASSWORD", "DOCKER_PASSWORD", "GITHUB_KEY", "SECRET"];
/// In every secret of the seeds, and nowhere else.
const MARK: &str = "HUNTER2";
