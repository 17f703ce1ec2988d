//! Child processes that leave their output behind when a test fails.

use anyhow::{Context, Result, anyhow, bail};
use std::{
    ffi::OsStr,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// A running child. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    stdout: UnboundedReceiver<String>,
    quiet: bool,
}

impl Process {
    /// Starts a program whose standard error goes to `<dir>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let (sender, stdout) = unbounded_channel();
        // Reads all of it, because a child that writes into a full pipe stops.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        Ok(Self { name: name.to_owned(), log, child, stdout, quiet: false })
    }

    /// The next line of standard output.
    ///
    /// # Errors
    /// When it exits before or says nothing for a minute.
    pub async fn line(&mut self) -> Result<String> {
        match timeout(Duration::from_secs(60), self.stdout.recv()).await {
            Ok(line) => line.ok_or_else(|| anyhow!("{} exited: {}", self.name, self.tail())),
            Err(_) => bail!("{} says nothing: {}", self.name, self.tail()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Ctrl-C, and waits for the exit for at most `limit`.
    ///
    /// # Errors
    /// When it does not exit in time or not with status 0.
    pub async fn interrupt(&mut self, limit: Duration) -> Result<()> {
        let id = self.child.id().context("it has exited already")?;
        Command::new("kill").args(["-INT", &id.to_string()]).status().await?;
        let status = timeout(limit, self.child.wait()).await.map_err(|_| {
            anyhow!("{} did not stop within {limit:?}: {}", self.name, self.tail())
        })??;
        if !status.success() {
            bail!("{} stopped with {status}: {}", self.name, self.tail());
        }
        Ok(())
    }

    /// The number that the operating system knows it by.
    ///
    /// # Errors
    /// When it has exited.
    pub fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has exited: {}", self.name, self.tail()))
    }

    /// Does not show the log in the end.
    pub const fn hush(&mut self) {
        self.quiet = true;
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it logged.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.quiet {
            return;
        }
        // The test runner shows this only when the test fails.
        eprintln!("--- end of the log of {} ---\n{}", self.name, self.tail());
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or takes longer than two minutes.
pub async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("{:?}", command.as_std());
    timeout(crate::DEADLINE, command.output())
        .await
        .map_err(|_| anyhow!("{what} does not end"))?
        .with_context(|| format!("cannot run {what}"))
}

/// The standard output of a program that succeeds, without the final newline.
///
/// # Errors
/// When it fails, with what it wrote to standard error.
pub async fn read<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let output = run(program, &arguments).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if !output.status.success() {
        let line: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} {}: {}\n{text}{error}", program.display(), line.join(" "), output.status);
    }
    Ok(text)
}

/// A TCP port that nobody listens on, below the range from which the system takes ports of outgoing connections,
/// and another one for every test process, so that tests beside each other never meet.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
