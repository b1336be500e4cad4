//! User names and passwords for registries, from the files that docker, podman and skopeo keep.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_client::Shown;
use sbs_proto::{Credentials, ImageReference, RegistryHost, SecretText, parse_json};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{self, ReadFileError};
use crate::limits::AUTH_FILE_BYTES;

/// The files in which credentials are looked for, in their order.
#[derive(Debug)]
pub(crate) struct AuthFiles(Vec<AuthFile>);

/// One of them, as containers-auth.json(5) has it; other members are not looked at.
#[derive(Debug, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Deserialize)]
struct Entry {
    /// User name and password in base64; not there where a helper program keeps them.
    auth: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl AuthFiles {
    /// Reads the file that was named, or those of the environment that are there.
    pub(crate) fn read(named: Option<&Path>) -> Result<Self, LoginError> {
        let places =
            named.map_or_else(|| Places::of(&Environment::of_this_process()), Places::only);
        let mut files = Vec::new();
        for path in places.paths {
            match AuthFile::read(&path) {
                Err(LoginError::File(ReadFileError::Missing { .. })) if !places.required => {}
                file => files.push(file?),
            }
        }
        Ok(Self(files))
    }

    /// Returns the credentials for an image: those of the entry that says most about its name.
    pub(crate) fn of_image(
        &self,
        image: &ImageReference,
    ) -> Result<Option<Credentials>, LoginError> {
        let name = format!("{}/{}", image.registry(), image.repository());
        // From the repository up to the host.
        let ends = name.match_indices('/').map(|(at, _)| at).rev();
        let above = ends.filter_map(|at| name.get(..at));
        self.first(&[name.as_str()].into_iter().chain(above).collect::<Vec<_>>())
    }

    /// Returns the credentials for a host.
    pub(crate) fn of_host(&self, host: &RegistryHost) -> Result<Option<Credentials>, LoginError> {
        self.first(&[host.as_str()])
    }

    fn first(&self, names: &[&str]) -> Result<Option<Credentials>, LoginError> {
        for file in &self.0 {
            for name in names {
                if let Some(credentials) = file.credentials(name)? {
                    return Ok(Some(credentials));
                }
            }
        }
        Ok(None)
    }
}

impl AuthFile {
    fn read(path: &Path) -> Result<Self, LoginError> {
        let bytes = Zeroizing::new(file::read(path, AUTH_FILE_BYTES)?);
        // The parser's own message can repeat a value, which may be a secret.
        let form = |error: serde_json::Error| LoginError::Form {
            column: error.column(),
            line: error.line(),
            path: path.to_owned(),
        };
        Ok(Self { path: path.to_owned(), ..parse_json(&bytes).map_err(form)? })
    }

    fn credentials(&self, name: &str) -> Result<Option<Credentials>, LoginError> {
        let entries = self.auths.iter().filter(|(key, _)| plain(key) == name);
        let mut found = entries.filter_map(|(key, entry)| Some((key, entry.auth.as_ref()?)));
        let Some((key, auth)) = found.find(|(_, auth)| !auth.is_empty()) else { return Ok(None) };
        let damaged = || LoginError::Entry {
            key: Shown::short(key, MAX_KEY_CHARS).to_string(),
            path: self.path.clone(),
        };
        let pair = STANDARD.decode(auth.as_bytes()).map(Zeroizing::new).map_err(|_| damaged())?;
        let pair = str::from_utf8(&pair).map_err(|_| damaged())?;
        let (user, password) = pair.split_once(':').ok_or_else(damaged)?;
        // docker pads what it writes.
        let password = SecretText::new(password.trim_end_matches('\0').to_owned());
        Ok(Some(Credentials { password, user: user.to_owned() }))
    }
}

/// Returns the name of an entry as a reference has it: older files have URLs.
fn plain(key: &str) -> &str {
    let (rest, url) = match key.split_once("://") {
        Some(("http" | "https", rest)) => (rest, true),
        _ => (key, false),
    };
    let name = if url { rest.split('/').next().unwrap_or(rest) } else { rest };
    // docker's own name for Docker Hub.
    if name == "index.docker.io" || key.starts_with("index.docker.io/v") {
        "docker.io"
    } else {
        name
    }
}

/// What the environment says of where the files are.
#[derive(Debug, Default)]
struct Environment {
    home: Option<PathBuf>,
    registry_auth_file: Option<OsString>,
    xdg_runtime_dir: Option<OsString>,
}

impl Environment {
    /// The one place where the environment is read for this.
    fn of_this_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            home: std::env::home_dir(),
            registry_auth_file: variable("REGISTRY_AUTH_FILE"),
            xdg_runtime_dir: variable("XDG_RUNTIME_DIR"),
        }
    }
}

/// Where the files are, and whether they must be there.
#[derive(Debug, Eq, PartialEq)]
struct Places {
    paths: Vec<PathBuf>,
    required: bool,
}

impl Places {
    fn only(path: &Path) -> Self {
        Self { paths: vec![path.to_owned()], required: true }
    }

