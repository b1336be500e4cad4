use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Names a program that ends with this thread, with an environment that holds nothing of ours.
///
/// The kernel kills it when the thread that started it ends: start what is to live longer in a
/// thread that lives longer.
#[expect(clippy::disallowed_methods, reason = "the server's rule for its tools is not for tests")]
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(name);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        // No configuration of the machine or the user changes what git does here.
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null());
    command
}

/// What a program that has ended left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; 128 where a signal ended it.
    pub code: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

impl Outcome {
    /// Returns both outputs, for messages and for searches.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, whatever its exit code.
pub fn outcome(command: &mut Command) -> Result<Outcome> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(Outcome {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command to its end and returns its standard output; another exit code than 0 is an
/// error that shows what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let outcome = outcome(command)?;
    ensure!(
        outcome.code == 0,
        "{command:?} ended with {}:\n{}",
        outcome.code,
        outcome.text().trim_end()
    );
    Ok(outcome.stdout)
}

/// Asks `check` until it has an answer; after `limit` that is an error that names `what`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = check()? {
            return Ok(answer);
        }
        ensure!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs beside the test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    name: &'static str,
}

impl Daemon {
    /// Starts a program whose outputs go to the file `log`, which is emptied first.
    pub fn spawn(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, log: log.to_owned(), name })
    }

    /// Waits until the program has written `text`, and returns the line in which it stands.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        wait_until(&format!("`{text}` in the output of {}", self.name), START_LIMIT, || {
            let log = fs::read_to_string(&self.log)?;
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(Some(line.to_owned()));
            }
            self.ensure_running()?;
            Ok(None)
        })
    }

    /// Waits until the program ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name;
        wait_until(&format!("the end of {name}"), limit, || Ok(self.child.try_wait()?))
    }

    /// Kills the program and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Asks the program to end, and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(Duration::from_secs(20))
    }

    /// Stops the program where it stands: it answers nothing until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Has a frozen program run on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Fails with what the program wrote if it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.log_text());
        }
        Ok(())
    }

    /// Returns what the program has written.
    pub fn log_text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process without a number")?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) const START_LIMIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_an_error_that_shows_what_it_wrote() {
        let error = output(program("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ended with 3") && text.contains("why"), "{text}");
    }

    #[test]
    fn a_daemon_ends_with_its_handle() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut command = program("sh");
        command.args(["-c", "echo ready; exec sleep 60"]);
        let mut daemon = Daemon::spawn("sleep", &mut command, &directory.path().join("log"))?;
        daemon.wait_for("ready")?;
        let process = format!("/proc/{}", daemon.id());
        assert!(Path::new(&process).exists());
        drop(daemon);
        assert!(!Path::new(&process).exists());
        Ok(())
    }

    #[test]
    fn a_daemon_ends_with_the_thread_that_started_it() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        let start = move || {
            let mut command = program("sh");
            command.args(["-c", "echo ready; exec sleep 60"]);
            let mut daemon = Daemon::spawn("sleep", &mut command, &log)?;
            daemon.wait_for("ready")?;
            Ok::<_, anyhow::Error>(daemon)
        };
        let mut daemon = thread::spawn(start).join().expect("the thread ends well")?;
        let status = daemon.wait(Duration::from_secs(10))?;
        assert!(!status.success());
        Ok(())
    }

    #[test]
    fn waiting_in_vain_is_an_error_that_names_what_was_waited_for() {
        let limit = Duration::from_millis(20);
        let error = wait_until("the moon", limit, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
