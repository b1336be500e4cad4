//! The steps of the demo, in their order.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sbs_tests::{
    Api, Parts, Repository, Sbs, ServerSetup, TestServer, World, built, judge, program,
};
use serde_json::json;

use crate::ui::{detail, line, step};

/// Runs every step; what is worth keeping is put into `kept`, which is made anew.
pub(crate) fn run(kept: &Path) -> Result<()> {
    let start = Instant::now();
    line("From a git repository to a signed image and a manifest that anybody can check.\n");
    let parts = step("a registry with TLS and a password, an ssh server, a base image", || {
        let parts = Parts::start()?;
        let note = parts.registry.host();
        Ok((parts, note))
    })?;
    let repository = step("a repository with a Dockerfile of two stages", || {
        let mut repository = parts.ssh.repository("hello")?;
        let commit = write_source(&mut repository, &parts.base)?;
        Ok((repository, format!("commit {commit}")))
    })?;
    let sbs = World::configure(&parts)?;
    let environment = step("certificates: an authority, a client, a server", || {
        Ok((sbs.make_certificates()?, "sbs create-client-cert, create-server-cert".to_owned()))
    })?;
    let mut server = step("the server", || {
        let directory = parts.path().join("server");
        fs::create_dir(&directory)?;
        let settings = World::settings(&parts, "network = \"none\"\n")?;
        let server = TestServer::start(ServerSetup { directory, environment, settings })?;
        let note = format!("https://localhost:{}, mutual TLS", server.port());
        Ok((server, note))
    })?;
    step("the server is told what to build", || {
        sbs.set("CICD_PORT", server.port().to_string())?;
        sbs.set("GITHUB_URL", parts.ssh.url(&repository))?;
        sbs.set("ARG", json!({ "GREETING": "Hello from a build that can be checked." }))?;
        Ok((sbs.ok(&["init"])?, "sbs init".to_owned()))
    })?;
    let (tag, log) = build(&sbs, &server)?;
    let manifest = step("its manifest downloaded and verified", || {
        sbs.ok(&["get-manifest", "--verify-manifest"])?;
        Ok((sbs.file(".sig.tbz")?, "sbs get-manifest --verify-manifest".to_owned()))
    })?;
    let manifest_key = sbs.file("-public.pem")?;
    let image_key = step("the image's signature, fetched from the registry, by openssl", || {
        let key = judge::python_manifest(&manifest)?.image_key()?.to_owned();
        let digest = judge::openssl_image(&parts.registry, &tag, &key)?;
        Ok((key, digest.to_string()))
    })?;
    step("the manifest's signature, by openssl", || {
        judge::openssl_manifest(&manifest, &fs::read_to_string(&manifest_key)?)?;
        Ok(((), "Verified OK".to_owned()))
    })?;
    step("the server has ended; the manifest verified again, offline", || {
        server.terminate()?;
        let (file, key) = (manifest.to_string_lossy(), manifest_key.to_string_lossy());
        Ok((sbs.ok(&["verify", &file, "--key", &key])?, "sbs verify".to_owned()))
    })?;
    let files = keep(
        kept,
        &[&manifest, &manifest_key],
        &[("image-public.pem", &image_key), ("build.log", &log)],
    )?;
    show(&files, start)
}

fn build(sbs: &Sbs, server: &TestServer) -> Result<(String, String)> {
    line("    sbs build --follow");
    step("the image built, signed, pushed and tagged", || {
        let mut command = sbs.command(&["build", "--follow"])?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        line("");
        for printed in BufReader::new(output).lines() {
            if let Some(message) = message(&printed?) {
                detail(message);
            }
        }
        let notes = io::read_to_string(child.stderr.take().context("no output")?)?;
        let api = Api::new(
            server.port(),
            &sbs.certificate_file("client-ca.pem")?,
            Some(&sbs.identity()?),
        )?;
        let status = api.status()?;
        ensure!(child.wait()?.success(), "{notes}the build ended with `{}`", status.status);
        Ok(((status.image_tag.clone(), api.log()?), format!("tag {}", status.image_tag)))
    })
}

/// Returns a line of the log without its time, logger and level; nothing for what is no log.
fn message(line: &str) -> Option<&str> {
    let (_time, rest) = line.split_once("  root       ")?;
    let (_level, text) = rest.split_once(' ')?;
    Some(text.trim_start())
}

fn write_source(repository: &mut Repository, base: &str) -> Result<String> {
    let dockerfile = format!(
        "FROM {base} AS build\n\
         ARG GREETING\n\
         COPY . /source\n\
         RUN test ! -e /source/notes.txt && sh /source/make.sh \"$GREETING\" > /hello\n\
         \n\
         FROM {base}\n\
         COPY --from=build /hello /hello\n\
         CMD [\"/bin/cat\", \"/hello\"]\n"
    );
    repository.commit_files(&[
        ("Dockerfile", &dockerfile),
        (".dockerignore", "notes.txt\n"),
        ("make.sh", "echo \"$1\"\n"),
        ("notes.txt", "These are in the repository and not in the build.\n"),
    ])
}

/// Puts files and texts into a new folder. Returns their paths.
fn keep(folder: &Path, files: &[&Path], texts: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir(folder)?;
    let mut paths = Vec::new();
    for file in files {
        let path = folder.join(file.file_name().context("a file without a name")?);
        fs::copy(file, &path)?;
        paths.push(path);
    }
    for (name, text) in texts {
        let path = folder.join(name);
        fs::write(&path, text)?;
        paths.push(path);
    }
    Ok(paths)
}

fn show(files: &[PathBuf], start: Instant) -> Result<()> {
    let [manifest, key, ..] = files else { anyhow::bail!("nothing was kept") };
    let sbs = built("sbs")?;
    let arguments = ["verify", &manifest.to_string_lossy(), "--key", &key.to_string_lossy()];
    let status = program(&sbs).args(arguments).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "what was kept does not verify");
    line(&format!("\nDone in {:.1} s. Kept:", start.elapsed().as_secs_f32()));
    for file in files {
        line(&format!("  {}", file.display()));
    }
    line("\nVerify it again, now or in ten years:");
    line(&format!("  {} {}", sbs.display(), arguments.join(" ")));
    Ok(())
}