    fn of(environment: &Environment) -> Self {
        if let Some(path) = &environment.registry_auth_file {
            return Self::only(Path::new(path));
        }
        let podman = environment.xdg_runtime_dir.as_ref();
        let podman = podman.map(|directory| Path::new(directory).join("containers/auth.json"));
        let docker = environment.home.as_ref().map(|home| home.join(".docker/config.json"));
        Self { paths: [podman, docker].into_iter().flatten().collect(), required: false }
    }
}

/// Why no credentials could be read. No variant holds what stands in a file.
#[derive(Debug, Error)]
pub(crate) enum LoginError {
    #[error(
        "the entry `{key}` in `{}` is not a user name and a password in base64; log in again",
        path.display()
    )]
    Entry { key: String, path: PathBuf },

    #[error(transparent)]
    File(#[from] ReadFileError),

    #[error(
        "`{}` is not a file with credentials for registries (line {line}, column {column})",
        path.display()
    )]
    Form { column: usize, line: usize, path: PathBuf },
}

const MAX_KEY_CHARS: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> AuthFiles {
        let parse = |text: &&str| serde_json::from_str(text).unwrap();
        AuthFiles(texts.iter().map(parse).collect())
    }

    fn entry(name: &str, pair: &str) -> String {
        format!(r#""{name}":{{"auth":"{}"}}"#, STANDARD.encode(pair))
    }

    fn file(entries: &[String]) -> String {
        format!(r#"{{"auths":{{{}}}}}"#, entries.join(","))
    }

    fn found(files: &AuthFiles, image: &str) -> Option<String> {
        let image = ImageReference::parse(image).unwrap();
        let credentials = files.of_image(&image).unwrap()?;
        Some(format!("{}:{}", credentials.user, credentials.password.expose()))
    }

    #[test]
    fn the_entry_that_says_most_counts() {
        let text = file(&[
            entry("r.example", "host:1"),
            entry("r.example/team", "team:2"),
            entry("r.example/team/app", "app:3:4"),
            entry("https://index.docker.io/v1/", "hub:5"),
            entry("https://old.example/v2/", "old:6"),
            entry("padded.example", "padded:7\0\0"),
            r#""helped.example":{}"#.to_owned(),
        ]);
        let files = files(&[&text]);
        for (image, expected) in [
            ("r.example/other:v1", Some("host:1")),
            ("r.example/team/other:v1", Some("team:2")),
            ("r.example/teams/app:v1", Some("host:1")),
            ("r.example/team/app:v1", Some("app:3:4")),
            ("r.example/team/app/more:v1", Some("app:3:4")),
            ("busybox:1", Some("hub:5")),
            ("old.example/a/b:1", Some("old:6")),
            ("padded.example/a:1", Some("padded:7")),
            ("helped.example/a:1", None),
            ("r.example:5000/team/app:v1", None),
            ("r.example.evil.example/team/app:v1", None),
        ] {
            assert_eq!(found(&files, image).as_deref(), expected, "{image}");
        }
        let host = RegistryHost::parse("r.example").unwrap();
        assert_eq!(files.of_host(&host).unwrap().unwrap().user, "host");
    }

    #[test]
    fn the_first_file_with_an_entry_counts() {
        let first = file(&[entry("a.example", "first:1"), r#""b.example":{}"#.to_owned()]);
        let second = file(&[entry("a.example", "second:2"), entry("b.example", "second:2")]);
        let files = files(&["{}", &first, &second]);
        assert_eq!(found(&files, "a.example/x:1").as_deref(), Some("first:1"));
        assert_eq!(found(&files, "b.example/x:1").as_deref(), Some("second:2"));
    }

    #[test]
    fn files_are_looked_for_where_podman_and_docker_keep_them() {
        let home = Some(PathBuf::from("/u"));
        let xdg = Some(OsString::from("/run/user/1"));
        let both = Environment { home, xdg_runtime_dir: xdg, ..Environment::default() };
        let paths = ["/run/user/1/containers/auth.json", "/u/.docker/config.json"];
        let paths = paths.map(PathBuf::from).to_vec();
        assert_eq!(Places::of(&both), Places { paths, required: false });
        let named = Environment { registry_auth_file: Some("/a".into()), ..both };
        let paths = vec![PathBuf::from("/a")];
        assert_eq!(Places::of(&named), Places { paths, required: true });
        let none = Places { paths: Vec::new(), required: false };
        assert_eq!(Places::of(&Environment::default()), none);
    }

    #[test]
    fn c2_what_is_damaged_is_not_repeated() {
        for auth in ["canary-%", "Y2FuYXJ5", "/////w=="] {
            let files = files(&[&format!(r#"{{"auths":{{"r.example":{{"auth":"{auth}"}}}}}}"#)]);
            let image = ImageReference::parse("r.example/a:1").unwrap();
            let error = files.of_image(&image).unwrap_err();
            assert!(matches!(error, LoginError::Entry { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {files:?}").contains(auth), "{error}");
        }
    }
}
