//! A client of another language, made from the documents alone, goes through every phase of a
//! server and tells what the original's client could not use.
//!
//! Its tables, what it checks, and the lies that show that it finds what is wrong, stand in
//! `src/conformance`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sbs_tests::{Authority, BareServer, Outcome, Sbs, World, outcome, program, wait_until};
use serde_json::json;

#[test]
fn every_route_answers_as_documented_in_every_phase() -> Result<()> {
    let mut world = World::start()?;
    world.sbs.set("DOCKER_RO_USER", "reader")?.set("DOCKER_RO_PASSWORD", "it's \"quoted\" \\")?;
    let waits = world.dockerfile("RUN echo the build waits; while true; do sleep 1; done");
    let mut repository = world.with_repository(&[("Dockerfile", &waits)])?;
    let client = Client::new(&world.sbs, world.parts.path())?;

    let port = world.server.port();
    client.passes(port, "fresh")?;
    client.passes(port, "initialised")?;
    wait_until("the step that waits", Duration::from_mins(3), || {
        Ok(world.api()?.log()?.contains("run: the build waits").then_some(()))
    })?;
    client.passes(port, "building")?;

    let fails = world.dockerfile("RUN echo the build fails; exit 3");
    repository.commit_files(&[("Dockerfile", &fails)])?;
    world.api()?.build_failing()?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    client.passes(port, "failed")?;
    let built = world.api()?.wait_for_end()?;
    assert_eq!(built.status.as_str(), "success", "{}", world.api()?.log()?);
    client.passes(port, "done")?;

    world.start_server_anew()?;
    client.passes(world.server.port(), "imported")?;
    let built = world.api()?.wait_for_end()?;
    assert_eq!(built.status.as_str(), "success", "{}", world.api()?.log()?);

    // A server of before 1.3.0.4: it makes its own key, and asks for a certificate.
    let key = world.sbs.certificate_file("client-ca-key.pem")?;
    let authority = Authority::from_pem(&world.sbs.certificate_file("client-ca.pem")?, &key)?;
    fs::write(client.directory.join("ca-key.pem"), key)?;
    let bare = BareServer::start_with(authority, None, |_| String::new())?;
    client.passes(bare.server.port(), "uncertified")?;
    client.passes(bare.server.port(), "certified")?;

    client.finds_every_lie()
}

/// The program, and the directory in which it keeps what the phases tell each other.
pub(crate) struct Client {
    directory: PathBuf,
}

impl Client {
    /// Makes it in a new directory inside `parent`, with the certificates and the configuration of
    /// the command line.
    pub(crate) fn new(sbs: &Sbs, parent: &Path) -> Result<Self> {
        let directory = parent.join("conformance");
        fs::create_dir(&directory)?;
        for (name, text) in PROGRAMS {
            fs::write(directory.join(name), text)?;
        }
        fs::write(directory.join("ca.pem"), sbs.certificate_file("client-ca.pem")?)?;
        fs::write(directory.join("identity.pem"), sbs.identity()?)?;
        let notes = json!({ "config": sbs.config()? }).to_string();
        fs::write(directory.join("notes.json"), notes)?;
        Ok(Self { directory })
    }

    /// Runs a phase; a reply that is not as it should be is an error.
    fn passes(&self, port: u16, phase: &str) -> Result<()> {
        let url = format!("https://localhost:{port}");
        let told = self.run("client.py", &[phase, &url, "ca.pem", "identity.pem", "."])?;
        ensure!(told.code == 0, "{phase}:\n{}", told.text());
        let checks = told.stdout.lines().filter(|line| line.starts_with("ok ")).count();
        let expected = if phase == "certified" { 4 } else { 18 };
        ensure!(checks >= expected, "{phase} made {checks} checks:\n{}", told.text());
        Ok(())
    }

    /// Has every request of a fresh server refused before it is sent, and returns how many.
    pub(crate) fn refuses(&self, port: u16) -> Result<usize> {
        let url = format!("https://localhost:{port}");
        let told = self.run("refused.py", &[&url, "ca.pem", "identity.pem", "."])?;
        ensure!(told.code == 0, "{}", told.text());
        let count = told.stdout.trim().strip_suffix(" refused").context("no count")?;
        let count = count.parse()?;
        ensure!(count > 20, "{count}");
        Ok(count)
    }

    /// Has the replies of all phases told again, with one wrong in each round.
    fn finds_every_lie(&self) -> Result<()> {
        let told = self.run("lies.py", &["."])?;
        ensure!(told.code == 0, "{}", told.text());
        told.stdout.lines().last().filter(|line| line.ends_with("lies found")).context("no end")?;
        Ok(())
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<Outcome> {
        let mut python = program("python3");
        outcome(python.arg(name).args(arguments).current_dir(&self.directory))
    }
}

const PROGRAMS: [(&str, &str); 5] = [
    ("certificates.py", include_str!("../src/conformance/certificates.py")),
    ("checks.py", include_str!("../src/conformance/checks.py")),
    ("client.py", include_str!("../src/conformance/client.py")),
    ("lies.py", include_str!("../src/conformance/lies.py")),
    ("refused.py", include_str!("../src/conformance/refused.py")),
];
