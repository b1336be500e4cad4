use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use crate::server::built;
use crate::{Daemon, Outcome, outcome, program};

/// The real `sbs` command line, with a configuration file in a directory of its own.
#[derive(Debug)]
pub struct Sbs {
    directory: PathBuf,
}

impl Sbs {
    /// Writes a configuration file into `directory`, which must not exist yet.
    pub fn new(directory: &Path, config: &Map<String, Value>) -> Result<Self> {
        fs::create_dir(directory)?;
        let sbs = Self { directory: directory.to_owned() };
        sbs.save(config)?;
        Ok(sbs)
    }

    /// Sets a key of the configuration file; `null` removes it.
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<&Self> {
        let mut config = self.config()?;
        match value.into() {
            Value::Null => config.remove(key),
            value => config.insert(key.to_owned(), value),
        };
        self.save(&config)?;
        Ok(self)
    }

    /// Returns the configuration as it stands in the file.
    pub fn config(&self) -> Result<Map<String, Value>> {
        let text = fs::read_to_string(self.config_file())?;
        serde_json::from_str(&text).context("the configuration file")
    }

    /// Returns the path of the configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("sbs-config.json")
    }

    /// Returns the directory that the commands run in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a command, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = program(built("sbs")?);
        command.args(["--env", "sbs-config.json"]).args(arguments);
        command.current_dir(&self.directory);
        Ok(command)
    }

    /// Runs a command, whatever its exit code.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        outcome(&mut self.command(arguments)?)
    }

    /// Runs a command and returns its standard output; another exit code than 0 is an error.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let outcome = self.run(arguments)?;
        ensure!(
            outcome.code == 0,
            "sbs {} ended with {}:\n{}",
            arguments.join(" "),
            outcome.code,
            outcome.text()
        );
        Ok(outcome.stdout)
    }

    /// Starts a command that runs beside the test.
    pub fn start(&self, arguments: &[&str]) -> Result<Daemon> {
        Daemon::spawn("sbs", &mut self.command(arguments)?, &self.directory.join("started.log"))
    }

    /// Makes the certificates and returns the variables that the server is started with.
    pub fn make_certificates(&self) -> Result<Vec<(String, String)>> {
        self.ok(&["create-client-cert"])?;
        self.ok(&["create-server-cert"])?;
        let printed = self.ok(&["instance-env"])?;
        let variable = |name: &str| {
            let lines = printed.lines().filter_map(|line| line.split_once(':'));
            let value = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value).next();
            let value = value.with_context(|| format!("instance-env prints no {name}"))?;
            Ok((name.to_owned(), value.trim().trim_matches('"').to_owned()))
        };
        ["CLIENT_CRT", "CLIENT_CA", "SERVER_CRT", "SERVER_KEY"].into_iter().map(variable).collect()
    }

    /// Returns the text of one of the certificate files, such as `client-ca.pem`.
    pub fn certificate_file(&self, name: &str) -> Result<String> {
        let path = self.directory.join(format!("{}.d", self.certificate_stem()?)).join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Returns the client certificate followed by its key, PEM.
    pub fn identity(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join(self.certificate_stem()?))?)
    }

    /// Returns the only file in the directory whose name ends with `end`.
    pub fn file(&self, end: &str) -> Result<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
        ensure!(found.len() == 1, "{} files end with {end}", found.len());
        found.pop().context("one file")
    }

    fn certificate_stem(&self) -> Result<String> {
        let config = self.config()?;
        let uuid = config.get("UUID").and_then(Value::as_str);
        Ok(format!(".container-{}", uuid.context("the configuration has no UUID")?))
    }

    fn save(&self, config: &Map<String, Value>) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(self.config_file(), serde_json::to_string_pretty(config)?)?;
        fs::set_permissions(self.config_file(), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}
