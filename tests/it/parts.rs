//! The parts of the harness work without any server: what a test finds is the server's doing.

use std::fs;
use std::path::Path;

use anyhow::Result;
use sbs_tests::{Account, Parts, SshGit, judge, outcome, output, program};

#[test]
fn the_registry_wants_tls_and_a_password() -> Result<()> {
    let parts = Parts::start()?;
    let registry = &parts.registry;
    let url = format!("docker://{}", parts.base);
    let inspect = |configure: &dyn Fn(&mut std::process::Command)| {
        let mut skopeo = program("skopeo");
        skopeo.arg("inspect");
        configure(&mut skopeo);
        outcome(skopeo.arg(&url))
    };
    let good = inspect(&|skopeo| {
        skopeo.arg("--authfile").arg(registry.authfile());
        skopeo.arg("--cert-dir").arg(registry.certificate_directory());
    })?;
    assert_eq!(good.code, 0, "{}", good.text());
    let no_password = inspect(&|skopeo| {
        skopeo.arg("--cert-dir").arg(registry.certificate_directory());
    })?;
    assert!(no_password.text().contains("authentication required"), "{}", no_password.text());
    let no_trust = inspect(&|skopeo| {
        skopeo.arg("--authfile").arg(registry.authfile());
    })?;
    assert!(no_trust.text().contains("certificate"), "{}", no_trust.text());

    let (digest, _manifest) = registry.manifest("base/busybox", "1")?.expect("it was pushed");
    assert_eq!(judge::skopeo_digest(registry, "base/busybox", "1")?, digest);
    assert_eq!(registry.tags("base/busybox")?, ["1"]);
    assert!(registry.tags("nothing/here")?.is_empty());
    Ok(())
}

#[test]
fn a_registry_that_was_stopped_starts_again_with_what_it_held() -> Result<()> {
    let mut parts = Parts::start()?;
    let host = parts.registry.host();
    parts.registry.stop();
    let stopped = parts.registry.tags("base/busybox");
    assert!(stopped.is_err(), "it answers: {stopped:?}");
    parts.registry.start_again()?;
    assert_eq!(parts.registry.host(), host);
    assert_eq!(parts.registry.tags("base/busybox")?, ["1"]);
    Ok(())
}

#[test]
fn the_base_image_holds_a_shell() -> Result<()> {
    let parts = Parts::start()?;
    let root = parts.path().join("root");
    parts.registry.unpack("base/busybox", "1", &root)?;
    let told = output(program("chroot").arg(&root).args(["/bin/sh", "-c", "echo in; id -u"]))?;
    assert_eq!(told, "in\n0\n");
    Ok(())
}

#[test]
fn git_clones_over_ssh_with_the_right_key_and_the_pinned_host() -> Result<()> {
    let parts = Parts::start()?;
    let ssh = &parts.ssh;
    let mut repository = ssh.repository("app")?;
    let commit = repository.commit_files(&[("a/b", "content\n")])?;
    let clone = |name: &str, key: &Path, known_hosts: &str| {
        let target = parts.path().join(name);
        let pins = parts.path().join(format!("{name}.known_hosts"));
        fs::write(&pins, known_hosts)?;
        let mut git = program("git");
        git.env("GIT_SSH_COMMAND", ssh_command(key, &pins));
        let outcome = outcome(git.args(["clone", &ssh.url(&repository)]).arg(&target))?;
        anyhow::Ok((outcome, target))
    };
    let (good, target) = clone("good", &ssh.key_file(), &ssh.known_hosts()?)?;
    assert_eq!(good.code, 0, "{}", good.text());
    assert_eq!(fs::read_to_string(target.join("a/b"))?, "content\n");
    let head = output(program("git").arg("-C").arg(&target).args(["rev-parse", "HEAD"]))?;
    assert_eq!(head.trim(), commit);

    let (wrong_key, _) = clone("wrong-key", &ssh.other_key_file(), &ssh.known_hosts()?)?;
    assert!(wrong_key.text().contains("Permission denied"), "{}", wrong_key.text());
    let (wrong_host, _) = clone("wrong-host", &ssh.key_file(), &ssh.wrong_known_hosts()?)?;
    assert!(wrong_host.text().contains("Host key verification failed"), "{}", wrong_host.text());
    Ok(())
}

#[test]
fn ssh_gives_no_shell() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ssh = SshGit::start(&directory.path().join("ssh"))?;
    let repository = ssh.repository("app")?;
    let pins = directory.path().join("known_hosts");
    fs::write(&pins, ssh.known_hosts()?)?;
    let url = ssh.url(&repository);
    let authority = url.trim_start_matches("ssh://").split('/').next().unwrap_or_default();
    let mut command = program("sh");
    let line = format!("{} ssh://{authority} id", ssh_command(&ssh.key_file(), &pins));
    let told = outcome(command.args(["-c", &line]))?;
    assert!(told.code != 0 && !told.stdout.contains("uid="), "{}", told.text());
    Ok(())
}

#[test]
fn git_clones_over_https_with_the_right_password() -> Result<()> {
    let parts = Parts::start()?;
    let https = parts.start_https_git()?;
    let mut repository = https.repository("app")?;
    repository.commit_files(&[("f", "content\n")])?;
    let authority = parts.path().join("ca.pem");
    fs::write(&authority, &parts.authority.pem)?;
    let clone = |name: &str, url: &str| {
        let mut git = program("git");
        git.env("GIT_SSL_CAINFO", &authority);
        outcome(git.args(["clone", url]).arg(parts.path().join(name)))
    };
    let good = clone("good", &https.url_with_password(&repository))?;
    assert_eq!(good.code, 0, "{}\n{}", good.text(), https.log_text());
    assert_eq!(fs::read_to_string(parts.path().join("good/f"))?, "content\n");
    let wrong = clone("wrong", &https.url_with(&repository, "guess"))?;
    assert!(wrong.text().contains("Authentication failed"), "{}", wrong.text());
    let none = clone("none", &https.url(&repository))?;
    assert!(none.code != 0, "{}", none.text());
    Ok(())
}

#[test]
fn the_same_files_make_the_same_commit() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ssh = SshGit::start(&directory.path().join("ssh"))?;
    let files = [("Dockerfile", "FROM scratch\n"), ("d/x", "1")];
    let first = ssh.repository("a")?.commit_files(&files)?;
    let second = ssh.repository("b")?.commit_files(&files)?;
    assert_eq!(first, second);
    Ok(())
}

#[test]
fn an_account_of_the_registry_may_have_any_password() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = sbs_tests::Authority::new("CA")?;
    let account = Account::new("u", "a b:c/d@e'\"$");
    let registry =
        sbs_tests::Registry::start(&authority, &directory.path().join("registry"), &[account])?;
    sbs_tests::push_base_image(&registry, directory.path())?;
    assert_eq!(registry.tags("base/busybox")?, ["1"]);
    Ok(())
}

fn ssh_command(key: &Path, known_hosts: &Path) -> String {
    format!(
        "ssh -F none -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
         -o UserKnownHostsFile={} -o BatchMode=yes",
        key.display(),
        known_hosts.display()
    )
}
