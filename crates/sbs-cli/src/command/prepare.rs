//! `prepare`: from nothing to all that a server is started with, in one step that can be repeated.

use std::io::{self, Read as _};
use std::path::Path;

use sbs_proto::{Credentials, ImageReference, SecretText, key};
use serde_json::json;
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::args::{NewDefinition, Prepare};
use crate::certificate::{Outcome, Renewal};
use crate::command::{Context, environment, existing};
use crate::config::{CICD_PORT, Config, HOSTNAME};
use crate::definition::{self, GITHUB_KEY_FILE};
use crate::error::{CommandError, Kind};
use crate::file::{self, Access};
use crate::json::Object;
use crate::login::AuthFiles;
use crate::ui::Ui;

/// Writes the configuration that the command line describes.
pub(crate) fn write_config(
    path: &Path,
    asked: &NewDefinition,
    ui: &Ui,
) -> Result<(), CommandError> {
    let credentials = credentials(asked)?;
    let config = Config::create(path, members(asked, &credentials)?)?;
    ui.note(format_args!(
        "wrote the configuration `{}`: it holds secrets",
        config.file().display()
    ));
    Ok(())
}

/// Makes the certificates that are not there, and writes the file that the server is started with.
pub(crate) fn run(
    context: &Context<'_>,
    asked: &Prepare,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let Context { certificates, config, ui } = context;
    // What init would refuse is told before anything is made of it.
    definition::members(config)?;
    let host = config.hostname()?;
    let client = certificates.create_client(Renewal::Keep, now)?;
    let server = certificates.create_server(host, Renewal::Keep, now)?;
    if (client, &server) != (Outcome::Found, &Outcome::Found) {
        ui.note(format_args!("made certificates for {host} and for this client"));
    }
    let text = environment::file(context, now)?;
    let existing = existing(asked.overwrite);
    file::write(&asked.output, text.as_bytes(), Access::Owner, existing)?;
    let output = asked.output.display();
    ui.note(format_args!(
        "next, on the server's machine: sbs-server run --init --env-file {output}\n\
         and then here: sbs init; sbs build --follow; sbs get-manifest --verify-manifest"
    ));
    ui.result(output, json!({"env_file": asked.output}))
}

fn members(asked: &NewDefinition, login: &Credentials) -> Result<Object, CommandError> {
    let mut members = Object::default();
    let NewDefinition { git_branch, git_key, git_url, hostname, image, port, .. } = asked;
    members.set(HOSTNAME, hostname);
    members.set(CICD_PORT, &port.to_string());
    members.set(key::GITHUB_URL, git_url);
    if let Some(branch) = git_branch {
        members.set(key::GITHUB_BRANCH, branch);
    }
    if let Some(path) = git_key {
        // The configuration is used from other directories, too.
        let path = std::path::absolute(path);
        let path = path.map_err(|error| CommandError::new(Kind::Config, error))?;
        let path = path.to_str().ok_or_else(|| invalid(PrepareError::KeyPath))?;
        members.set(GITHUB_KEY_FILE, path);
    }
    let tag = image.tag().filter(|_| image.digest().is_none());
    let tag = tag.ok_or_else(|| invalid(PrepareError::Tag))?;
    members.set(key::DOCKER_PUSH_SERVER, image.registry().as_str());
    members.set(key::DOCKER_REPO, image.repository().as_str());
    members.set(key::DOCKER_USER, &login.user);
    members.set(key::DOCKER_PASSWORD, login.password.expose());
    members.set(key::IMAGE_TAG_PREFIX, tag.as_str());
    Ok(members)
}

fn credentials(asked: &NewDefinition) -> Result<Credentials, CommandError> {
    if let Some(user) = &asked.user {
        return Ok(Credentials { password: read_password(io::stdin())?, user: user.clone() });
    }
    let files = AuthFiles::read(None).map_err(|error| CommandError::new(Kind::Config, error))?;
    let found = files.of_image(&asked.image);
    let found = found.map_err(|error| CommandError::new(Kind::Config, error))?;
    found.ok_or_else(|| {
        let image = asked.image.clone();
        invalid(PrepareError::NoLogin { image })
            .hint("log in with podman or docker, or give --user and --password-stdin")
    })
}

/// Reads a password up to the end of its line, if there is one.
fn read_password(from: impl io::Read) -> Result<SecretText, CommandError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES));
    let limit = PASSWORD_BYTES as u64;
    from.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| invalid(PrepareError::Stdin(error)))?;
    let text = str::from_utf8(&bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']));
    let good =
        |text: &&str| !text.is_empty() && !text.contains('\n') && bytes.len() < PASSWORD_BYTES;
    let password = text.filter(good).ok_or_else(|| invalid(PrepareError::Password))?;
    Ok(SecretText::new(password.to_owned()))
}

fn invalid(error: PrepareError) -> CommandError {
    CommandError::new(Kind::Usage, error)
}

#[derive(Debug, Error)]
enum PrepareError {
    #[error("the path of the git key is not UTF-8, which a configuration must be")]
    KeyPath,

    #[error("there is no user name and password for `{image}`")]
    NoLogin { image: ImageReference },

    #[error("the standard input must be one line with the password, of less than 4 KiB")]
    Password,

    #[error("cannot read the password")]
    Stdin(#[source] io::Error),

    #[error("--image must end in a tag and have no digest; the tag that is pushed begins with it")]
    Tag,
}

const PASSWORD_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for (bytes, expected) in [
            (&b"secret"[..], Some("secret")),
            (b"sec ret\r\n", Some("sec ret")),
            (b"", None),
            (b"\n", None),
            (b"one\ntwo\n", None),
            (b"\xff", None),
            (&[b'x'; PASSWORD_BYTES], None),
        ] {
            let password = read_password(bytes).ok();
            assert_eq!(password.as_ref().map(SecretText::expose), expected, "{bytes:?}");
        }
    }
}
