//! A child process that never outlives its owner.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::until;

/// Every child alive, for [`kill_all`].
static CHILDREN: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every child of every [`Process`]: for a program that must end without unwinding.
pub fn kill_all() {
    for child in lock(&CHILDREN).iter().filter_map(Weak::upgrade) {
        // One that has ended already needs no killing.
        let _ = lock(&child).kill();
    }
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Arc<Mutex<Child>>,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts `command`; what it writes is appended to the file `log`.
    ///
    /// # Errors
    /// The program cannot be started or the log not be opened.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let name = Path::new(command.get_program()).file_stem().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let file = || -> Result<File> {
            let opened = OpenOptions::new().create(true).append(true).open(log);
            opened.with_context(|| format!("opening {}", log.display()))
        };
        command.stdin(Stdio::null()).stdout(file()?).stderr(file()?);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        let child = Arc::new(Mutex::new(child));
        let mut children = lock(&CHILDREN);
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child));
        Ok(Process { child, log: log.to_owned(), name })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.child).try_wait()?)
    }

    /// Kills it as a power cut would (`kill -9`) and waits until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill9(&self) -> Result<()> {
        let mut child = lock(&self.child);
        child.kill().with_context(|| format!("killing {}", self.name))?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM; elsewhere it is killed) and waits until it has.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn terminate(self, limit: Duration) -> Result<ExitStatus> {
        if cfg!(unix) {
            let id = self.id().to_string();
            Command::new("kill").args(["-TERM", &id]).status().context("running kill")?;
        } else {
            lock(&self.child).kill()?;
        }
        until(&format!("{} ends", self.name), limit, || self.ended())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        until(&format!("{} ends", self.name), limit, || self.ended())
    }

    /// That it still runs.
    ///
    /// # Errors
    /// It has ended: with the end of what it wrote.
    pub fn check(&self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended by itself ({status}):\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// The end of what it wrote.
    pub fn log_end(&self) -> String {
        // It may be led to a device, which has no end.
        let is_file = std::fs::metadata(&self.log).is_ok_and(|log| log.is_file());
        let read = is_file.then(|| std::fs::read(&self.log).ok()).flatten();
        let bytes = read.unwrap_or_default();
        let end = &bytes[bytes.len().saturating_sub(4000)..];
        String::from_utf8_lossy(end).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // It may have ended already; either way it is waited for, so that nothing of it is left.
        let _ = child.kill();
        let _ = child.wait();
    }
}
