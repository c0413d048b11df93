//! `sync` and `run`: the agent on the line.
//!
//! `run` gives up only where a person has to act: not enrolled, or a file of its identity damaged. Whatever may
//! pass by itself (another command at work, a full disk, a file held by a virus scanner) is waited for, since
//! nobody starts it again.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use banyan_shared::wire::EnrolRefusal;

use banyan_shared::catalogue::Lang;

use super::{Exit, Ui, open_driver, runtime};
use crate::command::{Command, Reply, SyncState};
use crate::core::Options;
use crate::driver::{Driver, Handle};
use crate::local;
use crate::note::Note;

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long `run` waits before it tries again what it could not open: the first time, and at most.
pub(crate) const OPEN_AGAIN: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30));
/// Codes of what only a person can change.
const FINAL: [&str; 3] = ["not_enrolled", "identity_damaged", "newer_program"];

/// How a wait for the centre ended.
pub(crate) enum Waited {
    Settled,
    Refused(EnrolRefusal),
    Late(SyncState),
    /// The running service has not answered in time.
    Silent,
    Failed(Note),
}

/// Sends what waits and hears what the centre holds.
pub(crate) fn run(ui: &Ui, timeout: Duration) -> Exit {
    let deadline = Instant::now() + timeout;
    if let Some(reply) = local::ask(&ui.data_dir, &Command::Sync) {
        let since = match reply {
            Reply::Sync(state) => state.hellos,
            other => return super::show::unexpected(ui, other),
        };
        return end(ui, wait_for_running(ui, since, deadline));
    }
    let waited = runtime().and_then(|runtime| {
        let driver = open_driver(&ui.data_dir)?;
        let handle = driver.handle();
        runtime.block_on(async move {
            // As with a service: what the centre said last time is forgotten first.
            if let Reply::Failed(note) = handle.handle(Command::Sync).await {
                return Err(note);
            }
            let (tell, told) = tokio::sync::oneshot::channel();
            let stop = async move {
                let waited = wait(&handle, 0, deadline, true).await;
                // Only this function listens, and it does until the driver has stopped.
                let _ = tell.send(waited);
            };
            driver.run(stop).await?;
            Ok(told.await.unwrap_or_else(|_| Waited::Failed(crate::core::other_version())))
        })
    });
    end(ui, waited.unwrap_or_else(Waited::Failed))
}

