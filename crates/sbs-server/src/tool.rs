//! Child processes: every program that the server starts is started here.
//!
//! A tool runs in PID, mount, IPC and UTS namespaces of its own, with an environment that holds
//! only what is given, no standard input, limits on time and output, and it cannot outlive the
//! server: when it ends, is cancelled or the server dies, every process that it started dies too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A program with its arguments, environment and limits.
#[derive(Clone)]
pub(crate) struct Tool {
    program: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: PathBuf,
    network: Network,
    time_limit: Duration,
    idle_limit: Duration,
}

/// What a tool can reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Network {
    /// What the server can reach.
    Host,
    /// Its own loopback interface and nothing else.
    None,
}

/// Which of its two outputs a tool wrote to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    Standard,
    Error,
}

impl Tool {
    /// Names a program; it is looked for in the system's directories.
    pub(crate) fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: PathBuf::from("/"),
            network: Network::Host,
            time_limit: Duration::from_mins(1),
            idle_limit: Duration::from_mins(1),
        }
    }

    /// Adds an argument. It shows in the process list: never a secret.
    #[must_use]
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments. They show in the process list: never a secret.
    #[must_use]
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment, which is otherwise `PATH`, `LC_ALL` and `TZ` alone.
    #[must_use]
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory; `/` where nothing is set.
    #[must_use]
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Sets what the tool can reach.
    #[must_use]
    pub(crate) fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets how long the tool may run, and how long it may run without writing anything.
    #[must_use]
    pub(crate) fn limits(mut self, time: Duration, idle: Duration) -> Self {
        self.time_limit = time;
        self.idle_limit = idle;
        self
    }

    /// Runs the tool to its end and hands on every line of either output, without its line end.
    ///
    /// A line longer than 64 KiB is handed on in pieces; a carriage return ends a line.
    pub(crate) async fn run(
        &self,
        cancel: &CancellationToken,
        mut on_line: impl FnMut(Output, &[u8]) + Send,
    ) -> Result<(), RunToolError> {
        let (mut child, stdout, stderr) = self.spawn()?;
        let pump = self.pump(stdout, stderr, &mut on_line);
        self.supervise(&mut child, cancel, pump).await
    }

    /// Runs the tool and returns its standard output, at most `max_bytes` of it.
    pub(crate) async fn output(
        &self,
        cancel: &CancellationToken,
        max_bytes: usize,
        mut on_error_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Vec<u8>, RunToolError> {
        let (mut child, stdout, stderr) = self.spawn()?;
        let read = async {
            let out = self.collect(stdout, max_bytes);
            let mut on_line = |_: Output, line: &[u8]| on_error_line(line);
            let err = self.pump(tokio::io::empty(), stderr, &mut on_line);
            // Too much output is not read on: the tool is ended without waiting for it.
            tokio::try_join!(out, err).map(|(bytes, ())| bytes)
        };
        self.supervise(&mut child, cancel, read).await
    }

    /// Waits for what is done with the outputs and then for the tool's end. However it comes out,
    /// every process of the tool is gone when this returns.
    async fn supervise<T>(
        &self,
        child: &mut Child,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, RunToolError>>,
    ) -> Result<T, RunToolError> {
        let program = self.program;
        let run = async {
            let done = work.await?;
            let status = child.wait().await;
            let status = status.map_err(|source| RunToolError::Start { program, source })?;
            if status.success() {
                return Ok(done);
            }
            Err(RunToolError::Failed { program, return_code: status.code().unwrap_or(137) })
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RunToolError::Cancelled),
            () = tokio::time::sleep(self.time_limit) => {
                Err(RunToolError::TimeLimit { program, seconds: self.time_limit.as_secs() })
            }
            outcome = run => outcome,
        };
        if outcome.is_err() {
            kill_all(child).await;
        }
        outcome
    }

    /// Reads an output to its end; one that is longer than `max_bytes` is an error.
    async fn collect(
        &self,
        output: impl AsyncRead + Unpin,
        max_bytes: usize,
    ) -> Result<Vec<u8>, RunToolError> {
        let program = self.program;
        let mut bytes = Vec::new();
        let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let read = output.take(limit).read_to_end(&mut bytes).await;
        if read.map_err(|source| RunToolError::Output { program, source })? > max_bytes {
            return Err(RunToolError::TooMuchOutput { program, max_bytes });
        }
        Ok(bytes)
    }

    fn spawn(&self) -> Result<(Child, ChildStdout, ChildStderr), RunToolError> {
        #[expect(clippy::disallowed_methods, reason = "this module is where processes start")]
        let mut command = Command::new("setpriv");
        // setpriv makes the kernel kill unshare when the server dies, unshare makes it kill the
        // first process of the namespace, and with that one the kernel kills all the others.
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--fork", "--kill-child"]);
        command.args(["--pid", "--mount-proc", "--ipc", "--uts"]);
        let script = match self.network {
            Network::Host => SCRIPT,
            Network::None => {
                command.arg("--net");
                SCRIPT_WITH_LOOPBACK
            }
        };
        command.args(["--", "sh", "-c", script, "sh", self.program]).args(&self.arguments);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = command.spawn();
        let mut child =
            started.map_err(|source| RunToolError::Start { program: self.program, source })?;
        match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
            _ => Err(RunToolError::Internal("a tool was started without its pipes")),
        }
    }

    /// Reads both outputs until they are closed or nothing has come for the idle limit.
    async fn pump(
        &self,
        mut stdout: impl AsyncRead + Unpin,
        mut stderr: impl AsyncRead + Unpin,
        on_line: &mut (impl FnMut(Output, &[u8]) + Send),
    ) -> Result<(), RunToolError> {
        let failed = |source| RunToolError::Output { program: self.program, source };
        let mut out = Some((Lines::default(), vec![0; READ_BYTES]));
        let mut err = Some((Lines::default(), vec![0; READ_BYTES]));
        let mut idle_since = Instant::now();
        while out.is_some() || err.is_some() {
            let idle = tokio::time::sleep_until(idle_since + self.idle_limit);
            tokio::select! {
                read = read_some(&mut stdout, &mut out), if out.is_some() => {
                    let open = read.map_err(failed)?;
                    hand_on(&mut out, open, &mut |line| on_line(Output::Standard, line));
                }
                read = read_some(&mut stderr, &mut err), if err.is_some() => {
                    let open = read.map_err(failed)?;
                    hand_on(&mut err, open, &mut |line| on_line(Output::Error, line));
                }
                () = idle => {
                    let seconds = self.idle_limit.as_secs();
                    return Err(RunToolError::Idle { program: self.program, seconds });
                }
            }
            idle_since = Instant::now();
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tool {
    // The environment can hold a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tool").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Why a tool did not end well.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RunToolError {
    /// Somebody asked for the end of the build; every process of the tool is gone.
    #[error("cancelled")]
    Cancelled,

    /// The tool ended with a return code other than 0; 137 if a signal ended it.
    #[error("`{program}` ended with return code {return_code}")]
    Failed { program: &'static str, return_code: i32 },

    /// The tool wrote nothing for too long.
    #[error("`{program}` wrote nothing for {seconds} seconds and was ended")]
    Idle { program: &'static str, seconds: u64 },

    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(&'static str),

    /// The output could not be read.
    #[error("cannot read the output of `{program}`")]
    Output { program: &'static str, source: io::Error },

    /// The tool could not be started or waited for.
    #[error("cannot run `{program}`; are util-linux and `{program}` installed?")]
    Start { program: &'static str, source: io::Error },

    /// The tool ran for too long.
    #[error("`{program}` ran for more than {seconds} seconds and was ended")]
    TimeLimit { program: &'static str, seconds: u64 },

    /// The tool wrote more than it should.
    #[error("`{program}` wrote more than {max_bytes} bytes")]
    TooMuchOutput { program: &'static str, max_bytes: usize },
}

impl RunToolError {
    /// Returns the return code for the v1 status: the tool's own, else one that `timeout` and the
    /// shell would give.
    pub(crate) fn return_code(&self) -> i32 {
        match self {
            Self::Failed { return_code, .. } => *return_code,
            Self::Idle { .. } | Self::TimeLimit { .. } => 124,
            Self::Start { .. } => 127,
            Self::Cancelled => 137,
            Self::Internal(_) | Self::Output { .. } | Self::TooMuchOutput { .. } => 1,
        }
    }
}

/// Kills every process of the tool and waits until they are gone.
///
/// Killing the first process of the PID namespace makes the kernel kill and reap all others before
/// that process itself ends; `unshare` ends after it, and is what we wait for.
async fn kill_all(child: &mut Child) {
    if let Some(unshare) = child.id() {
        let first = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))
            .ok()
            .and_then(|pids| pids.split_whitespace().next()?.parse().ok())
            .and_then(Pid::from_raw);
        let killed = first.is_some_and(|first| kill_process(first, Signal::KILL).is_ok());
        if !killed {
            // unshare has not forked yet, or its child is gone already.
            let _already_gone = child.start_kill();
        }
    }
    let _status = child.wait().await;
}

type Source = Option<(Lines, Vec<u8>)>;

/// Reads once; returns the number of bytes, 0 at the end.
async fn read_some(input: &mut (impl AsyncRead + Unpin), source: &mut Source) -> io::Result<usize> {
    match source {
        Some((_, buffer)) => input.read(buffer).await,
        None => std::future::pending().await,
    }
}

fn hand_on(source: &mut Source, read: usize, on_line: &mut impl FnMut(&[u8])) {
    let Some((lines, buffer)) = source else { return };
    if let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) {
        lines.push(chunk, on_line);
    } else {
        lines.finish(on_line);
        *source = None;
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8], on_line: &mut impl FnMut(&[u8])) {
        for piece in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            self.rest.extend_from_slice(text);
            while self.rest.len() > MAX_LINE_BYTES {
                let tail = self.rest.split_off(MAX_LINE_BYTES);
                on_line(&std::mem::replace(&mut self.rest, tail));
            }
            if ended && !self.rest.is_empty() {
                on_line(&self.rest);
                self.rest.clear();
            }
        }
    }

    fn finish(&mut self, on_line: &mut impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            on_line(&self.rest);
            self.rest.clear();
        }
    }
}

// The host name ends in images (`hostname > file`), the umask in the modes of their files: both are
// fixed so that the same commit gives the same image.
const SCRIPT: &str = "umask 022; echo sbs > /proc/sys/kernel/hostname; exec \"$@\"";
const SCRIPT_WITH_LOOPBACK: &str =
    "umask 022; echo sbs > /proc/sys/kernel/hostname; ip link set lo up; exec \"$@\"";
/// Tells whether a program is where tools are looked for.
pub(crate) fn is_there(program: &str) -> bool {
    SEARCH_PATH.split(':').any(|directory| Path::new(directory).join(program).is_file())
}

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const READ_BYTES: usize = 16 * 1024;
const MAX_LINE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    async fn lines(tool: &Tool) -> (Result<(), RunToolError>, Vec<String>) {
        let mut seen = Vec::new();
        let result = tool
            .run(&CancellationToken::new(), |_, line| {
                seen.push(String::from_utf8_lossy(line).into_owned());
            })
            .await;
        (result, seen)
    }

    #[tokio::test]
    async fn hands_on_lines_and_the_return_code() {
        let (result, mut seen) = lines(&shell("echo a; printf 'b\\rc'; echo d >&2; exit 3")).await;
        seen.sort();
        assert_eq!(seen, ["a", "b", "c", "d"]);
        assert!(matches!(result, Err(RunToolError::Failed { return_code: 3, .. })));
    }

    #[tokio::test]
    async fn the_environment_is_empty_but_for_what_is_given() {
        let tool = Tool::new("env").env("GIVEN", "x");
        let (result, mut seen) = lines(&tool).await;
        result.unwrap();
        seen.retain(|line| !line.starts_with("PWD=") && !line.starts_with("_="));
        seen.sort();
        assert_eq!(seen, ["GIVEN=x", "LC_ALL=C.UTF-8", &format!("PATH={SEARCH_PATH}"), "TZ=UTC"]);
    }

    #[tokio::test]
    async fn sees_no_process_of_the_host_and_a_fixed_host_name() {
        let (result, seen) = lines(&shell("hostname; umask; cat /proc/1/comm; echo $$")).await;
        result.unwrap();
        assert_eq!(seen, ["sbs", "0022", "sh", "1"]);
    }

    #[tokio::test]
    async fn a_tool_without_network_has_its_loopback_alone() {
        let tool = shell("ls /sys/class/net; cat /proc/net/dev").network(Network::None);
        let (result, seen) = lines(&tool).await;
        result.unwrap();
        let interfaces: Vec<_> = seen.iter().filter(|line| line.contains(':')).collect();
        assert_eq!(interfaces.len(), 1, "{seen:?}");
        assert!(interfaces[0].trim_start().starts_with("lo:"), "{seen:?}");
    }

    #[tokio::test]
    async fn b7_limits_end_a_tool_with_everything_it_started() {
        let marker = format!("sleep 31{}", std::process::id());
        let endless = shell(&format!("{marker} & setsid {marker} & echo x; {marker}"));
        let endless = endless.limits(Duration::from_millis(300), Duration::from_mins(1));
        let (result, _) = lines(&endless).await;
        assert!(matches!(result, Err(RunToolError::TimeLimit { .. })), "{result:?}");
        assert_eq!(running(&marker), 0);

        let idle = endless.limits(Duration::from_mins(1), Duration::from_millis(300));
        let (result, _) = lines(&idle).await;
        assert!(matches!(result, Err(RunToolError::Idle { .. })), "{result:?}");
        assert_eq!(running(&marker), 0);
    }

    #[tokio::test]
    async fn cancelling_ends_every_process_before_it_returns() {
        let marker = format!("sleep 32{}", std::process::id());
        let tool = shell(&format!("setsid {marker} & echo started; exec >&- 2>&-; {marker}"));
        let cancel = CancellationToken::new();
        let on_line = |_: Output, _: &[u8]| cancel.cancel();
        let result = tool.run(&cancel, on_line).await;
        assert!(matches!(result, Err(RunToolError::Cancelled)), "{result:?}");
        assert_eq!(running(&marker), 0);
    }

    #[tokio::test]
    async fn what_a_tool_leaves_behind_dies_with_it() {
        let marker = format!("sleep 33{}", std::process::id());
        let (result, _) = lines(&shell(&format!("setsid {marker} >&- 2>&- & true"))).await;
        result.unwrap();
        assert_eq!(running(&marker), 0);
    }

    #[tokio::test]
    async fn an_endless_line_comes_in_pieces() {
        let (result, seen) = lines(&shell("head -c 200000 /dev/zero | tr '\\0' x")).await;
        result.unwrap();
        assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), [65536, 65536, 65536, 3392]);
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let cancel = CancellationToken::new();
        let tool = shell("echo warning >&2; printf 0123456789");
        let mut warnings = Vec::new();
        let bytes = tool.output(&cancel, 10, |line| warnings.push(line.to_vec())).await.unwrap();
        assert_eq!((bytes.as_slice(), warnings), (&b"0123456789"[..], vec![b"warning".to_vec()]));
        let result = tool.output(&cancel, 9, |_| ()).await;
        assert!(matches!(result, Err(RunToolError::TooMuchOutput { .. })), "{result:?}");
        let result = shell("cat /dev/zero").output(&cancel, 1000, |_| ()).await;
        assert!(matches!(result, Err(RunToolError::TooMuchOutput { .. })), "{result:?}");
    }

    /// Counts the processes of the machine whose command line is `command`.
    fn running(command: &str) -> usize {
        let words: Vec<u8> =
            command.split(' ').flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
            .filter(|line| *line == words)
            .count()
    }
}
