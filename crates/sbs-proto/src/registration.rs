use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::SecretText;

/// The reply of `GET /config-json`: what the classic runtime is told of an image.
///
/// It holds credentials for pulling.
///
/// Wire: `docs/formats/wire.md`, "Registration definition".
#[derive(Debug, Deserialize, Serialize)]
pub struct Registration {
    /// The password for pulling; empty where `DOCKER_RO_PASSWORD` was not given.
    #[serde(with = "exposed")]
    pub docker_password: SecretText,
    /// The user for pulling; empty where `DOCKER_RO_USER` was not given.
    pub docker_username: String,
    /// The environment variables that may be set.
    pub envs_whitelist: Vec<String>,
    /// The key that the image is checked with: the notary's root certificate, PEM, or the armored
    /// OpenPGP certificate. It is base64 of that text where the original's client writes it to a file
    /// as it comes: for Docker Hub and for the classic runtime.
    pub public_key: String,
    /// The id of that key: of the notary's root key, or the fingerprint of the certificate.
    pub public_key_id: String,
    /// Registry and repository, without tag.
    pub repository_name: String,
}

impl Registration {
    /// Returns the same as a literal of Python, which is what `GET /config-python` answers.
    pub fn expose_python(&self) -> zeroize::Zeroizing<String> {
        let text = |value: &str| python_string(value);
        let names: Vec<_> = self.envs_whitelist.iter().map(|name| text(name)).collect();
        let password = zeroize::Zeroizing::new(text(self.docker_password.expose()));
        zeroize::Zeroizing::new(format!(
            "# -*- coding: utf-8 -*-\n\
             repository = {{\n    \
                 'repository_name': {},\n    \
                 'docker_username': {},\n    \
                 'docker_password': {},\n    \
                 'envs_whitelist': [{}],\n    \
                 'public_key_id': {},\n    \
                 'public_key': {},\n\
             }}\n",
            text(&self.repository_name),
            text(&self.docker_username),
            *password,
            names.join(", "),
            text(&self.public_key_id),
            text(&self.public_key),
        ))
    }
}

/// The password in JSON: this reply is one of the few that carry one.
mod exposed {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::SecretText;

    pub(super) fn serialize<S: Serializer>(
        secret: &SecretText,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SecretText, D::Error> {
        String::deserialize(deserializer).map(SecretText::new)
    }
}

/// Writes a string literal of Python, in which nothing but printable ASCII stands as it is.
fn python_string(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('\'');
    for c in value.chars() {
        match c {
            '\'' | '\\' => literal.extend(['\\', c]),
            ' '..='~' => literal.push(c),
            _ => {
                let _infallible = write!(literal, "\\U{:08x}", u32::from(c));
            }
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_reads_the_literal() {
        let password = "it's \\ \"q\"\n\u{1f980}";
        let registration = Registration {
            docker_password: SecretText::new(password.to_owned()),
            docker_username: "ro".to_owned(),
            envs_whitelist: vec!["A".to_owned(), "B".to_owned()],
            public_key: "line\nline".to_owned(),
            public_key_id: "00".to_owned(),
            repository_name: "registry.example/ns/app".to_owned(),
        };
        let program = format!(
            "{}import json; print(json.dumps(repository, sort_keys=True))",
            *registration.expose_python()
        );
        #[expect(clippy::disallowed_methods, reason = "a judge runs as its users run it")]
        let output = std::process::Command::new("python3").args(["-c", &program]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read["docker_password"], password);
        assert_eq!(read, serde_json::to_value(&registration).unwrap());
        serde_json::from_str::<serde_json::Value>(&registration.expose_python()).unwrap_err();
    }
}