/// Waits until a hello after the `since`th was answered and, if `all`, every entry has a receipt.
pub(crate) async fn wait(handle: &Handle, since: u64, deadline: Instant, all: bool) -> Waited {
    loop {
        match handle.handle(Command::SyncState).await {
            Reply::Sync(state) => {
                let heard = state.enrolled && state.hellos > since;
                if heard && (state.waiting == 0 || !all) {
                    return Waited::Settled;
                }
                if let Some(refusal) = state.refusal {
                    return Waited::Refused(refusal);
                }
                if Instant::now() >= deadline {
                    return Waited::Late(state);
                }
            }
            Reply::Failed(note) => return Waited::Failed(note),
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn wait_for_running(ui: &Ui, mut since: u64, deadline: Instant) -> Waited {
    let mut last = None;
    loop {
        match local::ask(&ui.data_dir, &Command::SyncState) {
            Some(Reply::Sync(state)) => {
                // The service was started anew meanwhile, and counts from the beginning.
                if state.hellos < since {
                    since = 0;
                }
                if state.enrolled && state.hellos > since && state.waiting == 0 {
                    return Waited::Settled;
                }
                if let Some(refusal) = state.refusal {
                    return Waited::Refused(refusal);
                }
                last = Some(state);
            }
            Some(Reply::Failed(note)) => return Waited::Failed(note),
            _ => {}
        }
        if Instant::now() >= deadline {
            return match last {
                Some(state) => Waited::Late(state),
                None => Waited::Silent,
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// Says how it ended.
pub(crate) fn end(ui: &Ui, waited: Waited) -> Exit {
    match waited {
        Waited::Settled => {
            ui.say("已同步：全部收到回执。", "In sync: everything has a receipt.");
            Exit::Done
        }
        Waited::Refused(refusal) => {
            let (code, text) = (refusal.code(), refusal.text(ui.lang));
            ui.say(
                &format!("中心未接受本终端：{text} [{code}]"),
                &format!("The centre does not accept this agent: {text} [{code}]"),
            );
            if refusal == EnrolRefusal::Waiting { Exit::Late } else { Exit::Failed }
        }
        Waited::Silent => {
            ui.tell(&super::no_answer());
            Exit::Late
        }
        // No line helps there.
        Waited::Late(SyncState { fault: Some(fault), waiting, .. }) => {
            ui.tell(&fault);
            ui.say(
                &format!("本机故障，上报未完成：{waiting}条待上报，仍安全保存在本机；排除故障后会自动上报。"),
                &format!(
                    "A fault of this machine, not of the line: {waiting} entries wait. They are safe here, \
                     and go when it is mended."
                ),
            );
            Exit::Failed
        }
        Waited::Late(state) => {
            let waiting = state.waiting;
            let detail = state.detail.map_or_else(String::new, |detail| match ui.lang {
                Lang::Zh => detail.zh,
                Lang::En => detail.en,
            });
            if state.hellos == 0 {
                ui.say(
                    &format!("未能连上中心（{detail}），{waiting}条待上报；数据已安全保存在本机，联网后会自动上报。"),
                    &format!(
                        "No line to the centre ({detail}); {waiting} entries wait. They are safe on \
                         this machine and go when there is one."
                    ),
                );
            } else {
                ui.say(
                    &format!("时间到，还有{waiting}条未收到回执；稍后再试。{detail}"),
                    &format!("Time is up and {waiting} entries have no receipt yet; try again later. {detail}"),
                );
            }
            Exit::Late
        }
        Waited::Failed(note) => {
            ui.tell(&note);
            Exit::Failed
        }
    }
}

/// Runs until it is told to stop.
pub(crate) fn serve(ui: &Ui) -> Exit {
    let result = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let mut stop = Box::pin(stop_signal());
            let dir = ui.data_dir.clone();
            let open = move || Driver::open(Options::new(&dir));
            let mut told = None;
            let tell = |note: Note, _| {
                // What has been said is not said again every half minute.
                if told.as_ref() != Some(&note) {
                    ui.tell(&note);
                    ui.say(
                        "稍后自动重试，直至停止本程序。",
                        "It is tried again until it is stopped.",
                    );
                    told = Some(note);
                }
            };
            let opened = open_at_last(open, stop.as_mut(), OPEN_AGAIN, tell).await;
            let Some(driver) = opened? else { return Ok(()) };
            ui.say("终端正在运行，按 Ctrl-C 停止。", "The agent is running; Ctrl-C stops it.");
            let lang = ui.lang;
            let driver = driver.telling(move |note| super::tell(lang, note));
            driver.run(stop).await
        })
    });
    match result {
        Ok(()) => Exit::Done,
        Err(note) => {
            ui.tell(&note);
            Exit::Failed
        }
    }
}

/// Opens what can be opened sooner or later, with growing waits from the first of `again` to the second;
/// none if `stop` is done first. Each failure is told, with the wait that follows.
///
/// Errors: what only a person can change.
pub(crate) async fn open_at_last<T: Send + 'static>(
    open: impl Fn() -> Result<T, Note> + Clone + Send + 'static,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    again: (Duration, Duration),
    mut tell: impl FnMut(Note, Duration),
) -> Result<Option<T>, Note> {
    let mut wait = again.0;
    loop {
        let opened = tokio::select! {
            () = stop.as_mut() => return Ok(None),
            // It may block on the disk.
            opened = tokio::task::spawn_blocking(open.clone()) => opened,
        };
        let note = match opened {
            Ok(Ok(opened)) => return Ok(Some(opened)),
            Ok(Err(note)) if FINAL.contains(&note.code.as_str()) => return Err(note),
            Ok(Err(note)) => note,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is shutting down cancels.
                Err(_) => return Ok(None),
            },
        };
        tell(note, wait);
        tokio::select! {
            () = stop.as_mut() => return Ok(None),
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(again.1);
    }
}

/// Done when the process is asked to end.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Nothing to listen to: run until killed, which loses nothing.
        std::future::pending::<()>().await;
    }
}
